"""Plots: several ordinary faults, one upon the other, timed as some known incident was.

RULES: a plot does nothing that an ordinary fault could not do, only at a worse moment: it may wait for a record to be
stored, and strike then. Its host is the one of the primary. Everything in it ends by itself, or when all is healed.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.changes import PREPARED_S, Change
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host
from tests.simulation.store import STORE

from understudy.control.keys import cluster_primary, cluster_steward
from understudy.core.codec import decode
from understudy.core.record import ClusterRecord, DutyKind, Phase, RequestKind
from understudy.core.text import Name
from understudy.store.base import Put
from understudy.store.lease import Lease

if TYPE_CHECKING:
    from tests.simulation.agents import Site

Sees = Callable[[ClusterRecord], bool]
SERVED = frozenset({Phase.ROUTING, Phase.REJOINING, Phase.STEADY})
PATIENCE = 6
"""For how many leases a plot waits for its moment."""


class Plots:
    """The plots of a world, which is what `self` is: a part of it in a file of its own."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Sees, Callable[..., None], tuple[Any, ...]]] = []
        """Until when, for which record, what to do then."""
        self._muted_s = -inf
        """When the primary's agent was last silenced for a moment."""
        self._at_renewal: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    # How a plot goes on.

    @property
    def _lease_s(self) -> float:
        return self.plan.service.timers.lease_ms / 1000

    def _in_plot(self, delay_s: float, call: Callable[..., None], *args: object) -> None:
        """The next act, unless everything has been healed by then."""
        self.scheduler.later(delay_s, self._act, call, args)

    def _act(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self.scheduler.now_s < self.plan.faulty_s:
            call(*args)

    def _once(self, sees: Sees, call: Callable[..., None], *args: object) -> None:
        """The next act comes when such a record is stored."""
        self._waiting.append((self.scheduler.now_s + PATIENCE * self._lease_s, sees, call, args))

    def _see_record(self, record: ClusterRecord) -> None:
        now_s, waiting = self.scheduler.now_s, self._waiting
        if waiting:
            self._waiting = [one for one in waiting if now_s < one[0] and not one[1](record)]
            for until_s, sees, call, args in waiting:
                if now_s < until_s and sees(record):
                    self._in_plot(0.0, call, *args)

    def _see_change(self, change: Put) -> None:
        if self._at_renewal and change.key == cluster_primary(self.plan.service.name):
            due, self._at_renewal = self._at_renewal, []
            for call, args in due:
                self._in_plot(0.0, call, *args)

    def _for(self, fault: Fault, for_s: float) -> Fault:
        return replace(fault, for_s=for_s)

    def _others(self, host: Host, fault: Fault) -> list["Site"]:
        """The nodes elsewhere, in an order that the fault says."""
        sites = [site for site in self.sites.values() if site.node.host != host.name]
        first = fault.number % max(1, len(sites))
        return sites[first:] + sites[:first]

    def _cut_link(self, host: Host, standby: "Site", for_s: float, fault: Fault) -> None:
        """Nothing of the primary reaches that standby."""
        self._cut([(host.name, standby.node.host)], self._for(fault, for_s))

    # Writes.

    def _do_burst(self, host: Host, fault: Fault) -> None:
        del host
        self.clients.burst(fault.for_s)

    # The lease, the guard, and promises.

    def _do_isolate_then_step(self, host: Host, fault: Fault) -> None:
        """The primary is cut off; while its lease runs out, the others' wall clocks jump."""
        self._do_isolate(host, self._for(fault, 2 * self._lease_s))
        self.clients.burst(2 * self._lease_s)
        for other in self.hosts.values():
            self._in_plot(0.001 * fault.number * self._lease_s, other.clock.step_wall, 0.1 * fault.number)

    def _do_outage_then_isolate(self, host: Host, fault: Fault) -> None:
        """The primary lives on promises; then the store is back, and the primary is cut off."""
        outage_s = (1.0 + 0.001 * fault.number) * self._lease_s
        self._do_store_outage(host, self._for(fault, outage_s))
        self._in_plot(outage_s, self._do_isolate, host, self._for(fault, 1.5 * self._lease_s))
        self._in_plot(outage_s, self.clients.burst, 1.5 * self._lease_s)

    def _do_promised_then_isolate(self, host: Host, fault: Fault) -> None:
        """The primary alone has lost the store and lives on promises; then it loses everybody.

        Every other time those who promised start anew just then, but for the steward, who knows since when it is quiet.
        """
        alone_s = (1.2 + 0.001 * fault.number) * self._lease_s
        self._do_cut_store(host, self._for(fault, alone_s))
        if fault.number % 2:
            self._in_plot(alone_s, self._restart_promisers, host, fault)
        self._in_plot(alone_s, self._do_isolate, host, self._for(fault, 1.5 * self._lease_s))
        self._in_plot(alone_s, self.clients.burst, 1.5 * self._lease_s)

    def _restart_promisers(self, host: Host, fault: Fault) -> None:
        steward = self._steward_home()
        for other in self.hosts.values():
            if other not in (host, steward):
                self._do_agent_kill(other, self._for(fault, 0.05))

    def _do_late_answer(self, host: Host, fault: Fault) -> None:
        """The agent is stopped just before the answer to a renewal comes; when it goes on, it is cut off."""
        self._at_renewal.append((self._stop_before_answer, (host, fault)))

    def _stop_before_answer(self, host: Host, fault: Fault) -> None:
        stopped_s = (0.35 + 0.00015 * fault.number) * self._lease_s
        self._do_agent_stop(host, self._for(fault, stopped_s))
        self._in_plot(stopped_s - 0.001, self._do_isolate, host, self._for(fault, 2 * self._lease_s))
        self._in_plot(stopped_s, self.clients.burst, 2 * self._lease_s)

    def _do_candidate_cut_off(self, host: Host, fault: Fault) -> None:
        """A failover; the one who is to be promoted is cut off, and its engine dies, as soon as it has the lease."""
        self._once(lambda record: record.phase is Phase.PROMOTING, self._cut_off_candidate, fault)
        self._do_engine_kill(host, fault)

    def _cut_off_candidate(self, fault: Fault) -> None:
        record = self.checker.record
        if record is not None and record.primary is not None:
            home = self.hosts[self.sites[record.primary].node.host]
            soon_s = 0.005 + 0.0001 * fault.number
            self._in_plot(soon_s, self._do_isolate, home, self._for(fault, 3 * self._lease_s))
            self._in_plot(soon_s + 0.02, self._do_engine_kill, home, fault)
            self._in_plot(self._lease_s, self.clients.burst, 2 * self._lease_s)

    def _do_steward_dies(self, host: Host, fault: Fault) -> None:
        """A failover or a switchover, whose steward dies, or stands still for long, when it has come to some phase."""
        phase = (Phase.FENCING, Phase.ELECTING, Phase.PROMOTING, Phase.ROUTING, Phase.HANDING_OVER)[fault.number % 5]
        self._once(lambda record: record.phase is phase, self._lose_steward, fault)
        self._do_store_slow(host, self._for(replace(fault, number=fault.number % 100), self._lease_s))
        if phase is Phase.HANDING_OVER:
            self.person.asks(RequestKind.SWITCHOVER, None)
        else:
            self._do_engine_kill(host, fault)

    def _lose_steward(self, fault: Fault) -> None:
        home = self._steward_home()
        if home is not None:
            (self._do_agent_kill, self._do_agent_stop)[fault.number // 5 % 2](home, self._for(fault, 2 * self._lease_s))

    def _steward_home(self) -> Host | None:
        """Where the steward is, by what the store says; None when it says nothing."""
        entry = self.store.memory._items.get(cluster_steward(self.plan.service.name))
        return self.hosts.get(decode(Lease, entry.value).owner) if entry is not None else None

    # Who has what.

    def _do_lag_then_lose(self, host: Host, fault: Fault) -> None:
        """One standby falls behind under many writes; then the primary is lost and that standby is back.

        Now and then nobody else is heard then, so that all that was acknowledged is where nobody can look.
        """
        short_s = 0.2 + 0.003 * fault.number
        self.clients.burst(short_s + 0.5)
        standby = self._other(host, fault)
        self._cut([(host.name, standby.name)], self._for(fault, short_s))
        lose = self._do_host_crash if fault.number % 3 else self._do_isolate
        self._in_plot(short_s, lose, host, fault)
        for other in self.hosts.values() if fault.number % 4 == 0 else ():
            if other not in (host, standby):
                self._in_plot(short_s, self._do_cut_store, other, self._for(fault, 2 * self._lease_s))

    def _do_voter_shrinks(self, host: Host, fault: Fault) -> None:
        """One standby is late; the only one that had acknowledged comes back with less; and the primary is lost."""
        sites = self._others(host, fault)
        if len(sites) > 1:
            late, voter, *_ = sites
            told_s = 0.8 + self.plan.service.timers.renew_ms / 1000  # a disk cannot be held to what nobody was told of
            self._cut_link(host, late, told_s + 1.0, fault)
            self.clients.burst(0.6, self._site(host))
            self._in_plot(told_s, self._do_disk_shrinks, voter.engine.host, self._for(fault, 0.3))
            self._in_plot(told_s + 0.1, self._do_host_crash, host, self._for(fault, 3 * self._lease_s))

    def _do_late_standby_stays(self, host: Host, fault: Fault) -> None:
        """Who acknowledged leaves the commit rule, a late one stays in it, and the primary is lost just then."""
        sites = self._others(host, fault)
        if len(sites) > 1:
            late, *others = sites
            gone = others[0]
            self._cut_link(host, late, 4 * self._lease_s, fault)
            self._do_cut_store(gone.engine.host, self._for(fault, 4 * self._lease_s))
            self.clients.burst(0.5 * self._lease_s, self._site(host))
            self._once(
                lambda record: bool(record.sync[-1].voters) and gone.node.name not in record.sync[-1].voters,
                self._in_plot,
                0.02 + 0.0003 * fault.number,
                self._do_host_crash,
                host,
                self._for(fault, 3 * self._lease_s),
            )

    def _do_late_wal(self, host: Host, fault: Fault) -> None:
        """A failover is ordered whose primary does not hear of it; one standby gets more between look and freeze."""
        sites = self._others(host, fault)
        if len(sites) > 1:
            slow, *others = sites
            self._do_cut_store(host, self._for(fault, self._lease_s))
            self._once(lambda record: record.phase is Phase.FENCING, self._stall, host, slow, others, fault)
            self._in_plot(0.01, self.person.asks, RequestKind.FAILOVER, None)

    def _stall(self, host: Host, slow: "Site", others: list["Site"], fault: Fault) -> None:
        if fault.number % 3:
            self._do_disk_stall(slow.engine.host, self._for(fault, 0.1 + 0.0001 * fault.number))
        for one in others:
            self._cut_link(host, one, 0.5, fault)
        self._do_store_slow(host, self._for(replace(fault, number=fault.number % 60), 1.0))
        self.clients.burst(0.6, self._site(host))

    def _do_longer_tail(self, host: Host, fault: Fault) -> None:
        """A primary that was cut off with much of its own is back just when the next one is lost."""
        pairs = [(host.name, other) for other in (*self.hosts, STORE) if other != host.name]
        pairs += [(two, one) for one, two in pairs]
        fresh = [pair for pair in pairs if self.network.reaches(*pair)]
        for one, two in fresh:
            self.network.cut(one, two)
        self.scheduler.later(PATIENCE * self._lease_s, self._mend, fresh)
        self.clients.burst(0.5, self._site(host))
        self._once(
            lambda record: record.phase in SERVED and self.home_of(record) != host.name, self._lose_next, fresh, fault
        )

    def _lose_next(self, pairs: list[tuple[str, str]], fault: Fault) -> None:
        record = self.checker.record
        if record is not None and record.primary is not None:
            site = self.sites[record.primary]
            soon_s = 0.3 + 0.0005 * fault.number
            self.clients.burst(0.2, site)
            self._in_plot(soon_s, self._do_host_crash, site.engine.host, self._for(fault, 3 * self._lease_s))
            self._in_plot(soon_s, self._mend, pairs)

    def _do_switchover_to_laggard(self, host: Host, fault: Fault) -> None:
        """A switchover to a standby that has just fallen behind; the primary stops, or dies, before it caught up."""
        for target in self._others(host, fault)[:1]:
            self._cut_link(host, target, 2.0, fault)
            self.clients.burst(0.8, self._site(host))
            self._in_plot(0.5, self.person.asks, RequestKind.SWITCHOVER, target.node.name)
            if fault.number % 2:
                self._in_plot(0.5 + 0.0003 * fault.number, self._do_engine_kill, host, fault)

    # The store's past, pauses, and the way back.

    def _do_restore_behind(self, host: Host, fault: Fault) -> None:
        """A backup of the store is put in place after some failovers; agents start anew meanwhile."""
        self.store.back_up()
        self._do_engine_kill(host, fault)
        behind_s = (3 + 0.002 * fault.number) * self._lease_s
        if fault.number % 3 == 0:
            self._in_plot(0.5 * behind_s, self._kill_primary, fault)
        self._in_plot(behind_s, self._do_store_restore, host, fault)
        if fault.number % 2:
            for other in self.hosts.values():
                self._in_plot(behind_s, self._do_agent_kill, other, self._for(fault, 0.2))
        self._in_plot(behind_s, self.clients.burst, 2.0)

    def _kill_primary(self, fault: Fault) -> None:
        record = self.checker.record
        if record is not None and record.primary is not None:
            self._do_engine_kill(self.sites[record.primary].engine.host, fault)

    def _do_pause_with_work(self, host: Host, fault: Fault) -> None:
        """A pause in which a standby dies: there would be something to do."""
        self._once(lambda record: record.phase is Phase.PAUSED, self._work_in_pause, host, fault)
        self.person.asks(RequestKind.PAUSE, None)
        self._in_plot(3 * self._lease_s, self.person.asks, RequestKind.RESUME, None)

    def _work_in_pause(self, host: Host, fault: Fault) -> None:
        for standby in self._others(host, fault)[:1]:
            self._in_plot(0.001 * fault.number, self._do_engine_kill, standby.engine.host, fault)

    def _do_preferred_dies(self, host: Host, fault: Fault) -> None:
        """The primary's engine dies, if it is the preferred one: soon all is well, and it would like to be back."""
        preferred = self.plan.service.preferred
        if preferred is not None and self.sites[preferred].node.host == host.name:
            self._do_engine_kill(host, fault)

    def _do_mute(self, host: Host, fault: Fault) -> None:
        """The primary's agent is silent for a moment: killed, stopped or cut off from the store. Its engine is well.

        Not again before it has renewed its lease: moments without end are a dead agent, whose guard does its work. And
        cut off no longer than from one question to the next, of which the timers let it lose one but not two.
        """
        del host
        record = self.checker.record
        home = self.home_of(record) if record is not None else None
        if home is not None and self.scheduler.now_s > self._muted_s + 2 * self._lease_s:
            self._muted_s = self.scheduler.now_s
            timers = self.plan.service.timers
            cut_s = 0.95 * max(timers.renew_ms, timers.timeout_ms) / 1000
            silence, for_s = (
                (self._do_agent_kill, 0.3 * self._lease_s),
                (self._do_agent_stop, 0.3 * self._lease_s),
                (self._do_cut_store, cut_s),
            )[fault.number % 3]
            silence(self.hosts[home], self._for(fault, for_s))

    # A new spec at a bad moment. The change that belongs to a plot was drawn with it (changes.py).

    def _change_of(self, fault: Fault) -> Change | None:
        soon_s = fault.at_s + PREPARED_S
        return next((change for change in self.plan.changes if fault.at_s < change.at_s <= soon_s), None)

    def _do_loosened(self, host: Host, fault: Fault) -> None:
        """Loss is allowed, and the primary is lost; who has what was acknowledged before is away, a late one is not.

        Every other time before the primary has given up the rule that asks somebody, or when nobody is asked any more.
        """
        change, sites = self._change_of(fault), self._others(host, fault)
        if change is not None and len(sites) > 1:
            late, *others = sites
            version, rules = change.service.version, 1 + fault.number % 2
            self._cut_link(host, late, 5 * self._lease_s, fault)
            self.clients.burst(PREPARED_S, self._site(host))
            self._once(
                lambda record: record.spec >= version and len(record.sync) == rules and not record.sync[-1].acks,
                self._lose_best,
                host,
                others,
                fault,
            )

    def _lose_best(self, host: Host, others: list["Site"], fault: Fault) -> None:
        for one in others:
            lose = self._do_isolate if fault.number // 2 % 2 else self._do_host_crash
            lose(one.engine.host, self._for(fault, 4 * self._lease_s))
        self._do_engine_kill(host, fault)

    def _do_older_steward(self, host: Host, fault: Fault) -> None:
        """Less may be lost from now on, which only the steward has heard; then it is gone, and so is the primary.

        Who is left has an older spec, and what the primary had is not within the bound of the newer one.
        """
        change, steward = self._change_of(fault), self._steward_home()
        if change is not None and steward is not None:
            for late in self._others(host, fault):
                if late.engine.host is not steward:
                    self._cut_link(host, late, 5 * self._lease_s, fault)
            self.clients.burst(PREPARED_S + 0.5, self._site(host))
            self._in_plot(PREPARED_S, self._hears, steward.name, change.service)
            self._once(
                lambda record: record.spec >= change.service.version,
                self._in_plot,
                0.001 * (fault.number % 500),
                self._lose_informed,
                steward,
                host,
                fault,
            )

    def _lose_informed(self, steward: Host, host: Host, fault: Fault) -> None:
        self._do_agent_kill(steward, self._for(fault, 3 * self._lease_s))
        self._do_engine_kill(host, fault)

    def _do_leaver_counts(self, host: Host, fault: Fault) -> None:
        """A node leaves that alone has what was acknowledged last; at some step of that the primary is lost."""
        change, sites = self._change_of(fault), self._others(host, fault)
        if change is None or not sites:
            return
        spec = change.service
        leavers = [site for site in sites if spec.node(site.node.name) is None] or sites[:1]
        for late in sites:
            if late not in leavers:
                self._cut_link(host, late, (1 + fault.number % 3) * self._lease_s, fault)
        self.clients.burst(PREPARED_S + 1.0, self._site(host))
        names = {site.node.name for site in leavers}
        self._once(
            lambda record: record.spec >= spec.version and _step_of_leaving(record, names) >= fault.number % 4,
            self._in_plot,
            0.0005 * fault.number,
            (self._do_engine_kill, self._do_host_crash, self._do_isolate)[fault.number // 4 % 3],
            host,
            self._for(fault, 3 * self._lease_s),
        )


def _step_of_leaving(record: ClusterRecord, names: set[Name]) -> int:
    """How far the record is on the way to let these nodes go."""
    counting = [name for rule in record.sync for name in rule.voters if name in names]
    duties = [duty for name in names if (duty := record.duty(name)) is not None]
    if not duties:
        return 3
    if not counting and all(duty.kind is DutyKind.ABSENT for duty in duties):
        return 2
    return 1 if len(record.sync) > 1 else 0
