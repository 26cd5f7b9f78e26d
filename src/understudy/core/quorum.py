"""Voting arithmetic: who must be frozen so that nothing more can be acknowledged, who must promise, who must be asked.

RULES: sets and numbers only. Every rule is about *every configuration that may be in force*, since a change may have
been interrupted at any point.
"""

from collections.abc import Iterable

from understudy.core.record import SyncConfig
from understudy.core.text import Name

Nodes = frozenset[Name]


def silenced(config: SyncConfig, frozen: Nodes) -> bool:
    """Whether a primary under this rule can acknowledge nothing any more: R > N - W.

    With R voters frozen, at most N - R can still acknowledge, which must be fewer than W. By the same inequality every
    write that was acknowledged is known to at least one of the frozen (W + R > N, so the two sets meet): whoever
    contains what each of them has, has everything.
    """
    return config.acks > 0 and len(config.voters & frozen) > len(config.voters) - config.acks


def revoked(configs: Iterable[SyncConfig], frozen: Nodes) -> bool:
    """Whether it is silenced under every configuration that may be in force; nobody knows which one is."""
    listed = tuple(configs)
    return bool(listed) and all(silenced(config, frozen) for config in listed)


def promise_quorum(electors: int) -> int:
    """How many of the data nodes, the primary among them, must promise for it to go on while the store is away."""
    return electors // 2 + 1


def release_quorum(electors: int) -> int:
    """How many other than it must be free of promises (frozen, under the new epoch) before its lease may count as over.

    The primary and P - 1 others promise; F others are free; among n - 1 others these meet, since P - 1 + F = n.
    """
    return electors - promise_quorum(electors) + 1


def promised(electorates: Iterable[Nodes], promises: Nodes) -> bool:
    """Whether the primary may go on: a majority has promised, of every electorate that may be in force."""
    listed = tuple(electorates)
    return bool(listed) and all(len(electorate & promises) >= promise_quorum(len(electorate)) for electorate in listed)


def released(electorates: Iterable[Nodes], frozen: Nodes) -> bool:
    """Whether no majority can have promised; `frozen` are nodes other than the primary that is to be replaced."""
    listed = tuple(electorates)
    return bool(listed) and all(len(electorate & frozen) >= release_quorum(len(electorate)) for electorate in listed)


def caught_up(config: SyncConfig, have_everything: Nodes) -> bool:
    """Whether `config` alone may be counted on: enough of its voters have all that older rules acknowledged.

    `have_everything` are the nodes whose flushed position reached the primary's, read after `config` was in force. A
    rule that asks nobody needs nobody. Enough is more than the W that a later election may miss: any R > N - W of the
    voters must meet those who have everything, so W of them are needed.
    """
    return len(config.voters & have_everything) >= config.acks
