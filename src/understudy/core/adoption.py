"""Records that are missing, or older than the nodes: being born, and being made anew above what the nodes carry. Pure.

RULES
1. A cluster is born only when every node of the spec is heard and none carries an identity; so must everybody be whom
   they knew to have had a duty in a record that is lost: the data may be with one that has left the spec. Where
   several have data, one of them must have all.
2. A store that was lost, or restored from a backup, is noticed because nodes carry a higher epoch, a higher serial, or
   (most of them) another identity; one that is being copied has none yet, and knows as much. Or because the record was
   written in another incarnation of the store, and not everybody is heard: who is silent may know more. Then nothing
   is done before a majority of them agrees on what they carry.
3. The new record stands above everything that may have been decided in the lost one: epochs only rise. Who was primary
   and which commit rules were in force is unknown then, so everybody is frozen and the worst is assumed of both.
4. Everybody is the company that the nodes knew and the spec: that may have changed when the store was lost.
"""

from collections import Counter
from dataclasses import replace
from itertools import combinations

from understudy.core.health import heard
from understudy.core.lineage import Position, contains
from understudy.core.record import ClusterRecord, Duty, DutyKind, Origin, Phase, SyncConfig
from understudy.core.report import ClusterView, NodeReport
from understudy.core.text import Name
from understudy.core.words import listed

EPOCHS_LOST = 1000
"""How many epochs a lost record may have been ahead of those nodes that are heard."""


