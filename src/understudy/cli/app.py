"""The verbs of the command line: their names, arguments and help. What each one does is in the module that it loads.

Modules are loaded inside the verbs, so that `--help`, `validate` and tab completion start at once.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.core.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from understudy.cli.client import Client
    from understudy.cli.up import Opener
    from understudy.core.model import Spec
    from understudy.core.text import Name

app = typer.Typer(
    help="Keeps your services available: balances, watches, fails over, and says why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The YAML file that names your services.")]
Service = Annotated[str, typer.Argument(metavar="SERVICE")]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT")]
Api = Annotated[
    str, typer.Option("--api", envvar="UNDERSTUDY_API", metavar="HOST:PORT", help="Where the agent's API is.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

HERE = "127.0.0.1:8600"


@app.command(rich_help_panel="Running")
def up(
    context: typer.Context,
    spec: SpecFile,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Where everything that it owns is kept.", show_default="/var/lib/understudy/CLUSTER as root"),
    ] = None,
) -> None:
    """Run everything the spec names, in the foreground; Ctrl-C ends it."""
    from understudy.cli import up as verb
    from understudy.cli.places import state_home

    known = _read(spec)
    if known.hosts:
        raise Refused(f"{spec} names hosts: run `understudy agent {spec} --host NAME` on each of them")
    openers: Callable[[Name | None], Opener] = context.obj
    verb.up(known, state_dir or state_home() / known.cluster, openers(None))


@app.command(rich_help_panel="Running")
def agent(
    context: typer.Context,
    spec: SpecFile,
    host: Annotated[str, typer.Option(metavar="NAME", help="Which of the spec's hosts this machine is.")],
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Where everything that it owns is kept.", show_default="/var/lib/understudy/CLUSTER as root"),
    ] = None,
) -> None:
    """Run this host's part of a spec with several hosts; Ctrl-C ends the agent alone, and everything goes on."""
    from understudy.cli import up as verb
    from understudy.cli.places import state_home

    known = _read(spec)
    here = known.host(host)
    if here is None:
        named = ", ".join(one.name for one in known.hosts)
        raise Refused(
            f"{spec} has no host {host!r}: it names {named}"
            if named
            else f"{spec} names no hosts: run `understudy up {spec}`, or give it `hosts:`"
        )
    openers: Callable[[Name | None], Opener] = context.obj
    verb.up(known, state_dir or state_home() / known.cluster, openers(here.name))


@app.command(rich_help_panel="Running")
def validate(spec: SpecFile) -> None:
    """Check a spec: every fault of the file at once, each with its line and what would be right."""
    from understudy.cli.words import counted

    known = _read(spec)
    services = counted(len(known.services) + len(known.clusters), "service")
    endpoints = counted(sum(len(service.endpoints) for service in known.services), "endpoint")
    nodes = counted(sum(len(service.nodes) for service in known.clusters), "node")
    parts = [endpoints] * bool(known.services) + [nodes] * bool(known.clusters)
    typer.echo(f"{spec} is good: cluster {known.cluster}, {', '.join([services, *parts])}")


@app.command(rich_help_panel="Running")
def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from understudy.cli.screen import print_json
    from understudy.spec import schema as spec_schema

    print_json(spec_schema())


