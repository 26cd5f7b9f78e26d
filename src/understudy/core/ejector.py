"""The ejector: holds out endpoints that misbehave in a way the checks do not catch, or that flap. Pure.

An endpoint misbehaves when
- it serves, its errors are at least `errors` and half of its answers, counted from its first error on and at most
  `window_ms` back, and they have gone on for longer than the checks need to find it dead. A mark-down begins the count
  anew, since then the checks did catch it; or when
- it was marked down FLAPS times within FLAP_WINDOWS windows, as happens to one that answers 500 behind a passing check.

It is then held out (in maintenance) for `hold_ms`, doubled with each further hold up to `hold_max_ms`; how often it was
held is halved after each stretch of good behaviour. Bounds, each of them holding for each group:
- at most `budget_percent` of the endpoints are held at once, but one may always be where two or more are;
- the last usable endpoint is never held;
- when FAIL_OPEN_PERCENT or more look bad the fault is most likely not theirs: none is held, until fewer than half do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from understudy.core.clock import Now
from understudy.core.events import Event, EventKind
from understudy.core.model import EjectionPolicy, Group, PoolService
from understudy.core.pool_health import SERVING, automatic, usable
from understudy.core.pool_state import Admin, EndpointSeen, Hold, Mark, Oper, PoolRecord, PoolView, Trouble
from understudy.core.text import Name
from understudy.core.words import span

FLAPS = 3
FLAP_WINDOWS = 6
FAIL_OPEN_PERCENT = 75
MARKS = 20
"""Into how many parts a window is resolved."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """What the ejector decided: the next record, what it remembers, and what it did."""

    record: PoolRecord
    troubles: tuple[Trouble, ...]
    open_groups: tuple[Group, ...]
    events: tuple[Event, ...]


def hold_length_s(policy: EjectionPolicy, count: int) -> float:
    """How long the hold is for the `count`-th time, in seconds."""
    return min(policy.hold_ms << min(count - 1, 32), policy.hold_max_ms) / 1000


def budget(policy: EjectionPolicy, endpoints: int) -> int:
    """How many of a group of that many endpoints may be held at once."""
    return max(endpoints * policy.budget_percent // 100, 1) if endpoints > 1 else 0


def eject(view: PoolView, now: Now) -> Ejection:
    """Who is let back in, who is held out, and who is spared although it misbehaves."""
    record, events = _run_out(view.service, view.record, now)
    if not view.service.health.passive:
        return Ejection(record, (), (), tuple(events))
    troubles = {trouble.endpoint: trouble for trouble in _remember(view, now)}
    open_groups = []
    for group in Group:
        judge = _Judge(view, record, troubles, group, now)
        if judge.fails_open():
            open_groups.append(group)
            judge.let_in()
        else:
            judge.hold_out()
        record, troubles = judge.record, judge.troubles
        events += judge.events
    return Ejection(record, tuple(troubles.values()), tuple(open_groups), tuple(events))


def _run_out(service: PoolService, record: PoolRecord, now: Now) -> tuple[PoolRecord, list[Event]]:
    """End the holds that are over, bound those that a clock step made longer, forget those that were long ago."""
    if not record.holds and not record.past_holds:
        return record, []
    policy, events = service.ejection, []
    holds, past = [], []
    for hold in record.past_holds:
        began_s = min(hold.until_wall_s, now.wall_s)
        good = now.wall_s - began_s >= _good_behaviour_s(service, hold.count)
        kept = replace(
            hold, until_wall_s=now.wall_s if good else began_s, count=hold.count // 2 if good else hold.count
        )
        past += [kept] if kept.count else []
    for hold in record.holds:
        length_s = hold_length_s(policy, hold.count)
        until_s = min(hold.until_wall_s, now.wall_s + length_s)
        if until_s > now.wall_s:
            holds.append(replace(hold, until_wall_s=until_s))
            continue
        past.append(replace(hold, until_wall_s=now.wall_s))
        why = f"may come back, its hold of {span(length_s)} being over; it serves when its checks pass, with slow start"
        data = (("hold_s", length_s), ("count", hold.count))
        events.append(_event(EventKind.ENDPOINT_RETURNED, service, hold.endpoint, why, data))
    return replace(record, holds=tuple(holds), past_holds=tuple(past)), events


def _good_behaviour_s(service: PoolService, count: int) -> float:
    """How long an endpoint has to behave well until its holds are counted for half."""
    return hold_length_s(service.ejection, count) + (service.health.slow_start_ms + service.ejection.window_ms) / 1000


def _remember(view: PoolView, now: Now) -> Iterable[Trouble]:
    """What the errors and mark-downs since the last look add to what is remembered."""
    if view.previous is None:
        return
    before = {one.endpoint: one for one in view.previous.endpoints}
    known = {trouble.endpoint: trouble for trouble in view.memory.troubles}
    for one in view.seen.endpoints:
        earlier = before.get(one.endpoint)
        if earlier and one.endpoint not in known and _unchanged(earlier, one):
            continue
        if earlier and one.oper in (*SERVING, Oper.DOWN) and earlier.oper in (*SERVING, Oper.DOWN):
            trouble = _after(known.get(one.endpoint, Trouble(one.endpoint)), earlier, one, view.service.ejection, now)
            if trouble.since_boot_s is not None or trouble.downs_boot_s:
                yield trouble


def _unchanged(before: EndpointSeen, seen: EndpointSeen) -> bool:
    return (before.oper, before.counters.errors, before.counters.downs) == (
        seen.oper,
        seen.counters.errors,
        seen.counters.downs,
    )


def _after(trouble: Trouble, before: EndpointSeen, seen: EndpointSeen, policy: EjectionPolicy, now: Now) -> Trouble:
    """What is remembered of one endpoint after a look."""
    window_s = policy.window_ms / 1000
    fallen = before.oper in SERVING and seen.oper is Oper.DOWN
    downs = max(seen.counters.downs - before.counters.downs, int(fallen))
    downs_boot_s = (*trouble.downs_boot_s, *[now.boot_s] * min(downs, FLAPS))
    trouble = replace(
        trouble, downs_boot_s=tuple(at for at in downs_boot_s if now.boot_s - at < FLAP_WINDOWS * window_s)[-FLAPS:]
    )
    counted_anew = seen.counters.errors < before.counters.errors or seen.counters.requests < before.counters.requests
    if downs or seen.oper is Oper.DOWN or counted_anew:
        return replace(trouble, since_boot_s=None, marks=())
    marks = trouble.marks
    if not marks:
        if seen.counters.errors == before.counters.errors:
            return trouble
        marks = (Mark(now.boot_s, before.counters.requests, before.counters.errors),)
        trouble = replace(trouble, since_boot_s=now.boot_s)
    elif now.boot_s - marks[-1].boot_s >= window_s / MARKS:
        marks = (*marks, Mark(now.boot_s, seen.counters.requests, seen.counters.errors))
    while len(marks) > 1 and now.boot_s - marks[1].boot_s >= window_s:
        marks = marks[1:]
    if now.boot_s - marks[0].boot_s >= window_s and marks[0].errors == seen.counters.errors:
        return replace(trouble, since_boot_s=None, marks=())
    return replace(trouble, marks=marks)


def _misbehaviour(view: PoolView, seen: EndpointSeen, trouble: Trouble | None, now: Now) -> str | None:
    """What an endpoint does wrong, as the end of a sentence that begins with its name; None when nothing."""
    if trouble is None:
        return None
    policy, health = view.service.ejection, view.service.health
    if len(trouble.downs_boot_s) >= FLAPS:
        return f"was marked down {FLAPS} times within {span(FLAP_WINDOWS * policy.window_ms / 1000)}"
    if trouble.since_boot_s is None or seen.oper not in SERVING:
        return None
    caught_ms = min(health.fall * health.interval_ms + health.timeout_ms, policy.window_ms)
    errors, answers = _errors(seen, trouble)
    if errors < policy.errors or 2 * errors < answers or (now.boot_s - trouble.since_boot_s) * 1000 < caught_ms:
        return None
    length = span(now.boot_s - trouble.marks[0].boot_s)
    return f"failed {errors} of {answers} requests within {length} while its checks passed"


def _errors(seen: EndpointSeen, trouble: Trouble | None) -> tuple[int, int]:
    """Its errors, and its answers with them, since the beginning of what is remembered."""
    if trouble is None or not trouble.marks:
        return 0, 0
    errors = seen.counters.errors - trouble.marks[0].errors
    return errors, max(seen.counters.requests - trouble.marks[0].requests, errors)


class _Judge:
    """One group's share of a decision, in the making."""

    def __init__(
        self, view: PoolView, record: PoolRecord, troubles: dict[Name, Trouble], group: Group, now: Now
    ) -> None:
        self.record, self.troubles, self.events = record, dict(troubles), list[Event]()
        self._view, self._service, self._group, self._now = view, view.service, group, now
        self._names = {endpoint.name for endpoint in view.service.group(group)}
        ordered_out = {name for name, admin in record.admin if admin is not Admin.READY}
        self._members = [
            one
            for one in view.seen.endpoints
            if one.endpoint in self._names and one.endpoint not in ordered_out
            and one.oper not in (Oper.UNKNOWN, Oper.DRAIN)
        ]  # fmt: skip
        self._bad: dict[Name, str] = {}
        for one in self._members:
            wrong = _misbehaviour(view, one, self.troubles.get(one.endpoint), now)
            if wrong and one.endpoint not in self._held():
                self._bad[one.endpoint] = wrong

    def fails_open(self) -> bool:
        """Whether so many look bad, in any way, that holding more of them out does more harm than good."""
        if not self._members:
            return False
        if not self._usable():
            return True
        whole, looks_bad = len(self._members), self._looks_bad()
        if self._group in self._view.memory.open_groups:
            return 2 * looks_bad > whole
        return whole > 1 and 100 * looks_bad >= FAIL_OPEN_PERCENT * whole

    def let_in(self) -> None:
        """Fail open: end the holds, and spare who misbehaves."""
        whole = len(self._members)
        why = (
            f"{self._looks_bad()} of {whole} endpoints of its group look bad"
            if whole > 1
            else "it is the only one left"
        )
        backed = self._group is Group.PRIMARY and automatic(self._service) and not self._usable()
        if not (backed and usable(self._view.seen, self.record, Group.BACKUP)):
            for hold in self._holds():
                self._end(hold)
                text = f"is let back in before its hold is over: {why}"
                self._tell(EventKind.ENDPOINT_SPARED, hold.endpoint, text, (("count", hold.count),))
        for name, wrong in self._bad.items():
            self._spare(name, f"{wrong} and is not held out: {why}")

    def hold_out(self) -> None:
        """Hold out who misbehaves, the worst first, as far as the bounds allow."""
        allowed = budget(self._service.ejection, len(self._names))
        for hold in self._holds()[allowed:]:
            self._end(hold)
            text = f"is back before its hold is over: no more than {allowed} of its group may be held out now"
            self._tell(EventKind.ENDPOINT_RETURNED, hold.endpoint, text, (("count", hold.count),))
        by_name = {one.endpoint: one for one in self._members}
        for name in sorted(self._bad, key=lambda name: -_errors(by_name[name], self.troubles.get(name))[0]):
            wrong = self._bad[name]
            if not [one for one in self._usable() if one.endpoint != name]:
                self._spare(name, f"{wrong} and is not held out: it is the last usable endpoint of its group")
            elif len(self._holds()) >= allowed:
                share = f"{self._service.ejection.budget_percent} % of its group"
                self._spare(name, f"{wrong} and is not held out: the budget of {share} is used up")
            else:
                self._hold(name, wrong)

    def _held(self) -> set[Name]:
        return {hold.endpoint for hold in self.record.holds}

    def _holds(self) -> list[Hold]:
        return sorted(
            (hold for hold in self.record.holds if hold.endpoint in self._names), key=lambda hold: -hold.until_wall_s
        )

    def _usable(self) -> tuple[EndpointSeen, ...]:
        return usable(self._view.seen, self.record, self._group)

    def _looks_bad(self) -> int:
        held = self._held()
        return sum(
            one.endpoint in held or one.endpoint in self._bad or one.oper not in SERVING for one in self._members
        )

    def _hold(self, name: Name, wrong: str) -> None:
        times = 1 + next((hold.count for hold in self.record.past_holds if hold.endpoint == name), 0)
        length_s = hold_length_s(self._service.ejection, times)
        hold = Hold(name, self._now.wall_s + length_s, times, wrong)
        self.record = replace(
            self.record,
            holds=(*self.record.holds, hold),
            past_holds=tuple(past for past in self.record.past_holds if past.endpoint != name),
        )
        self.troubles.pop(name, None)
        again = f", for the {_ordinal(times)} time" if times > 1 else ""
        text = f"{wrong} and is held out for {span(length_s)}{again}"
        self._tell(EventKind.ENDPOINT_EJECTED, name, text, (("count", times), ("hold_s", length_s)))

    def _end(self, hold: Hold) -> None:
        self.record = replace(
            self.record,
            holds=tuple(each for each in self.record.holds if each.endpoint != hold.endpoint),
            past_holds=(*self.record.past_holds, replace(hold, until_wall_s=self._now.wall_s)),
        )

    def _spare(self, name: Name, text: str) -> None:
        trouble = self.troubles.get(name, Trouble(name))
        if not trouble.spared:
            self.troubles[name] = replace(trouble, spared=True)
            self._tell(EventKind.ENDPOINT_SPARED, name, text, ())

    def _tell(self, kind: EventKind, name: Name, text: str, data: tuple[tuple[str, int | float], ...]) -> None:
        self.events.append(_event(kind, self._service, name, text, data))


def _event(
    kind: EventKind, service: PoolService, endpoint: Name, text: str, data: tuple[tuple[str, int | float], ...]
) -> Event:
    return Event(kind, f"{endpoint} of {service.name} {text}.", service.name, endpoint, data)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
