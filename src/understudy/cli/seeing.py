"""The verbs that only look: status, events, why, versions, plan."""

import json
import time

from rich.live import Live
from rich.text import Text

from understudy.cli.client import Client, understood
from understudy.cli.screen import console, print_json
from understudy.cli.tables import status_view
from understudy.cli.words import duration, journal_line, moment, number, plain
from understudy.control.view import Foretold, JournalEntry, SpecChange, Status, Version
from understudy.core.errors import Refused
from understudy.core.what_if import Mishap

WATCH_EVERY_S = 1.0
_IF_LOST = {Mishap.ENGINE: "If {}'s engine died now", Mishap.HOST: "If {}'s machine were lost now"}


def status(client: Client, *, as_json: bool, watch: bool) -> None:
    """Everything, once or as it changes."""
    if watch:
        return _watch(client)
    answer = client.get("status")
    if as_json:
        return print_json(answer)
    screen = console()
    return screen.print(status_view(understood(Status, answer), screen.width))


def _watch(client: Client) -> None:
    screen = console()
    with Live(console=screen, screen=screen.is_terminal, auto_refresh=False) as live:
        while True:
            try:
                view = status_view(understood(Status, client.get("status")), screen.width)
                live.update(view, refresh=True)
            except Refused as refusal:
                live.update(Text(str(refusal), "bold red"), refresh=True)
            time.sleep(WATCH_EVERY_S)


def events(client: Client, *, follow: bool, as_json: bool, service: str | None, limit: int) -> None:
    """The newest entries of the journal, and then what comes."""
    newest = client.get("events", limit=limit, service=service)
    for answer in newest:
        _print_entry(answer, as_json=as_json)
    if follow:
        latest = newest[-1:] or client.get("events", limit=1)
        after = latest[0]["number"] if latest else 0
        for answer in client.stream("events", "stream", after=after, service=service):
            _print_entry(answer, as_json=as_json)
        raise Refused("the agent has ended: start it again with `understudy up SPEC`")


def _print_entry(answer: object, *, as_json: bool) -> None:
    """One entry on one line, at once even into a pipe."""
    entry: JournalEntry = understood(JournalEntry, answer)
    line = json.dumps(answer, ensure_ascii=False) if as_json else f"{entry.number:>5}  {journal_line(entry)}"
    print(line, flush=True)  # noqa: T201 - this is what the verb answers


def why(client: Client, service: str, *, as_json: bool) -> None:
    """Why the service is as it is, most important reason first."""
    answer = client.get("services", service, "why")
    if as_json:
        return print_json(answer)
    screen = console()
    for reason in answer["reasons"]:
        screen.print(plain(reason), soft_wrap=True)
    return None


def what_if(client: Client, node: str, service: str | None, *, as_json: bool) -> None:
    """What the loss of a node's engine, and of its machine, would mean now."""
    answer = client.get("what-if", node, service=service)
    if as_json:
        return print_json(answer)
    screen = console()
    foretold: tuple[Foretold, ...] = understood(tuple[Foretold, ...], answer)
    for one in foretold:
        screen.print(f"{_IF_LOST[one.mishap].format(one.node)}: {plain(one.reason)}", soft_wrap=True)
        rto = "a person must decide" if one.rto_s is None else duration(one.rto_s)
        rpo = "not known" if one.lost_bytes is None else f"{number(one.lost_bytes)} bytes"
        screen.print(f"  expected RTO {rto}, RPO {rpo}", soft_wrap=True)
    return None


def decision(client: Client, entry: int, *, as_json: bool) -> None:
    """All of the failover that a journal entry belongs to: why, who was considered, how long, what was lost."""
    answers = client.get("events", str(entry), "decision")
    if as_json:
        return print_json(answers)
    screen = console()
    for answer in answers:
        told: JournalEntry = understood(JournalEntry, answer)
        screen.print(journal_line(told), soft_wrap=True)
        for name, value in told.data.items():
            screen.print(f"    {name}: {plain(str(value))}", soft_wrap=True)
    return None


def versions(client: Client, *, as_json: bool) -> None:
    """The versions of the spec, newest first."""
    answer = client.get("versions")
    if as_json:
        return print_json(answer)
    screen = console()
    found: tuple[Version, ...] = understood(tuple[Version, ...], answer)
    for version in found:
        screen.print(f"{version.number:>5}  {moment(version.wall_s)}  {plain(version.note)}", soft_wrap=True)
    return None


def plan(client: Client, text: str, *, as_json: bool) -> None:
    """What the spec would change."""
    answer = client.post("plan", text=text)
    if as_json:
        return print_json(answer)
    change: SpecChange = understood(SpecChange, answer)
    return print_change(change)


def print_change(change: SpecChange) -> None:
    """What changes or has changed, a sentence each, and whether the router reloads for it."""
    screen = console()
    if not change.changes:
        screen.print("nothing changes")
    for sentence in change.changes:
        screen.print(f"  {plain(sentence)}", soft_wrap=True)
    for sentence in change.reload:
        screen.print(f"  reload: {plain(sentence)}", soft_wrap=True)
    if change.changes and not change.reload:
        screen.print("no reload is needed" if change.to_version is None else "no reload was needed")
    if change.to_version == change.from_version:
        screen.print(f"version {change.to_version} stays in force")
    elif change.to_version is not None:
        screen.print(f"version {change.to_version} is in force (it was {change.from_version})")
