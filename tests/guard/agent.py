"""A stand-in for an agent: spawns a guard, starts an engine under it and renews, or does one thing and ends.

Run as `python agent.py ORDERS` with ORDERS in JSON; says on stdout, in JSON lines, what came of it.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from understudy.core.errors import Refused
from understudy.guard.client import Guard


def boot_s():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(**words):
    print(json.dumps(words), flush=True)  # noqa: T201  that is how it speaks


async def lead(directory, *, lease_s, margin_s, renew_s, epoch, engine=None, disk=None):
    """Renew for as long as we live; with `disk`, write to it before each renewal, and hang when it hangs."""
    if engine is None:
        guard = await Guard.attach(Path(directory))
    else:
        guard = await Guard.spawn(Path(directory))
        log = Path(directory, "engine.log")
        await guard.start(engine, env=dict(os.environ), cwd=Path("/"), log=log, user=None, epoch=epoch)
    file = os.open(disk, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if disk else None
    first = True
    while True:
        if file is not None:
            os.write(file, b"x" * 4096)
        sent_s = boot_s()
        status = await guard.renew(sent_s + lease_s, margin_s=margin_s, epoch=epoch)
        if first:
            say(status=asdict(status))
            first = False
        await asyncio.sleep(renew_s)


async def ask(directory):
    guard = await Guard.attach(Path(directory))
    say(status=asdict(await guard.ask()))
    await guard.close()


async def finish(directory):
    """Kill what is there and end the guard."""
    guard = await Guard.attach(Path(directory))
    status = await guard.kill(epoch=guard.status.epoch)
    await guard.end()
    say(status=asdict(status))


async def replace(directory):
    """A new guard where there is none, which ends at once."""
    guard = await Guard.spawn(Path(directory))
    status = guard.status
    await guard.end()
    say(status=asdict(status))


async def main():
    orders = json.loads(sys.argv[1])
    verb = {"lead": lead, "ask": ask, "finish": finish, "replace": replace}[orders.pop("verb")]
    try:
        await verb(**orders)
    except Refused as refused:
        say(refused=str(refused))
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
