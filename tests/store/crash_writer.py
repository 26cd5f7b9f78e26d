"""A process to be killed: writes pairs of keys and says on its standard output, after each commit, how far it got."""

import asyncio
import sys
from pathlib import Path

from understudy.store.base import Put
from understudy.store.sqlite import SqliteStore


async def main(path: Path, label: str) -> None:
    """Write until killed."""
    store = await SqliteStore.open(path)
    number = 0
    while True:
        number += 1
        value = f"{label}:{number}".encode()
        await store.transact((), [Put("left", value), Put("right", value), Put(f"n/{label}/{number}", bytes(5000))])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
