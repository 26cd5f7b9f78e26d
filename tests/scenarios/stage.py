"""A stage for one cluster: nodes whose agents do at once what `obey` says, and a steward that decides what it sees.

No faults but those that the script orders, no races: for those there is the simulation. A script is a text file of
blocks: commands, `----`, and what was answered. See README.txt for the commands.
"""

import shlex
from dataclasses import fields, replace

from understudy.core import actions as do
from understudy.core.clock import Now
from understudy.core.cluster import Capabilities, ClusterService, Durability, Node
from understudy.core.cluster_why import cluster_health, cluster_why, node_health, node_reason
from understudy.core.clusters import decide, obey, route_of, unborn
from understudy.core.codec import decode, encode
from understudy.core.failover_mode import FailoverMode
from understudy.core.lineage import Branch, Position, contains
from understudy.core.record import (
    ClusterRecord,
    Duty,
    DutyKind,
    Ground,
    Phase,
    Request,
    RequestKind,
    SyncConfig,
)
from understudy.core.report import ClusterView, LeaseSeen, NodeReport, NodeSeen, OwnLease, Promise, Running
from understudy.core.text import Name

ENGINES = {
    "postgres": Capabilities(zero_loss_commit=True, revocation=True, rewind=True, graceful_handover=True),
    "redis": Capabilities(zero_loss_commit=False, revocation=False, rewind=False, graceful_handover=True),
    "command": Capabilities(zero_loss_commit=False, revocation=False, rewind=False, graceful_handover=False),
}
WALL_S = 1_800_000_000.0
LIMIT = 200


