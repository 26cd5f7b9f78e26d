"""Which etcd member leads, and letting another one: losing the leader costs an election, everybody else's loss nothing.

`choice` is pure. Nothing here is needed for anything to be right.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from understudy.store import etcd_messages as messages
from understudy.store.base import StoreFault
from understudy.store.etcd_client import Client
from understudy.store.etcd_faults import Trouble
from understudy.store.etcd_messages import Seat
from understudy.store.etcd_wire import STATUS, TRANSFER

BEHIND = 1000
"""A member that lacks more than so many entries of etcd's log is not made the leader."""


async def lead_away_from(client: Client, addresses: frozenset[str]) -> str:
    """Let another member lead when the one at such an address does; its address, empty when nothing had to be done.

    Raises StoreFault when the leader refuses or does not answer.
    """
    seats = await _seats(client)
    move = choice(seats, addresses)
    if move is None:
        return ""
    leader, other = move
    try:
        await client.wire.ask(leader, TRANSFER, messages.transfer(seats[other]), bool, client.timeout_s)
    except Trouble as trouble:
        raise StoreFault(
            f"The store is led by the member on the primary's host, and another one could not be made to lead "
            f"({trouble}); should that host be lost, the store is away for the time of an election."
        ) from trouble
    return _address(other)


def choice(seats: Mapping[str, Seat], addresses: frozenset[str]) -> tuple[str, str] | None:
    """The leader and who should lead in its place, by their URLs; None when it is to stay, or nobody else is fit."""
    leading = [url for url, seat in seats.items() if seat.member == seat.leader]
    if len(leading) != 1 or _address(leading[0]) not in addresses:
        return None
    leader = seats[leading[0]]
    fit = [
        url
        for url, seat in seats.items()
        if seat.well
        and (seat.leader, seat.cluster_id) == (leader.member, leader.cluster_id)
        and seat.applied >= leader.applied - BEHIND
        and _address(url) not in addresses
    ]
    return (leading[0], fit[0]) if fit else None


async def _seats(client: Client) -> dict[str, Seat]:
    """What those members say that answer and belong to the store that we know."""
    urls = client.endpoints.in_turn()
    asked = (client.wire.ask(url, STATUS, {}, messages.seat, client.timeout_s) for url in urls)
    said = await asyncio.gather(*asked, return_exceptions=True)
    for fault in said:
        if isinstance(fault, BaseException) and not isinstance(fault, Trouble):
            raise fault
    told = {url: seat for url, seat in zip(urls, said, strict=True) if isinstance(seat, Seat)}
    return {url: seat for url, seat in told.items() if seat.cluster_id == client.cluster_id}


def _address(url: str) -> str:
    return urlsplit(url).hostname or ""
