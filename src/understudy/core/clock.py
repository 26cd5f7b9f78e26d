"""What a moment is. Reading a clock is control/clock.py's work, never the core's."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Now:
    """One moment, read from two clocks of this host at once.

    boot_s: CLOCK_BOOTTIME in seconds; it never steps and counts suspend, so all timers that safety rests on use it. It
    means nothing on another host or after a reboot.
    wall_s: seconds since the epoch; for people, and for holds that must outlive a reboot (each of them bounded).
    """

    boot_s: float
    wall_s: float
