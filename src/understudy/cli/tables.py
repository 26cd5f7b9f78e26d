"""The status as a table that a tired engineer can read: what is wrong stands out, and why stands below it.

From the view model to rich's values; nothing is asked or printed here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from understudy.cli.cluster_tables import cluster_view
from understudy.cli.styles import STYLES
from understudy.cli.words import counted, duration, number, plain
from understudy.control.view import EndpointStatus, RouterStatus, ServiceStatus, Status
from understudy.core.model import Group
from understudy.core.objectives import Objectives, ServiceHealth
from understudy.core.pools import Admin, Oper

SHOWN_IN_FULL = 20
"""How many services have a table; those come first that are not well, and all others have a line."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the endpoints' table; `width` is the narrowest terminal that shows it."""

    title: str
    width: int
    cell: Callable[[EndpointStatus], str | Text]
    right: bool = False


def status_view(status: Status, width: int) -> Stack:
    """The whole status for a terminal of that many columns."""
    parts: list[Text | Table] = [_head(status)]
    in_full = {service.name for service in sorted(status.services, key=is_whole)[:SHOWN_IN_FULL]}
    for service in status.services:
        if service.name in in_full:
            parts += [Text(), *_service(service, status.now_wall_s, width)]
        else:
            parts.append(_brief(service))
    for cluster in status.clusters:
        parts += [Text(), *cluster_view(cluster, width)]
    return Stack(*parts, Text(), _summary(status))


def is_whole(service: ServiceStatus) -> bool:
    """Whether there is nothing about the service that a person would have to look at."""
    return service.health is ServiceHealth.UP and all(each.oper is Oper.UP for each in service.endpoints)


def _head(status: Status) -> Text:
    head = Text(f"{status.cluster}: spec version {status.version}, agent up ", style="bold")
    head.append(duration(status.now_wall_s - status.started_wall_s))
    head.append(f", {_router(status.router)}", style="not bold")
    if not status.router.healthy:
        head.append(f"\nrouter: {plain(status.router.reason)}", style=STYLES[ServiceHealth.DOWN])
    return head


def _router(router: RouterStatus) -> str:
    if router.healthy and not router.pid:
        return "no router on this host"
    return f"router pid {router.pid} with {counted(router.workers, 'worker')}"


def _title(service: ServiceStatus) -> Text:
    title = Text.assemble((service.name, "bold"), f"  {service.kind} on {service.listen}  ")
    return title.append(service.health.upper(), STYLES[service.health])


def _brief(service: ServiceStatus) -> Text:
    if service.health is not ServiceHealth.UP:
        return _title(service).append(f"  {plain(service.reason)}", "yellow")
    endpoints = counted(len(service.endpoints), "endpoint")
    return _title(service).append(f"  {endpoints}, {service.objectives.availability_percent:.3f} % available", "dim")


def _service(service: ServiceStatus, now_wall_s: float, width: int) -> Iterator[Text | Table]:
    title = _title(service)
    if service.backup_share_percent:
        title.append(f"  {service.backup_share_percent} % of the traffic on the backup group", "yellow")
    elif service.active_group is Group.BACKUP:
        title.append("  on the backup group", "yellow")
    yield title
    if service.health is not ServiceHealth.UP:
        yield Text(f"  {plain(service.reason)}", "yellow")
    yield _endpoints(service.endpoints, now_wall_s, width)
    for endpoint in service.endpoints:
        if endpoint.oper is not Oper.UP:
            yield Text(f"  {plain(endpoint.reason)}", "yellow")
    yield Text(f"  {objectives_line(service.objectives)}", "dim")


def _endpoints(endpoints: tuple[EndpointStatus, ...], now_wall_s: float, width: int) -> Table:
    columns = [
        Column("endpoint", 0, lambda it: it.name if it.group is Group.PRIMARY else f"{it.name} (backup)"),
        Column("address", 100, lambda it: it.address),
        Column("state", 0, lambda it: _state(it, now_wall_s)),
        Column("for", 0, lambda it: duration(it.since_s), right=True),
        Column("weight", 0, _weight, right=True),
        Column("sessions", 0, lambda it: number(it.sessions), right=True),
        Column("queued", 120, lambda it: number(it.queued), right=True),
        Column("requests", 110, lambda it: number(it.requests), right=True),
        Column("errors", 110, lambda it: number(it.errors), right=True),
        Column("last check", 70, lambda it: plain(it.check)),
    ]
    shown = [column for column in columns if width >= column.width]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, column in enumerate(shown):
        title = f"  {column.title}" if place == 0 else column.title
        fold = column.title == "last check"
        table.add_column(title, justify="right" if column.right else "left", no_wrap=not fold)
    for endpoint in endpoints:
        cells = [column.cell(endpoint) for column in shown]
        table.add_row(f"  {cells[0]}", *cells[1:])
    return table


def _state(endpoint: EndpointStatus, now_wall_s: float) -> Text:
    if endpoint.held_until_wall_s is not None:
        left_s = max(0.0, endpoint.held_until_wall_s - now_wall_s)
        return Text(f"ejected, {duration(left_s)} more", "bold red")
    text = Text(endpoint.oper, STYLES[endpoint.oper])
    if endpoint.admin is not Admin.READY and endpoint.admin.value != endpoint.oper.value:
        text.append(f" ({endpoint.admin} ordered)", "cyan")
    return text


def _weight(endpoint: EndpointStatus) -> str:
    if endpoint.effective_weight == endpoint.weight:
        return str(endpoint.weight)
    return f"{endpoint.effective_weight} of {endpoint.weight}"


def objectives_line(figures: Objectives) -> str:
    """Availability and the figures behind it, in one line."""
    parts = [f"available {figures.availability_percent:.3f} % of {duration(figures.observed_s)}"]
    if figures.failures:
        parts.append(counted(figures.failures, "failure"))
    if figures.mtbf_s is not None:
        parts.append(f"MTBF {duration(figures.mtbf_s)}")
    if figures.mttr_s is not None:
        parts.append(f"MTTR {duration(figures.mttr_s)}")
    parts.append(f"{number(figures.failed_requests)} of {counted(figures.requests, 'request')} failed")
    return ", ".join(parts)


def _summary(status: Status) -> Text:
    everything = [(service.name, service.health) for service in status.services]
    everything += [(cluster.name, cluster.health) for cluster in status.clusters]
    count = Counter(health for _, health in everything)
    told = ", ".join(f"{number(count[health])} {health}" for health in ServiceHealth if count[health])
    summary = Text(f"{counted(len(everything), 'service')}: {told or 'none'}")
    ill = [name for name, health in everything if health is not ServiceHealth.UP]
    if ill:
        summary.append(f"; `understudy why {ill[0]}` says more", "yellow")
    return summary