@app.command(rich_help_panel="Seeing")
def fsm(
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page with the diagram, docs/fsm.md, instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the transition table of stateful clusters: every phase, when it ends, and why."""
    from understudy.core.fsm_text import as_data, page, table_text

    if write is not None:
        try:
            write.write_text(page(), encoding="utf-8")
        except OSError as fault:
            raise Refused(f"{write} cannot be written ({fault.strerror}): choose a file in a folder of yours") from None
    elif as_json:
        from understudy.cli.screen import print_json

        print_json(as_data())
    else:
        typer.echo(table_text())


@app.command(rich_help_panel="Changing")
def plan(spec: SpecFile, as_json: AsJson = False, api: Api = HERE) -> None:
    """Show what applying this spec would change, and whether it needs a reload."""
    from understudy.cli import seeing
    from understudy.spec import text_of

    seeing.plan(_client(api), text_of(spec), as_json=as_json)


@app.command(rich_help_panel="Changing")
def apply(
    what: Annotated[str | None, typer.Argument(metavar="SPEC", help="The spec, or with --rollback a version.")] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the version before this one, or to the one that is named.")
    ] = False,
    api: Api = HERE,
) -> None:
    """Make this spec the one in force, or go back: `apply SPEC`, `apply --rollback [VERSION]`."""
    from understudy.cli import changing
    from understudy.spec import text_of

    if rollback:
        if what is not None and not (what.isascii() and what.isdigit()):
            raise typer.BadParameter(f"{what!r} is no version: `understudy versions` lists them")
        changing.rollback(_client(api), None if what is None else int(what))
    elif what is None:
        raise typer.BadParameter("say which spec to apply, or --rollback")
    else:
        changing.apply(_client(api), text_of(Path(what)))


@app.command(rich_help_panel="Seeing")
def versions(as_json: AsJson = False, api: Api = HERE) -> None:
    """List the versions of the spec, newest first."""
    from understudy.cli import seeing

    seeing.versions(_client(api), as_json=as_json)


@app.command(rich_help_panel="Seeing")
def status(
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second, until Ctrl-C.")] = False,
    api: Api = HERE,
) -> None:
    """Show every service and endpoint, and why what is not serving is not."""
    from understudy.cli import seeing

    if watch and as_json:
        raise typer.BadParameter("--watch is for people: leave out --json")
    with _until_interrupted():
        seeing.status(_client(api), as_json=as_json, watch=watch)


@app.command(rich_help_panel="Seeing")
def events(  # noqa: PLR0917  # typer gives each option by name
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option("-n", min=1, max=1000, metavar="N", help="How many of the newest.")] = 50,
    service: Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="Only of this service.")] = None,
    show: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ID",
            help="All of the failover that the entry with this number, its first column, belongs to.",
        ),
    ] = None,
    as_json: AsJson = False,
    api: Api = HERE,
) -> None:
    """Show what happened, oldest first, each with its number; with --json one object a line."""
    from understudy.cli import seeing

    if show is not None:
        seeing.decision(_client(api), show, as_json=as_json)
        return
    with _until_interrupted():
        seeing.events(_client(api), follow=follow, as_json=as_json, service=service, limit=limit)


@app.command(rich_help_panel="Seeing")
def why(service: Service, as_json: AsJson = False, api: Api = HERE) -> None:
    """Say why a service is as it is, and what would make it otherwise."""
    from understudy.cli import seeing

    seeing.why(_client(api), service, as_json=as_json)


@app.command("what-if", rich_help_panel="Seeing")
def what_if(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of a cluster; SERVICE/NODE where names repeat.")],
    as_json: AsJson = False,
    api: Api = HERE,
) -> None:
    """Say what would happen if this node died now: who takes over, how soon, and what would be lost."""
    from understudy.cli import seeing

    service, _, name = node.rpartition("/")
    seeing.what_if(_client(api), name, service or None, as_json=as_json)


@app.command(rich_help_panel="Operating")
def failover(
    service: Service,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Cluster: promote the best that is left, whatever it lacks.")
    ] = False,
    sworn_dead: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Cluster: this node's machine is off; you have looked. May be repeated."),
    ] = None,
    api: Api = HERE,
) -> None:
    """Move a pool's traffic to its backup group; let another node of a cluster take over."""
    if accept_loss or sworn_dead:
        _ask(api, service, kind="failover", accept_loss=accept_loss, sworn_dead=sworn_dead)
    else:
        _order(api, "services", service, "failover")


@app.command(rich_help_panel="Operating")
def switchover(
    service: Service,
    node: Annotated[
        str | None, typer.Argument(metavar="NODE", help="Who is to take over; the best, if not given.")
    ] = None,
    api: Api = HERE,
) -> None:
    """Let another node of a cluster take over, both alive, nothing lost; clients wait meanwhile."""
    _ask(api, service, kind="switchover", node=node)


@app.command(rich_help_panel="Operating")
def pause(service: Service, api: Api = HERE) -> None:
    """Leave a cluster alone until `resume`: nobody takes over; a primary cut off still stops by itself."""
    _ask(api, service, kind="pause")


@app.command(rich_help_panel="Operating")
def resume(service: Service, api: Api = HERE) -> None:
    """End a `pause`."""
    _ask(api, service, kind="resume")


@app.command(rich_help_panel="Operating")
def rebuild(
    service: Service,
    node: Annotated[str, typer.Argument(metavar="NODE")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Also where there is no room to keep the node's old data.")
    ] = False,
    api: Api = HERE,
) -> None:
    """Copy a standby's data anew from the primary; the old data is kept."""
    _ask(api, service, kind="rebuild", node=node, accept_loss=accept_loss)


@app.command(rich_help_panel="Operating")
def failback(service: Service, api: Api = HERE) -> None:
    """Move a service's traffic back to its primary group."""
    _order(api, "services", service, "failback")


@app.command(rich_help_panel="Operating")
def drain(
    service: Service,
    endpoint: Endpoint,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait; for as long as it takes, if not given."),
    ] = None,
    api: Api = HERE,
) -> None:
    """Give an endpoint no new work, and answer when it is safe to stop it."""
    from understudy.cli.drain import drain as verb

    verb(_client(api), service, endpoint, timeout)


