"""A process whose files may not grow beyond a limit: the store fails in one sentence, and works when there is room."""

import asyncio
import resource
import sys
from pathlib import Path

from understudy.store.base import Put, StoreFault
from understudy.store.sqlite import SqliteStore


async def main(path: Path) -> None:
    """Fill, fail, make room, go on; tell what was said, committed and listed, and whether it went on."""
    store = await SqliteStore.open(path)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
    said, committed = "", -1
    try:
        for number in range(1000):
            await store.transact((), [Put(f"n/{number:04}", bytes(20_000))])
            committed = number
    except StoreFault as fault:
        said = str(fault)
    listed = len((await store.list("n/")).items)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    went_on = (await store.transact((), [Put("after", b"1")])).committed
    await store.close()
    sys.stdout.write(f"{said}\n{committed}\n{listed}\n{went_on}\n")


asyncio.run(main(Path(sys.argv[1])))
