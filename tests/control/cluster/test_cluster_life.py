"""The life of a cluster under the real loop: born, failed over, switched over, rejoined, paused, cut off from the store."""

import asyncio

from tests.control.cluster.stage import JumpingLoop, Stage


def play(scene, *args, **words) -> None:
    """Run a scene in jumping time."""
    loop = JumpingLoop()

    async def run() -> None:
        stage = Stage(*args, **words)
        try:
            await scene(stage)
        finally:
            stage.end()
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def test_born() -> None:
    """Three empty nodes become one primary and two standbys."""

    async def scene(stage: Stage) -> None:
        stage.start()
        print(await stage.steady())
        await stage.until(lambda: len([w for _, w in stage.acked]) > 20)
        print(stage.record())

    play(scene)