def foreign(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether what the nodes carry contradicts the record."""
    reports = [seen.report for _, seen in view.nodes if seen.report is not None]
    ahead = any(
        one.epoch > record.epoch or one.record_serial > record.serial for one in _ours(reports, record.identity)
    )
    ahead = ahead or any(
        (one.epoch, one.serial) > (record.epoch, record.serial) for one in _read(view, record.identity)
    )
    others = [one for one in reports if one.identity not in (None, record.identity)]
    return ahead or 2 * len(others) > len(view.service.nodes) or bool(_may_know_more(view, record))


def put_back(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether the store is another one than that in which the record was written."""
    return bool(view.store and record.store) and view.store != record.store


def _may_know_more(view: ClusterView, record: ClusterRecord) -> list[Name]:
    """Who is not heard and may have read what was written after a record that was put back."""
    if not put_back(view, record):
        return []
    everybody = {duty.node for duty in record.duties} | {node.name for node in view.service.nodes}
    return sorted(everybody - heard(view).keys())


def suspicion(view: ClusterView, record: ClusterRecord) -> str:
    """Why the record is not believed though nobody belongs to another cluster."""
    if silent := [str(name) for name in _may_know_more(view, record)]:
        return (
            "this record was written before a backup of the store was put back, and what may have been written after "
            f"it is known by none that is heard; not heard: {listed(silent, most=9)}"
        )
    return "the nodes carry a higher epoch or serial than this record, which comes from an older store"


def _ours(reports: list[NodeReport], identity: str) -> list[NodeReport]:
    """Who has read records of that cluster: one that has no data (it is being copied) bears no identity."""
    return [one for one in reports if (one.identity or one.company_identity) == identity]


def _read(view: ClusterView, identity: str) -> list[ClusterRecord]:
    """The highest record of that cluster that this steward has read itself, if it has."""
    return [view.read] if view.read is not None and view.read.identity == identity else []


def adoptable(view: ClusterView, record: ClusterRecord | None) -> bool:
    """Whether a majority of the nodes is heard and agrees on an identity.

    A person may do without the majority, but not without most of those that are heard: they would contradict it again.
    """
    reports = heard(view)
    identities = [one.identity for one in reports.values() if one.identity]
    most = max(map(identities.count, identities), default=0)
    everybody = all(node.name in reports for node in view.service.nodes)
    agreed = len(set(identities)) == 1 and (everybody or 2 * most > len(view.service.nodes))
    strangers = len(identities) - most
    agreeable = record is not None and consented(record) and most > 0
    return agreed or (agreeable and 2 * strangers <= len(view.service.nodes))


def consented(record: ClusterRecord) -> bool:
    """Whether a person accepted loss for this: a record that was put back may tell of a failover of long ago.

    An oath of then says nothing of now either; whoever is silent is asked for anew.
    """
    return record.accept_loss and record.blocked is not None and record.blocked.origin is Origin.FOREIGN


def disagreement(view: ClusterView) -> str:
    """Which cluster each node says it belongs to."""
    carried = [f"{one.node} is of cluster {one.identity}" for one in heard(view).values() if one.identity]
    return f"the nodes do not agree on which cluster they are: {listed(sorted(carried), most=9)}"


def unborn(view: ClusterView) -> str:
    """Why there is no record yet, for whoever asks."""
    made = birth(view)
    return made if isinstance(made, str) else "its record is about to be made"


def _remembered(view: ClusterView, reports: dict[Name, NodeReport]) -> list[Name]:
    """Who had a duty in the newest record that any of these nodes, or the steward, has read."""
    duties = view.read.duties if view.read is not None else ()
    return sorted({name for report in reports.values() for name in report.company} | {duty.node for duty in duties})


def birth(view: ClusterView) -> ClusterRecord | str:
    """The first record, of a new cluster or of one whose store was lost; or why there can be none yet."""
    if adoptable(view, None):
        return remade(view, None)
    reports = heard(view)
    silent = [str(node.name) for node in view.service.nodes if node.name not in reports]
    if silent:
        return (
            f"{listed(silent, most=9)} not heard: a cluster is born, or found again, by nodes that say what they have"
        )
    if lost := [str(name) for name in _remembered(view, reports) if name not in reports]:
        return (
            f"{listed(lost, most=9)}, with a duty in a record that is lost, not heard: it may have the data; start its "
            "agent, or put back a backup of the store, or remove what the other nodes remember of the cluster"
        )
    if any(report.identity for report in reports.values()):
        return disagreement(view)
    if mixed := _mixed(reports):
        return mixed
    names = frozenset(node.name for node in view.service.nodes)
    return ClusterRecord(
        cluster=view.service.name,
        identity=view.fresh_identity,
        epoch=1,
        serial=0,
        phase=Phase.BOOTSTRAPPING,
        primary=None,
        previous=None,
        duties=_all(names, DutyKind.ABSENT),
        sync=(worst(view, names),),
        electorates=(names,),
        store=view.store,
        reason="every node is heard and none belongs to a cluster yet",
    )


def _mixed(reports: dict[Name, NodeReport]) -> str:
    """What is wrong where several nodes of no cluster have data, and none is known to have all of them; else empty."""
    owners = {str(name): report.position for name, report in sorted(reports.items()) if not report.empty}
    known = {name: position for name, position in owners.items() if position is not None}
    if len(owners) < 2:
        return ""
    if unknown := [name for name in owners if name not in known]:
        return (
            f"how far the data of {listed(unknown)} go is not known yet: an engine that was not stopped in order has "
            "to be started and stopped once"
        )
    if any(all(contains(one, other) for other in known.values()) for one in known.values()):
        return ""
    parts = ", ".join(f"{name} at {position} of database {position.branches[0].id}" for name, position in known.items())
    return (
        f"no node has all the data that there are ({parts}): name other directories for those that are wrong, or empty "
        "them to have them copied; nothing was changed"
    )


def remade(view: ClusterView, record: ClusterRecord | None) -> ClusterRecord:
    """A record above everything that the nodes carry: everybody frozen, nothing assumed."""
    reports = [seen.report for _, seen in view.nodes if seen.report is not None]
    identity = Counter(one.identity for one in reports if one.identity).most_common(1)[0][0]
    ours = [one for one in reports if one.identity == identity]
    told, known = _ours(reports, identity), [*_read(view, identity), *([record] if record else [])]
    names = company(view, ours)
    made = ClusterRecord(
        cluster=view.service.name,
        identity=identity,
        epoch=max([one.epoch for one in told] + [one.epoch for one in known]) + EPOCHS_LOST,
        serial=max([one.record_serial for one in told] + [one.serial for one in known]),
        phase=Phase.FENCING,
        primary=None,
        previous=None,
        duties=_all(names, DutyKind.FROZEN),
        sync=(worst(view, names),),
        electorates=_any_electorates(names),
        known=_furthest(ours),
        store=view.store,
        reason="the record was made anew above what the nodes carry",
    )
    if record is None:
        return made
    owed = record.owed if record.identity == identity else None
    return replace(made, accept_loss=consented(record), owed=owed)


def company(view: ClusterView, reports: list[NodeReport]) -> frozenset[Name]:
    """Who may have had a part in the lost record: by the nodes that read the newest, and by the spec.

    Of the spec's only those count not that say themselves that they have never had any data.
    """
    newest = max((one.record_serial for one in reports), default=0)
    known = frozenset[Name]().union(*(one.company for one in reports if one.record_serial == newest))
    for own in _read(view, str(reports[0].identity)):
        known |= frozenset(duty.node for duty in own.duties) if own.serial >= newest else frozenset()
    new = {name for name, report in heard(view).items() if report.empty and report.identity is None}
    return known | frozenset(node.name for node in view.service.nodes if not known or node.name not in new)


def worst(view: ClusterView, names: frozenset[Name]) -> SyncConfig:
    """The least that a commit rule which loses nothing can have asked: a write is on two nodes.

    Not by what the spec says of durability now: it may have said something else when the store was lost.
    """
    return SyncConfig(names, 2 if view.capabilities.zero_loss_commit else 0)


def _any_electorates(names: frozenset[Name]) -> tuple[frozenset[Name], ...]:
    """The least of all that may have been in force: whoever rules out every pair rules out every larger one.

    One alone cannot have been, where there are two (core/sync.py).
    """
    pairs = tuple(frozenset(pair) for pair in combinations(sorted(names), 2))
    return pairs or (names,)


def _all(names: frozenset[Name], kind: DutyKind) -> tuple[Duty, ...]:
    return tuple(Duty(name, kind) for name in sorted(names))


def _furthest(reports: list[NodeReport]) -> Position | None:
    positions = [one.position for one in reports if one.position is not None]
    return max(positions, key=lambda one: sum(contains(one, other) for other in positions), default=None)
