"""Judging a primary: one mute witness is never enough."""

import pytest
from tests.scenarios.stage import Stage

from understudy.core.cluster import Timers
from understudy.core.health import judge
from understudy.core.situation import Judged

CASES = {
    "all is well": ("", Judged.WELL),
    "its own agent says that it is dead": ("crash a", Judged.DEAD),
    "a slow write is no lost primary": ("node a probe_failing_ms=1999", Judged.DOUBTFUL),
    "writes have failed for long": ("node a probe_failing_ms=2000", Judged.LOST),
    "slow, by its agent's word and a standby's": ("node a probe_failing_ms=5999 slow", Judged.DOUBTFUL),
    "slow for too long": ("node a probe_failing_ms=6000 slow", Judged.LOST),
    "slow by its agent's word alone": (
        "node a probe_failing_ms=2000 slow\nnode b link_age_ms=1000\nnode c link_age_ms=-",
        Judged.LOST,
    ),
    "the disk has hung": ("node a disk_failing_ms=2000", Judged.LOST),
    "it starts": ("node a running=starting", Judged.DOUBTFUL),
    "it was started anew": ("node a promoted_epoch=0", Judged.DEAD),
    "it cannot be opened": ("node a writable=no failed_epoch=3 failure=x", Judged.LOST),
    "it waits for standbys that are away": ("node a writable=no covered=no", Judged.WELL),
    "it is about to open": ("node a writable=no", Judged.DOUBTFUL),
    "it came back with less": ("node a less_data", Judged.DEAD),
    "its agent is silent, a standby streams": ("mute a\nnode a age=900 probe=down:9000", Judged.MUTE),
    "its agent is silent, the probe answers": (
        "node a age=900\nnode b link_age_ms=-\nnode c link_age_ms=-",
        Judged.MUTE,
    ),
    "silent, probe failing, links silent": ("lose a\nwait 900", Judged.LOST),
    "not probed for long enough": ("lose a\nnode a age=900 probe=down:399", Judged.DOUBTFUL),
    "a standby that hangs hears nobody": ("lose a\nwait 900\nnode b hangs link_age_ms=0", Judged.LOST),
    "starved, for both standbys hang": ("node a starved_ms=9000\nnode b hangs\nnode c hangs", Judged.WELL),
    "nobody else is heard": ("lose a\nmute b\nmute c\nwait 9000", Judged.DOUBTFUL),
    "a link is young enough": ("lose a\nwait 900\nnode b link_age_ms=999", Judged.MUTE),
    "a link is silent": ("lose a\nwait 900\nnode b link_age_ms=1000", Judged.LOST),
    "starved, but a standby hears it": ("node a starved_ms=9000\nnode b link_age_ms=-", Judged.WELL),
    "starved, nobody hears it": ("node a starved_ms=9000\nnode b link_age_ms=-\nnode c link_age_ms=-", Judged.LOST),
    "starved, too few left to do better": (
        "node a starved_ms=9000\nnode b link_age_ms=-\nlose c\nwait 3000",
        Judged.WELL,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_judgement(case):
    """Each combination of witnesses leads to the judgement that the protocol wants."""
    script, judged = CASES[case]
    stage = Stage()
    stage.perform(f"cluster postgres zero_loss a,b,c\n{script}")
    verdict = judge(stage._view())
    assert verdict.judged is judged, str(verdict)
    assert str(verdict)


def test_impossible_timers_are_named():
    """Renew + 2 x timeout + margin must fit into the lease, and zero is no time at all."""
    assert Timers().faults() == ()
    assert "must not exceed the lease of 3999 ms" in Timers(lease_ms=3999).faults()[0]
    assert Timers(margin_ms=0).faults() == ("every timer must be above zero",)