class Stage:
    """The cluster `orders`, its nodes and one steward."""

    def __init__(self) -> None:
        self.service = ClusterService(Name("orders"), ())
        self.capabilities = ENGINES["postgres"]
        self.record: ClusterRecord | None = None
        self.reports: dict[Name, NodeReport] = {}
        self.ages: dict[Name, int] = {}
        self.probes: dict[Name, tuple[bool, int]] = {}
        self.asleep: dict[Name, bool] = {}
        self.promises: dict[Name, Promise] = {}
        self.lease = LeaseSeen(None, 0, 0, 4000)
        self.requests: list[Request] = []
        self.now_s = 0.0
        self.phase_since_s = 0.0
        self.routers_follow = True
        self.fails: dict[Name, str] = {}
        self.out: list[str] = []
        self.saved, self.incarnation = b"", ""
        self.asked = 0

    # What a script can say.

    def perform(self, script: str) -> str:
        """Every command of a block, and what was answered."""
        self.out = []
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                getattr(self, "_" + words[0].replace("-", "_"))(*words[1:])
        return "\n".join(self.out) + "\n" if self.out else ""

    def _cluster(self, engine: str, durability: str, nodes: str, *options: str) -> None:
        """`cluster postgres zero_loss a,b,c [acks=1] [manual] [preferred=a] [a=0] [born]`: epoch 3, a leads."""
        said = self.out
        self.__init__()
        self.out = said
        given = dict(option.partition("=")[::2] for option in options)
        names = [Name(name) for name in nodes.split(",")]
        self.capabilities = ENGINES[engine]
        self.service = ClusterService(
            Name("orders"),
            tuple(Node(name, name, int(given.get(name, 1))) for name in names),
            Durability(None if durability == "zero_loss" else int(durability), int(given.get("acks", 1))),
            FailoverMode.MANUAL if "manual" in given else FailoverMode.FAST,
            preferred=Name(given["preferred"]) if "preferred" in given else None,
        )
        for name in names:
            self._new_node(name)
        if "born" not in given:
            self._settle(names)

    def _new_node(self, name: Name) -> None:
        self.reports[name] = NodeReport(name, 1, None, 0, Running.DEAD, None, empty=True)
        self.ages[name], self.probes[name], self.asleep[name] = 0, (True, 60_000), False
        self.promises[name] = Promise()

    def _settle(self, names: list[Name]) -> None:
        primary, others = names[0], names[1:]
        strict = self.service.durability.zero_loss and self.capabilities.zero_loss_commit
        acks = self.service.durability.acks if strict else 0
        rule = SyncConfig(frozenset(others if acks else ()), acks, 5)
        here = Position((Branch("1", 0), Branch("3", 500)), 1000)
        start = Position((Branch("1", 0),), 500)
        self.record = ClusterRecord(
            self.service.name, "cafe", 3, 9, Phase.STEADY, primary, None,
            (Duty(primary, DutyKind.PRIMARY), *(Duty(name, DutyKind.STANDBY, primary) for name in others)),
            (rule,), (frozenset(names),), start=start, known=start, ground=Ground.FENCED,
        )  # fmt: skip
        for name in names:
            standby = replace(
                self.reports[name], identity="cafe", epoch=3, empty=False, running=Running.UP, position=here,
                record_serial=9, company=tuple(names), frozen_epoch=3, streaming_from=primary, link_age_ms=100,
            )  # fmt: skip
            leading = replace(
                standby, streaming_from=None, link_age_ms=None, promoted_epoch=3, writable=True, sync=rule
            )
            self.reports[name] = leading if name == primary else standby
        self.lease = LeaseSeen(primary, 3, 500, 4000)

    def _node(self, name: str, *changes: str) -> None:
        """`node b less_data position=1:0/900 age=1200 probe=down:600`: what is reported and seen of it; - is None."""
        kinds = {field.name: field.type for field in fields(NodeReport)}
        for change in changes:
            key, _, value = change.partition("=")
            if key == "age":
                self.ages[Name(name)] = int(value)
            elif key == "probe":
                said, _, age = value.partition(":")
                self.probes[Name(name)] = (said == "up", int(age))
            else:
                self._report(Name(name), key, self._value(str(kinds[key]), value))

    def _value(self, kind: str, value: str) -> object:
        if value == "-":
            return None
        if "Position" in kind:
            return self._position(value)
        if "Running" in kind:
            return Running(value)
        if "bool" in kind:
            return value != "no"
        if "tuple" in kind:
            return tuple(Name(name) for name in value.split(","))
        return int(value) if "int" in kind else value

    def _position(self, text: str) -> Position:
        """`1:0,3:500/900`."""
        way, _, offset = text.partition("/")
        branches = [each.partition(":") for each in way.split(",")]
        return Position(tuple(Branch(one, int(start or 0)) for one, _, start in branches), int(offset))

    def _report(self, name: Name, key: str, value: object) -> None:
        self.reports[name] = replace(self.reports[name], **{key: value})

    def _crash(self, name: str) -> None:
        """Its engine dies; the agent lives and says so."""
        node = Name(name)
        self.reports[node] = replace(
            self.reports[node], running=Running.DEAD, writable=False, promoted_epoch=0, streaming_from=None,
            link_age_ms=None, sync=None,
        )  # fmt: skip
        self.probes[node] = (False, 0)
        self._cut_streams(node)

    def _lose(self, name: str) -> None:
        """Its host is gone, or cut off, with everything on it."""
        node = Name(name)
        self.asleep[node] = True
        self.probes[node] = (False, 0)
        self._cut_streams(node)

    def _mute(self, name: str) -> None:
        """Its agent dies; the engine runs on."""
        self.asleep[Name(name)] = True

    def _return(self, name: str, *changes: str) -> None:
        """It is back; `return a dead` with its engine dead."""
        node = Name(name)
        self.asleep[node], self.ages[node], self.probes[node] = False, 0, (True, 0)
        source = self.reports[node].streaming_from
        if source and not self._alive(source):
            self._report(node, "link_age_ms", None)
        if "dead" in changes:
            self._crash(name)

    def _cut_streams(self, source: Name) -> None:
        for name, report in self.reports.items():
            if report.streaming_from == source and not self.asleep[name]:
                self.reports[name] = replace(report, link_age_ms=None)

    def _write(self, count: str) -> None:
        """The primary writes so many bytes; whoever streams has them."""
        for name, report in self.reports.items():
            if report.writable and report.position:
                further = replace(report.position, offset=report.position.offset + int(count))
                self._report(name, "position", further)
        self._stream()

    def _wait(self, ms: str) -> None:
        """Time passes: for the phase, for the lease of one who does not renew, for the silent."""
        self.now_s += int(ms) / 1000
        for name, asleep in self.asleep.items():
            self.ages[name] = self.ages[name] + int(ms) if asleep else 0
            self.probes[name] = (self.probes[name][0], self.probes[name][1] + int(ms))
        owner = self.lease.owner
        renewed = owner is not None and not self.asleep[owner]
        self.lease = replace(self.lease, quiet_ms=0 if renewed else self.lease.quiet_ms + int(ms))

    def _ask(self, kind: str, *options: str) -> None:
        """`ask switchover b`, `ask failover accept-loss sworn-dead=a,b`."""
        given = dict(option.partition("=")[::2] for option in options)
        node = next((Name(name) for name in given if name not in ("accept-loss", "sworn-dead")), None)
        sworn = frozenset(map(Name, filter(None, given.get("sworn-dead", "").split(","))))
        self.asked += 1
        wish = Request(self.asked, RequestKind(kind), node, "accept-loss" in given, sworn, by="ann")
        self.requests.append(wish)

    def _promised(self, name: str, ms: str) -> None:
        """It has promised the primary of this epoch, for so long."""
        epoch = self.record.epoch if self.record else 0
        self.promises[Name(name)] = Promise(epoch, self.now_s + int(ms) / 1000)

    def _unheard(self, name: str) -> None:
        """Its report is gone from the store."""
        del self.reports[Name(name)]

    def _failing(self, name: str, why: str = "") -> None:
        """From now on it can do none of its duties; without a reason, it can again."""
        self.fails[Name(name)] = why

    def _routers(self, how: str) -> None:
        self.routers_follow = how == "follow"

    def _spec(self, what: str, value: str) -> None:
        """`spec add d`, `spec remove c`, `spec durability zero_loss|BYTES`, `spec acks 2`."""
        service = self.service
        if what == "add":
            self._new_node(Name(value))
            service = replace(service, nodes=(*service.nodes, Node(Name(value), Name(value))))
        elif what == "remove":
            service = replace(service, nodes=tuple(node for node in service.nodes if node.name != value))
        elif what == "durability":
            loss = None if value == "zero_loss" else int(value)
            service = replace(service, durability=replace(service.durability, max_loss_bytes=loss))
        else:
            service = replace(service, durability=replace(service.durability, acks=int(value)))
        self.service = service

    def _store(self, what: str) -> None:
        """`store save`, `store restore` (the record of that moment), `store another` (as it is), `store wipe`."""
        if what == "save":
            self.saved = encode(self.record)
        elif what == "restore":
            self.record = decode(ClusterRecord, self.saved)
        elif what == "another":
            assert self.record
            self.record, self.incarnation = replace(self.record, store="the one before"), "put back"
        else:
            self.record = None
            self.lease = LeaseSeen(None, 0, 0, 4000)

    # What a script can ask.

    def _decide(self) -> None:
        self._one_decision()

    def _run(self) -> None:
        """Decide and obey until nothing changes."""
        for _ in range(LIMIT):
            if not self._one_decision() and not self._everybody_obeys():
                return
        self.out.append("... and so on without end")

    def _act(self) -> None:
        """Everybody obeys, one step."""
        self._everybody_obeys()

    def _obey(self, name: str) -> None:
        for action in self._orders(Name(name)) or ["nothing to do"]:
            self.out.append(f"{name}: {action if isinstance(action, str) else said(action)}")

    def _show(self) -> None:
        record = self.record
        if record is None:
            self.out.append(f"no record: {unborn(self._view())}")
            return
        route = route_of(record)
        self.out.append(
            f"{record.phase}, epoch {record.epoch}, write to {route.write or 'nobody'}, "
            f"read from {', '.join(route.reads) or 'nobody'}"
        )
        self.out.append("  " + ", ".join(f"{duty.node}: {duty.kind}" for duty in record.duties))
        rules = [f"{rule.acks} of {{{','.join(sorted(rule.voters))}}}" for rule in record.sync]
        electors = [f"{{{','.join(sorted(one))}}}" for one in record.electorates]
        self.out.append(f"  commit {' and '.join(rules)}; promises {' and '.join(electors)}")
        if record.blocked:
            self.out.append(f"  blocked: {record.blocked}")

    def _why(self) -> None:
        """What `understudy why` says, and how all and each of them are; where nobody leads, what each of them does."""
        view = self._view()
        nodes = ", ".join(f"{name} {node_health(view, name)}" for name, _ in view.nodes)
        self.out.append(f"{cluster_health(view)}: {nodes}")
        leaderless = self.record is not None and self.record.primary is None
        self.out += [f"  {node_reason(view, name)}" for name, _ in view.nodes if leaderless]
        self.out += [f"  {said}" for said in cluster_why(view, (), Now(self.now_s, WALL_S + self.now_s))]

    # How it works.

    def _view(self) -> ClusterView:
        nodes = tuple(
            (name, NodeSeen(report, self.ages[name], *self.probes[name])) for name, report in self.reports.items()
        )
        epoch = self.record.epoch if self.record else 0
        return ClusterView(
            self.service, self.capabilities, self.record, nodes, self.lease,
            phase_age_ms=round((self.now_s - self.phase_since_s) * 1000), requests=tuple(self.requests),
            routed_epoch=epoch if self.routers_follow else 0, fresh_identity="beef",
            store=self.incarnation,
        )  # fmt: skip

    def _one_decision(self) -> bool:
        """Whether anything was decided."""
        before = self.record
        decision = decide(self._view(), Now(self.now_s, WALL_S + self.now_s))
        self.out += [f"* {event.reason}" for event in decision.events]
        self.requests = [one for one in self.requests if one.id not in decision.requests_done]
        if decision.lease is not None:
            order = decision.lease
            quiet_ms = 0 if order.owner else self.lease.quiet_ms
            self.lease = LeaseSeen(order.owner, order.epoch, quiet_ms, self.lease.duration_ms)
        self.record = decision.record
        if (
            before is None
            or self.record is None
            or (before.phase, before.epoch) != (self.record.phase, self.record.epoch)
        ):
            self.phase_since_s = self.now_s
        return bool(decision.events) or decision.record != before

    def _alive(self, name: Name) -> bool:
        return not self.asleep[name] and self.reports[name].running is Running.UP

    def _orders(self, name: Name) -> list[do.Action]:
        if self.record is None:
            return []
        mine = self.lease.owner == name
        lease = OwnLease(self.lease.epoch if mine else 0, self.now_s + 3 if mine else 0.0)
        now = Now(self.now_s, WALL_S)
        return list(obey(self.record, self.reports[name], lease, self.promises[name], now, self.service.timers))

    def _everybody_obeys(self) -> bool:
        acted = False
        for name in self.reports:
            if self.asleep[name] or self.record is None:
                continue
            for action in self._orders(name):
                acted = self._carry_out(name, action) or acted
            if self.reports[name].record_serial != self.record.serial:
                company = tuple(sorted(duty.node for duty in self.record.duties))
                self.reports[name] = replace(
                    self.reports[name], record_serial=self.record.serial, company=company, failed_epoch=0
                )
                acted = True
        return acted

    def _carry_out(self, name: Name, action: do.Action) -> bool:
        report = replace(self.reports[name], identity=action.identity, epoch=action.epoch)
        why = self.fails.get(name)
        if why:
            acted = self.reports[name].failed_epoch != action.epoch
            self.reports[name] = replace(report, failed_epoch=action.epoch, failure=why)
            if acted:
                self.out.append(f"  {name}: {said(action)} fails: {why}")
            return acted
        self.out.append(f"  {name}: {said(action)}")
        self.reports[name] = self._done(replace(report, failed_epoch=0, failure=""), action)
        self._stream()
        return True

    def _done(self, report: NodeReport, action: do.Action) -> NodeReport:
        source = getattr(action, "source", None)
        link_ms = 0 if source and self._alive(source) else None
        following = {"running": Running.UP, "streaming_from": source, "link_age_ms": link_ms, "closed_epoch": 0}
        dead = {"running": Running.DEAD, "promoted_epoch": 0, "writable": False, "streaming_from": None, "sync": None}
        if isinstance(action, do.Promote):
            return self._promoted_by(report, action)
        changes = {
            do.Bootstrap: {"empty": False, "position": Position((Branch("1", 0),), 100)},
            do.Start: {"running": Running.UP, "clean_stop": False, "promoted_epoch": 0},
            do.Close: {**dead, "closed_epoch": action.epoch},
            do.StopGracefully: {**dead, "closed_epoch": action.epoch, "clean_stop": True},
            do.Freeze: {"frozen_epoch": action.epoch, "streaming_from": None, "link_age_ms": None},
            do.Follow: following,
            do.Rejoin: following,
            do.Rebuild: {
                **following, "rebuilt": getattr(action, "since", 0), "empty": False, "less_data": False,
                "needs_rebuild": False, "position": self.reports[source].position if source else None,
            },
            do.Open: {"writable": True},
            do.SetSync: {"sync": getattr(action, "sync", None)},
        }  # fmt: skip
        return replace(report, **changes[type(action)])

    def _promoted_by(self, report: NodeReport, action: do.Promote) -> NodeReport:
        at = report.position or Position((Branch("?", 0),), 0)
        way = (*at.branches, Branch(str(action.epoch), at.offset))
        position = at if report.promoted_epoch else Position(way, at.offset + 10)
        return replace(
            report, promoted_epoch=action.epoch, sync=action.sync, position=position, closed_epoch=0, less_data=False,
            clean_stop=False, covered=action.sync.acks == 0, frozen_epoch=max(report.frozen_epoch, action.epoch),
        )  # fmt: skip

    def _stream(self) -> None:
        """Standbys have what their source has, a rejoined one included; a primary knows whether it is covered."""
        for name, report in self.reports.items():
            source = self.reports.get(report.streaming_from) if report.streaming_from else None
            if source and source.position and self._alive(source.node) and not self.asleep[name]:
                self.reports[name] = replace(report, position=source.position, link_age_ms=0)
        for name, report in self.reports.items():
            rule = report.sync
            if report.promoted_epoch and rule and report.position:
                have = [
                    voter
                    for voter in rule.voters
                    if (one := self.reports.get(voter)) and one.position and contains(one.position, report.position)
                ]
                self._report(name, "covered", len(have) >= rule.acks)


def said(action: do.Action) -> str:
    """`follow b`, `promote in epoch 4 (1 of b,c)`."""
    name = type(action).__name__
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in name).strip()
    sync = getattr(action, "sync", None)
    extra = f" {action.source}" if hasattr(action, "source") else ""
    extra += f" ({sync.acks} of {{{','.join(sorted(sync.voters))}}})" if sync else ""
    consent = " with consent" if getattr(action, "consent", False) else ""
    return f"{words}{extra} [epoch {action.epoch}]{consent}"