@app.command(rich_help_panel="Operating")
def ready(service: Service, endpoint: Endpoint, api: Api = HERE) -> None:
    """Give an endpoint work again, after `drain` or `maint`."""
    _order(api, "services", service, "endpoints", endpoint, "admin", admin="ready")


@app.command(rich_help_panel="Operating")
def maint(service: Service, endpoint: Endpoint, api: Api = HERE) -> None:
    """Take an endpoint out at once, with its checks."""
    _order(api, "services", service, "endpoints", endpoint, "admin", admin="maint")


@app.command(rich_help_panel="Operating")
def weight(
    service: Service,
    endpoint: Endpoint,
    share: Annotated[int, typer.Argument(metavar="N", min=0, max=256, help="0 gives it no new work.")],
    api: Api = HERE,
) -> None:
    """Set an endpoint's weight until an `apply` changes it in the spec."""
    _order(api, "services", service, "endpoints", endpoint, "weight", weight=share)


def main(open_agent: "Callable[[Name | None], Opener]") -> None:
    """Run the verb that the arguments name, and end the process with its exit code: 0 done, 1 refused, 2 usage."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app(obj=open_agent, prog_name="understudy")
    except Refused as refusal:
        _fail(str(refusal))
    except BrokenPipeError:
        _leave_quietly()
    except Exception as failure:  # noqa: BLE001 - whatever it is, a person gets one sentence and no traceback
        from understudy.cli.places import keep_details

        _fail(f"an error that nobody foresaw ({type(failure).__name__}): {keep_details(failure)}")


def _read(spec: Path) -> "Spec":
    from understudy.spec import read, text_of

    return read(text_of(spec), str(spec.parent), os.environ)


def _client(api: str) -> "Client":
    from understudy.cli.client import Client

    return Client(api)


def _order(api: str, *steps: str, **body: object) -> None:
    """Send an order and print the sentence that it is answered with."""
    from understudy.cli.words import plain

    typer.echo(plain(_client(api).post(*steps, **body)["reason"]))


def _ask(api: str, service: str, **wish: object) -> None:
    """Ask something of a cluster."""
    _order(api, "services", service, "wishes", **{name: value for name, value in wish.items() if value})


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C is how watching ends, no failure."""
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _fail(sentence: str) -> None:
    from understudy.cli.words import plain

    with contextlib.suppress(OSError):
        typer.echo("understudy: " + "\n".join(plain(line) for line in sentence.splitlines()), err=True)
    sys.exit(1)


def _leave_quietly() -> None:
    """Nobody reads the output any more (`| head`); keep Python from complaining about that when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
