"""What an agent does with its node: safe for every record, report, lease and promise there can be."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from understudy.core import actions as do
from understudy.core.clock import Now
from understudy.core.cluster import Timers
from understudy.core.clusters import obey
from understudy.core.lineage import Branch, Position
from understudy.core.record import ClusterRecord, Duty, DutyKind, Ground, Phase, SyncConfig
from understudy.core.report import NodeReport, OwnLease, Promise, Running
from understudy.core.text import Name

A, B = Name("a"), Name("b")
RULE = SyncConfig(frozenset({B}), 1, 5)
NOW = Now(boot_s=100.0, wall_s=0.0)
HERE = Position((Branch("1", 0),), 100)
PROMOTED = Position((Branch("1", 0), Branch("2", 100)), 120)
TWICE = Position((Branch("1", 0), Branch("2", 100), Branch("3", 120)), 130)
epochs, flags = st.integers(3, 5), st.booleans()

records = st.builds(
    lambda kind, phase, ground, consent, accept, held, epoch, serial: ClusterRecord(
        Name("orders"), "cafe", epoch, serial, phase, A, None, (Duty(A, kind, B, 8, consent),), (RULE,),
        (frozenset({A, B}),), ground=ground, accept_loss=accept, start=HERE, held=held,
    ),
    st.sampled_from(DutyKind), st.sampled_from(Phase), st.sampled_from([None, *Ground]), flags, flags, flags, epochs,
    st.integers(7, 9),
)  # fmt: skip
reports = st.builds(
    NodeReport,
    node=st.just(A),
    counter=st.just(1),
    identity=st.sampled_from([None, "cafe", "cafe", "cafe", "dead"]),
    epoch=epochs,
    running=st.sampled_from(Running),
    position=st.sampled_from([None, HERE, PROMOTED, TWICE]),
    record_serial=st.integers(7, 9),
    promoted_epoch=st.sampled_from([0, 3, 4, 5]),
    writable=flags,
    empty=flags,
    covered=flags,
    streaming_from=st.sampled_from([None, B]),
    frozen_epoch=epochs,
    closed_epoch=st.sampled_from([0, 3, 4, 5]),
    sync=st.sampled_from([None, RULE]),
    less_data=flags,
    needs_rebuild=flags,
    rebuilt=st.sampled_from([0, 8]),
)
leases = st.builds(OwnLease, epochs, st.sampled_from([90.0, 110.0]), st.booleans())
promises = st.builds(Promise, epochs, st.sampled_from([90.0, 110.0]))
cases = st.tuples(records, reports, leases, promises)


def orders(case):
    """What is to be done in this case."""
    record, report, lease, promise = case
    return obey(record, report, lease, promise, NOW, Timers())


@given(cases)
def test_only_one_step_and_under_the_records_epoch(case):
    """At most one action at a time, carrying the record's own epoch and identity."""
    actions = orders(case)
    assert len(actions) <= 1
    assert all((one.epoch, one.identity, one.node) == (case[0].epoch, "cafe", A) for one in actions)


@given(cases)
def test_records_that_do_not_bind_are_not_obeyed(case):
    """A lower epoch, an older serial, another cluster's record, a paused cluster: nothing is done."""
    record, report, _, _ = case
    older = (record.epoch, record.serial) < (report.epoch, report.record_serial) and record.epoch <= report.epoch
    consent = record.duties[0].kind is DutyKind.REBUILD and record.duties[0].consent
    stranger = report.identity not in (None, "cafe") and not consent
    if older or stranger or record.phase is Phase.PAUSED:
        assert orders(case) == ()


@given(cases)
def test_nobody_is_promoted_without_lease_and_duty(case):
    """Promote: only in `promoting`, by duty, with this epoch's lease armed, no promise to a lower one outstanding.

    Who is promoted already under this epoch may be told again: it takes away the marks of before.
    """
    record, report, lease, promise = case
    for one in orders(case):
        if isinstance(one, do.Promote) and report.promoted_epoch != record.epoch:
            assert record.phase is Phase.PROMOTING
            assert record.duties[0].kind is DutyKind.PRIMARY
            assert (lease.epoch, lease.deadline_s) == (record.epoch, 110.0)
            assert lease.ripe or record.ground is Ground.FIRST
            assert promise.epoch == record.epoch or promise.until_s <= NOW.boot_s
            assert not report.empty
            assert not report.less_data or record.accept_loss


