"""The clock that is moved by hand wakes everybody in order, and the real one moves by itself."""

import asyncio

from understudy.control.clock import Clock, FakeClock, SystemClock


async def test_a_hand_moved_clock_wakes_sleepers_in_order_at_their_moments() -> None:
    """Each sees the moment it asked for; who sleeps again within the step is woken again; nobody wakes early."""
    clock = FakeClock(boot_s=100.0)
    woken: list[tuple[str, float]] = []

    async def tick(name: str, every_s: float, user: Clock) -> None:
        while True:
            await user.sleep(every_s)
            woken.append((name, user.now().boot_s))

    tasks = [asyncio.ensure_future(tick("a", 2.0, clock)), asyncio.ensure_future(tick("b", 3.0, clock))]
    await clock.advance(1.9)
    assert woken == []
    await clock.advance(4.0)
    assert woken == [("a", 102.0), ("b", 103.0), ("a", 104.0)]
    tasks[0].cancel()
    await clock.advance(1.0)
    assert woken[3:] == [("b", 106.0)]
    before = clock.now()
    clock.step_wall(-3600.0)
    assert clock.now().boot_s == before.boot_s
    assert clock.now().wall_s == before.wall_s - 3600.0
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_real_clock_moves_by_itself() -> None:
    """Sleeping takes at least as long as was asked for."""
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.02)
    assert clock.now().boot_s - before.boot_s >= 0.019
