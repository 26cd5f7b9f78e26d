"""One simulated cluster: hosts, network, store, engines, agents, clients, a person; and the faults that befall them.

READ FIRST: World.run. RULES: everything random comes from the world's own generator, which the seed starts; so the same
seed gives the same run, byte for byte.
"""

import re
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf
from random import Random

from tests.simulation.agents import Agent, Router, Site
from tests.simulation.changes import Change
from tests.simulation.checkers import Checker
from tests.simulation.clients import Clients
from tests.simulation.draw import Plan, bound_s
from tests.simulation.engine import UNIT, Data, Engine
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host, Process
from tests.simulation.network import Network
from tests.simulation.person import Person
from tests.simulation.plots import Plots
from tests.simulation.scheduler import Clock, Scheduler
from tests.simulation.store import STORE, StoreServer
from tests.simulation.transcript import Transcript

from understudy.control.cluster.beats import content
from understudy.control.cluster.ports import NodeFacts
from understudy.control.keys import cluster_record
from understudy.core.cluster import ClusterService
from understudy.core.codec import decode
from understudy.core.events import Event
from understudy.core.invariants import Bounds
from understudy.core.record import ClusterRecord, Phase, RequestKind
from understudy.core.report import NodeReport, Running
from understudy.core.text import Name
from understudy.store.base import Delete, Put

PATIENCE_S = 100.0
"""How old the last write through a router may be at the end: clients rest, and not every write is routed."""
PROVEN_S = 10.0
"""For how long, and a lease, all must be well before nothing more is waited for."""
POWER_CYCLE_S = 10.0
RESTART_S = 1.0
"""After what time an agent that died is started again, at least."""