@given(cases)
def test_clients_come_in_only_when_covered_under_lease_and_rule(case):
    """Open: only a primary of this epoch, its rule in force, its history with enough voters, its lease armed."""
    record, report, lease, _ = case
    for one in orders(case):
        if isinstance(one, do.Open):
            assert record.duties[0].kind is DutyKind.PRIMARY
            assert report.promoted_epoch == record.epoch
            assert report.covered or (record.held and one.held and report.position == PROMOTED)
            assert report.sync == record.sync[-1]
            assert lease.epoch == record.epoch
            assert not report.closed_epoch


@given(cases)
def test_an_unfrozen_promise_is_kept(case):
    """Freeze waits for an outstanding promise to a lower epoch."""
    record, _, _, promise = case
    if any(isinstance(one, do.Freeze) for one in orders(case)):
        assert promise.epoch >= record.epoch or promise.until_s <= NOW.boot_s


@given(cases)
def test_who_may_write_without_the_duty_is_closed_first(case):
    """Under any duty but to lead or to hand over, an engine that may take writes is closed before anything else."""
    record, report, _, _ = case
    leads = record.duties[0].kind in (DutyKind.PRIMARY, DutyKind.HANDING_OVER)
    may_write = report.running is not Running.DEAD and (report.writable or report.promoted_epoch > 0)
    actions = orders(case)
    if may_write and not leads and actions:
        assert isinstance(actions[0], do.Close)


@given(cases)
def test_first_data_are_made_only_for_a_cluster_that_is_born(case):
    """Bootstrap: only on an empty disk, while the very first data are made; and nobody is let in under that record."""
    making = case[0].ground is Ground.FIRST and case[0].phase is Phase.PROMOTING
    for one in orders(case):
        if isinstance(one, do.Bootstrap):
            assert case[1].empty
            assert making
        if isinstance(one, do.Open):
            assert not making


def test_who_is_known_to_be_held_opens_at_once():
    """Clients do not wait until a voter streams that stood where the primary was promoted; they do after a crash."""
    lease, promise = OwnLease(4, 110.0, ripe=True), Promise()
    duties = (Duty(A, DutyKind.PRIMARY),)
    record = ClusterRecord(
        Name("orders"),
        "cafe",
        4,
        9,
        Phase.PROMOTING,
        A,
        B,
        duties,
        (RULE,),
        (frozenset({A, B}),),
        start=HERE,
        held=True,
    )
    report = NodeReport(
        A, 1, "cafe", 4, Running.UP, PROMOTED, record_serial=9, promoted_epoch=4, sync=RULE, covered=False
    )
    opens = do.Open(A, "cafe", 4, Timers().handover_ms, held=True)
    assert obey(record, report, lease, promise, NOW, Timers()) == (opens,)
    assert obey(replace(record, held=False), report, lease, promise, NOW, Timers()) == ()
    assert obey(record, replace(report, position=TWICE), lease, promise, NOW, Timers()) == ()


def test_an_engine_that_dies_later_stays_dead():
    """Outside `promoting` a dead primary is not started again: the steward fences and elects first."""
    dead = NodeReport(A, 1, "cafe", 4, Running.DEAD, HERE, record_serial=9)
    lease = OwnLease(4, 110.0)
    steady = ClusterRecord(
        Name("orders"), "cafe", 4, 9, Phase.STEADY, A, None, (Duty(A, DutyKind.PRIMARY),), (RULE,), (frozenset({A}),)
    )
    assert obey(steady, dead, lease, Promise(), NOW, Timers()) == ()
    promoting = replace(steady, phase=Phase.PROMOTING)
    assert [type(one) for one in obey(promoting, dead, lease, Promise(), NOW, Timers())] == [do.Start]


def test_a_node_that_is_not_in_the_record_is_closed():
    """Whoever has no duty has no business running."""
    up = NodeReport(B, 1, "cafe", 4, Running.UP, HERE)
    record = ClusterRecord(Name("orders"), "cafe", 4, 9, Phase.STEADY, A, None, (), (RULE,), (frozenset({A}),))
    assert [type(one) for one in obey(record, up, OwnLease(), Promise(), NOW, Timers())] == [do.Close]