class World(Plots):
    """A run in progress."""

    def __init__(self, plan: Plan, *, keep_transcript: bool) -> None:
        super().__init__()
        self.plan = plan
        self.random = Random(f"world {plan.seed}")
        self.scheduler = Scheduler()
        self.transcript = Transcript(keep=keep_transcript)
        self.network = Network(self.scheduler, self.random)
        self.store = StoreServer(self.scheduler, self.random, self.network)
        steady_walls = all(fault.kind != "wall_step" for fault in plan.faults)  # the hold goes by the wall clock
        ahead_s = sum(0.1 * fault.number for fault in plan.faults if fault.kind == "isolate_then_step")
        held_s = max(0.0, 0.9 * plan.service.failback_every_s - ahead_s) if steady_walls else 0.0
        bounds = Bounds(bound_s(plan.service.timers), held_s)
        specs = {spec.version: spec for spec in (plan.service, *(change.service for change in plan.changes))}
        self.checker = Checker(self.scheduler, specs, bounds, self.transcript)
        self.hosts = {name: self._host(name, rate) for name, rate in zip(plan.hosts, plan.rates, strict=True)}
        self.sites: dict[Name, Site] = {}
        self._build_sites()
        self.specs = dict.fromkeys(plan.hosts, plan.service)
        """What each host has heard of the spec last: an agent that is started anew begins with that."""
        self.residents: dict[str, list[Name]] = {
            name: [node.name for node in plan.service.nodes if node.host == name] for name in plan.hosts
        }
        """The nodes that each host's agent has to care for, those that have left included."""
        self.checker.closed = lambda name: self.sites[name].facts.closed_epoch > 0
        self.checker.known_epoch = lambda name: self.sites[name].ever_known
        self.checker.paused = lambda: self.paused
        self.checker.still = self._still
        self.checker.healthy = lambda _name: plan.observers_only
        self.store.committed.append(self._committed)
        self.network.changed.append(self._shake)
        self.routers: dict[str, Router] = {}
        self.agents: dict[str, Agent] = {}
        self._identities = 0
        self._reports: dict[str, bytes | None] = {}
        self._told: dict[Name, bytes] = {}
        """Each node's last report that said anything new."""
        for name in plan.hosts:
            self._start_host(name)
        self.clients = Clients(self)
        self.person = Person(self)
        self._faults: dict[str, Callable[[Host, Fault], None]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        for fault in plan.faults:
            self.scheduler.at(fault.at_s, self._strike, fault)
        for change in plan.changes:
            self.scheduler.at(change.at_s, self._apply, change)
        self.scheduler.at(plan.faulty_s, self._heal)

    def run(self) -> None:
        """From birth to the end: faults, then healing, then the time within which all must be well again."""
        try:
            self.scheduler.run(self.plan.faulty_s)
            self._become_well(self.plan.faulty_s + self.plan.quiet_s)
        except Exception as fault:  # noqa: BLE001  whatever the code under test raises is a finding, with its seed
            where = traceback.extract_tb(fault.__traceback__)[-1]
            self.checker.fail("crash", f"{type(fault).__name__} in {where.name}: {fault}")
        if self.checker.violation is None and self._able:
            self._last_look()
            self._last_loss()

    def _become_well(self, end_s: float) -> None:
        """Until that time, or until nothing can be added to what is known: all has been well for long enough."""
        well_since_s = inf
        long_s = PROVEN_S + self._lease_s
        while self.checker.violation is None and self.scheduler.now_s < end_s:
            self.scheduler.run(min(end_s, self.scheduler.now_s + 1.0))
            well_since_s = min(well_since_s, self.scheduler.now_s) if self._well() else inf
            if self.scheduler.now_s - well_since_s >= long_s and min(self.clients.routed_s.values()) > well_since_s:
                return

    def _well(self) -> bool:
        """Whether there is nothing left to do: no wish, no rule that changes, everybody where he should be."""
        record, spec = self.checker.record, self.plan.final
        if record is None or record.phase is not Phase.STEADY or record.request or record.primary is None:
            return False
        primary = self.sites[record.primary].engine
        wished = spec.node(spec.preferred) if spec.preferred is not None else None
        if wished is not None and wished.priority > 0 and wished.name != primary.name:
            return False  # a failback is still to come, or is being held back
        if len(record.sync) > 1 or len(record.electorates) > 1 or not primary.serves:
            return False
        members = [site.engine for site in self._members()]
        if not all(one is primary or (one.streaming and one.source == primary.name) for one in members):
            return False
        return all(engine in members or engine.running is Running.DEAD for engine in self.checker.engines.values())

    def _last_look(self) -> None:
        primaries = [site.engine for site in self.sites.values() if site.engine.writable and site.engine.answers]
        if len(primaries) != 1:
            self.checker.fail("I9", f"{len(primaries)} nodes take writes at the end")
            return
        self.checker.history(primaries[0])
        members = [site.node.name for site in self._members()]
        for name, site in self.sites.items():
            if name not in members and site.engine.running is not Running.DEAD:
                self.checker.fail("I9", f"{name} has left the spec and still runs at the end")
        routed_s = max(self.clients.routed_s.values())
        if routed_s < self.scheduler.now_s - PATIENCE_S:
            self.checker.fail("I9", f"no write through a router was acknowledged since {routed_s:.1f} s")

    def _last_loss(self) -> None:
        """The primary's machine is lost for good: somebody else must take its place, though nobody swears to it."""
        if not self.plan.last_loss or self.checker.violation is not None or not self._replaceable():
            return
        home, limit_s = self.hosts[str(self.home_of(self.checker.record))], self.scheduler.now_s + self.plan.quiet_s
        self.person.swears = False
        self._strike(Fault(self.scheduler.now_s, self.plan.last_loss, home.name, 10 * self.plan.quiet_s))
        while self.checker.violation is None and self.scheduler.now_s < limit_s:
            self.scheduler.run(self.scheduler.now_s + 1.0)
            if any(site.engine.host is not home and site.engine.serves for site in self.sites.values()):
                return
        self.checker.fail("I9", f"nobody took the place of the primary on {home.name}, which was lost at the end")

    def _replaceable(self) -> bool:
        """Whether all is so well that the loss of the primary must be made good: waits a little for it to be."""
        for _ in range(40):
            record = self.checker.record
            primary = self.sites[record.primary].engine if record is not None and record.primary else None
            if record is not None and primary is not None and record.phase is Phase.STEADY and len(record.sync) == 1:
                others = [site for site in self._members() if site.engine is not primary]
                full = [site for site in others if site.engine.mirrors(primary)]
                if len(full) == len(others) > record.sync[0].acks and any(self._fit(site) for site in full):
                    return True
            self.scheduler.run(self.scheduler.now_s + 0.25)
        return False

    def _fit(self, site: Site) -> bool:
        """Whether it may be promoted, by the spec in the end."""
        node = self.plan.final.node(site.node.name)
        return node is not None and node.priority > 0

    # Building.

    def _host(self, name: str, rate: float) -> Host:
        clock = Clock(
            self.scheduler, rate, -self.random.uniform(10, 10_000), 1_800_000_000 + self.random.uniform(-1, 1)
        )
        return Host(self.scheduler, name, clock, lambda said: self.checker.fail("crash", said))

    def _build_sites(self) -> None:
        engines: dict[Name, Engine] = {}
        for node in self.plan.nodes:
            host = self.hosts[node.host]
            engine = Engine(node.name, host, self.plan.rules, self.network, self.random, self.checker, engines)
            engines[node.name] = engine
            self.sites[node.name] = Site(node, engine)
        self.checker.engines = engines

    def _start_host(self, name: str) -> None:
        host = self.hosts[name]
        if name in self.plan.routers:
            self.routers[name] = Router(host)
        self._start_agent(host)

    def _start_agent(self, host: Host) -> None:
        if host.on and (host.name not in self.agents or not self.agents[host.name].process.alive):
            self.note(host.name, "agent", "starts")
            self.agents[host.name] = Agent(self, host)

    def draw_identity(self) -> str:
        """A new cluster's identity."""
        self._identities += 1
        return f"identity-{self._identities}"

    # Changes of the spec.

    def _apply(self, change: Change) -> None:
        """A person applies a new spec; every host hears of it in its own time."""
        nodes = ",".join(node.name for node in change.service.nodes)
        durability = change.service.durability
        rule = f"zero_loss, acks {durability.acks}" if durability.zero_loss else f"max_loss {durability.max_loss_bytes}"
        self.note("person", "applies", f"version {change.service.version}, {change.kind}: {nodes}, {rule}")
        for host, delay_s in change.delays_s:
            if host in self.hosts:
                self.scheduler.later(delay_s, self._hears, host, change.service)

    def _hears(self, host: str, service: ClusterService) -> None:
        """A host gets a spec, unless it has that one, or a newer one, already."""
        if service.version <= self.specs[host].version:
            return
        self.specs[host] = service
        residents, agent = self.residents[host], self.agents[host]
        residents += [node.name for node in service.nodes if node.host == host and node.name not in residents]
        self.note(host, "spec", f"version {service.version}")
        agent.process.do(agent.change, service)

    def let_go(self, host: str, name: Name) -> None:
        """An agent cares for a node no more."""
        self.note(host, "lets go", name)
        if self.specs[host].node(name) is None:
            self.residents[host].remove(name)

    def _members(self) -> list[Site]:
        """The nodes of the spec as it stands in the end, with their priorities there."""
        return [self.sites[node.name] for node in self.plan.final.nodes]

    # Telling.

    def note(self, who: str, what: str, said: str) -> None:
        """One line of the transcript."""
        self.transcript.add(self.scheduler.now_s, who, what, said)

    def happened(self, host: str, event: Event) -> None:
        """An agent's event was stored."""
        self.note(host, "event", f"{event.kind}: {event.reason}")

    def _committed(self, changes: Sequence[Put | Delete], revision: int) -> None:
        """A transaction took effect: look at what it says."""
        del revision
        cluster = self.plan.service.name
        for change in changes:
            if isinstance(change, Delete):
                continue
            self._see_change(change)
            if change.key == cluster_record(cluster):
                self._record_stored(change)
            elif "/reports/" in change.key:
                self._report_stored(change)

    def _record_stored(self, change: Put) -> None:
        record = decode(ClusterRecord, change.value)
        self.checker.stored(record)
        self._see_record(record)
        if self.transcript.keep:
            duties = " ".join(f"{duty.node}:{duty.kind}" for duty in record.duties)
            rules = " ".join(f"{rule.acks}of{','.join(sorted(rule.voters))}" for rule in record.sync)
            said = (
                f"{record.phase} epoch {record.epoch} serial {record.serial} [{duties}] sync {rules}: {record.reason}"
            )
            self.note("store", "record", said)

    def _report_stored(self, change: Put) -> None:
        """What a report claims to be durable must be on the disk."""
        said = content(change.value)
        if self._reports.get(change.key) == said:
            return
        self._reports[change.key] = said
        name = change.key.rpartition("/")[2]
        site = self.sites[Name(name)]
        self._told[site.node.name] = change.value
        if reign := _number(_PROMOTED, change.value):
            self.checker.told(reign, change.value)
        if self.transcript.keep:
            self.note(name, "report", _brief(decode(NodeReport, change.value)))
        if _number(_FROZEN, change.value) > site.ever_frozen or _number(_CLOSED, change.value) > site.ever_closed:
            self.checker.fail("I5", f"{name} reports a mark that is not on its disk")

    def _shake(self) -> None:
        for site in self.sites.values():
            site.engine.shake()

    # Faults.

    def _strike(self, fault: Fault) -> None:
        host = self._victim(fault)
        if host is not None:
            self.note("FAULT", fault.kind, f"{host.name} for {fault.for_s:.3f} s ({fault.number})")
            self._faults[fault.kind](host, fault)

    def _victim(self, fault: Fault) -> Host | None:
        """Whom it hits; nobody where only observers may be hit and it would be the primary."""
        home = self.home_of(self.checker.record)
        name = home if fault.what == "primary" and home else fault.what
        if self.plan.observers_only and (name == home or fault.what == "primary"):
            others = [one for one in self.plan.hosts if one != home]
            name = others[fault.number % len(others)]
        return self.hosts.get(name) or next(iter(self.hosts.values()))

    def home_of(self, record: ClusterRecord | None) -> str | None:
        """The host of the record's primary, or of the one before; None where there is neither."""
        primary = record.primary or record.previous if record else None
        return self.sites[primary].node.host if primary else None

    def _after(self, fault: Fault, call: Callable[..., None], *args: object) -> None:
        self.scheduler.later(fault.for_s, call, *args)

    def _other(self, host: Host, fault: Fault) -> Host:
        others = [one for one in self.hosts.values() if one is not host] or [host]
        return others[fault.number % len(others)]

    def _site(self, host: Host) -> Site | None:
        return next((site for site in self.sites.values() if site.node.host == host.name), None)

    def _do_host_crash(self, host: Host, fault: Fault) -> None:
        self._crash(host)
        self._after(fault, self._boot, host)

    def _crash(self, host: Host) -> None:
        site = self._site(host)
        host.crash()
        if site:
            site.power_cut()
        self._shake()

    def _boot(self, host: Host) -> None:
        if not host.on:
            host.boot()
            self.note(host.name, "host", "boots")
            self._start_host(host.name)

    def power_cycle(self, name: str) -> None:
        """Turn a machine off, for certain, and on again later."""
        self._crash(self.hosts[name])
        self.scheduler.later(POWER_CYCLE_S, self._boot, self.hosts[name])

    def _do_host_freeze(self, host: Host, fault: Fault) -> None:
        host.freeze()
        self._shake()
        self._after(fault, self._thaw, host)

    def _thaw(self, host: Host) -> None:
        host.thaw()
        self._shake()

    def _do_engine_kill(self, host: Host, fault: Fault) -> None:
        del fault
        site = self._site(host)
        if site:
            site.kill()

    def _do_engine_stop(self, host: Host, fault: Fault) -> None:
        site = self._site(host)
        if site and site.engine.process:
            process = site.engine.process
            process.stop()
            self._shake()
            self._after(fault, self._continue, process)

    def _continue(self, process: Process) -> None:
        process.go_on()  # it is a Process
        self._shake()

    def _do_agent_kill(self, host: Host, fault: Fault) -> None:
        self.agents[host.name].process.kill()
        self._after(fault, self._start_agent, host)

    def _do_agent_doom(self, host: Host, fault: Fault) -> None:
        """The agent dies before one of its next effects, and is started again by whoever watches it."""
        agent = self.agents[host.name]
        agent.process.doom = 1 + fault.number % 40
        self._after(fault, self._see_to_agent, agent, host, fault.for_s)

    def _see_to_agent(self, agent: Agent, host: Host, again_s: float) -> None:
        if agent.process.alive and agent.process.doom is not None:
            agent.process.doom = None
        elif not agent.process.alive:
            self.scheduler.later(min(again_s, RESTART_S), self._start_agent, host)

    def _do_agent_stop(self, host: Host, fault: Fault) -> None:
        process = self.agents[host.name].process
        process.stop()
        self._after(fault, process.go_on)

    def _do_guard_kill(self, host: Host, fault: Fault) -> None:
        """Its warden takes the engine with it."""
        self._do_engine_kill(host, fault)

    def _do_isolate(self, host: Host, fault: Fault) -> None:
        pairs = [(host.name, other) for other in (*self.hosts, STORE) if other != host.name]
        self._cut([*pairs, *((two, one) for one, two in pairs)], fault)

    def _do_cut(self, host: Host, fault: Fault) -> None:
        one, two = host.name, self._other(host, fault).name
        self._cut([(one, two), (two, one)], fault)

    def _do_cut_one_way(self, host: Host, fault: Fault) -> None:
        one, two = host.name, self._other(host, fault).name
        self._cut([(one, two)], fault)

    def _do_cut_store(self, host: Host, fault: Fault) -> None:
        self._cut([(host.name, STORE), (STORE, host.name)], fault)

    def _do_cut_store_one_way(self, host: Host, fault: Fault) -> None:
        self._cut([(host.name, STORE) if fault.number % 2 else (STORE, host.name)], fault)

    def _cut(self, pairs: list[tuple[str, str]], fault: Fault) -> None:
        fresh = [pair for pair in pairs if self.network.reaches(*pair) and pair[0] != pair[1]]
        for one, two in fresh:
            self.network.cut(one, two)
        self._after(fault, self._mend, fresh)

    def _mend(self, pairs: list[tuple[str, str]]) -> None:
        """End a cut; one from before everything was healed has ended then, and what is cut since is another's."""
        for one, two in pairs if self.scheduler.now_s <= self.plan.faulty_s else ():
            self.network.heal(one, two)

    def _do_weather(self, host: Host, fault: Fault) -> None:
        del host
        weather = self.network.weather
        weather.loss = 0.02 * (fault.number % 10)
        weather.twice = 0.03 * (fault.number % 7)
        weather.jitter_s = 0.0005 * (1 + fault.number % 100)
        self._after(fault, self._fine_weather)

    def _fine_weather(self) -> None:
        weather = self.network.weather
        weather.loss, weather.twice, weather.jitter_s = 0.0, 0.0, 0.0006

    def _do_disk_stall(self, host: Host, fault: Fault) -> None:
        host.stall_disk()
        self._after(fault, host.free_disk)

    def _do_store_outage(self, host: Host, fault: Fault) -> None:
        del host
        self._cut([pair for name in self.hosts for pair in ((name, STORE), (STORE, name))], fault)

    def _do_store_majority(self, host: Host, fault: Fault) -> None:
        del host
        self.store.lose_majority()
        self._after(fault, self.store.find_majority)

    def _do_store_slow(self, host: Host, fault: Fault) -> None:
        del host
        self.store.slow_s = 0.0005 * (fault.number + 1)
        self._after(fault, self._fast_store)

    def _fast_store(self) -> None:
        self.store.slow_s = 0.0

    def _do_backup(self, host: Host, fault: Fault) -> None:
        del host, fault
        self.store.back_up()

    def _do_store_restore(self, host: Host, fault: Fault) -> None:
        del host, fault
        self.store.restore(wiped=False)

    def _do_store_wipe(self, host: Host, fault: Fault) -> None:
        del host, fault
        self.store.restore(wiped=True)

    def _do_wall_step(self, host: Host, fault: Fault) -> None:
        host.clock.step_wall((fault.number - 500) * 10.0)

    def _do_disk_shrinks(self, host: Host, fault: Fault) -> None:
        """A power cut after which the disk has less than it said: of what was ever told, or only of what was not yet.

        What nobody was told of, nobody can miss. A write that was eaten so is asked only of whoever could have had it
        from another disk (checkers.Checker._beyond_all; docs/decisions/0010).
        """
        site = self._site(host)
        self._crash(host)
        if site:
            data = site.engine.data
            told = min(data.flushed, self._told_entries(site))
            left = max(0, (data.flushed if fault.number % 2 else told) - 1 - fault.number % 20)
            if left >= told:
                self.checker.eaten.update(data.log[left:])
            data.cut(left)
        self._after(fault, self._boot, host)

    def _told_entries(self, site: Site) -> int:
        """How much of its log the node's last report in the store spoke of."""
        value = self._told.get(site.node.name)
        position = decode(NodeReport, value).position if value is not None else None
        return position.offset // UNIT if position is not None else 0

    def _still(self, name: Name) -> int:
        """For which epoch a node has said that it is frozen or closed."""
        value = self._told.get(name)
        return max(_number(_FROZEN, value), _number(_CLOSED, value)) if value is not None else 0

    def _do_disk_wiped(self, host: Host, fault: Fault) -> None:
        """A new disk: no data, and nothing that the node had to remember."""
        site = self._site(host)
        self._crash(host)
        if site:
            site.engine.data = Data()
            site.facts = NodeFacts()
        self._after(fault, self._boot, host)

    def _do_switchover(self, host: Host, fault: Fault) -> None:
        site = self._site(host)
        self.person.asks(RequestKind.SWITCHOVER, site.node.name if site and fault.number % 2 else None)

    def _do_failover(self, host: Host, fault: Fault) -> None:
        del host, fault
        self.person.asks(RequestKind.FAILOVER, None)

    def _do_pause(self, host: Host, fault: Fault) -> None:
        del host
        self.person.asks(RequestKind.PAUSE, None)
        self._after(fault, self.person.asks, RequestKind.RESUME, None)

    def _do_rebuild(self, host: Host, fault: Fault) -> None:
        del fault
        site = self._site(host)
        if site:
            self.person.asks(RequestKind.REBUILD, site.node.name)

    def _heal(self) -> None:
        """All faults end; from now on everything must become well by itself, or with what a person is told to do."""
        self.note("FAULT", "healed", "all of them")
        self.store.find_majority()
        self.store.slow_s = 0.0
        for host in self.hosts.values():
            self._boot(host)
            host.thaw()
            host.free_disk()
            for process in list(host.processes):
                while process.alive and not process.running:
                    process.go_on()
        self.network.heal_all()
        for host_name in self.hosts:
            self._hears(host_name, self.plan.final)
        for host in self.hosts.values():
            agent = self.agents[host.name]
            agent.process.doom = None
            self._start_agent(host)
        self.person.begins_to_care()
        if self._able:
            self.checker.able_since_s = self.scheduler.now_s

    @property
    def _able(self) -> bool:
        """Whether there is a node with data that may be promoted at all."""
        spec = self.plan.final
        return any(node.priority and self.sites[node.name].engine.data.position is not None for node in spec.nodes)

    @property
    def stored(self) -> ClusterRecord | None:
        """The record that is in the store now, after a restore an old one; the checker goes by the newest ever."""
        item = self.store.memory._items.get(cluster_record(self.plan.service.name))
        return _record(item.value) if item is not None else None

    @property
    def paused(self) -> bool:
        """Whether the stored record says so."""
        record = self.stored
        return record is not None and record.phase is Phase.PAUSED


@lru_cache(maxsize=4)
def _record(value: bytes) -> ClusterRecord:
    return decode(ClusterRecord, value)


_FROZEN = re.compile(rb'"frozen_epoch":([0-9]+)')
_PROMOTED = re.compile(rb'"promoted_epoch":([0-9]+)')
_CLOSED = re.compile(rb'"closed_epoch":([0-9]+)')


def _number(pattern: re.Pattern[bytes], encoded: bytes) -> int:
    """One number of an encoded report, without decoding all of it."""
    found = pattern.search(encoded)
    return int(found[1]) if found else 0


def _brief(report: NodeReport) -> str:
    flags = [
        f"running {report.running}",
        f"at {report.position}" if report.position else "",
        f"promoted {report.promoted_epoch}" if report.promoted_epoch else "",
        "writable" if report.writable else "",
        f"from {report.streaming_from}" if report.streaming_from else "",
        f"frozen {report.frozen_epoch}" if report.frozen_epoch else "",
        f"closed {report.closed_epoch}" if report.closed_epoch else "",
        "less data" if report.less_data else "",
        "needs rebuild" if report.needs_rebuild else "",
        f"failed {report.failed_epoch}: {report.failure}" if report.failed_epoch else "",
        f"probe fails {report.probe_failing_ms} ms" if report.probe_failing_ms else "",
        f"starved {report.starved_ms} ms" if report.starved_ms else "",
    ]
    return ", ".join(flag for flag in flags if flag)
