"""What can go wrong with etcd, and in which words it is told: pure translation, done once.

The one question that matters to a caller: can the request have taken effect? `Kind` answers it.
"""

from enum import Enum, auto


class Kind(Enum):
    """What a trouble means for the request."""

    UNSENT = auto()
    """It took no effect here; another member may do better."""
    LOST = auto()
    """Nobody knows whether it took effect."""
    TOKEN = auto()
    """It took no effect; the log-in has run out."""
    REFUSED = auto()
    """It took no effect, and any member would say so."""
    LEADERLESS = auto()
    """It took no effect: this member knows no leader. Soon it may; others may know one already."""
    LED_ANEW = auto()
    """There has just been an election. A read may be made again at once; nobody knows about anything else."""


LEADERLESS = frozenset({Kind.LEADERLESS, Kind.LED_ANEW})
"""The member is well; what is missing is a leader."""


class Trouble(Exception):
    """One attempt at one member failed; the text is a clause without a full stop."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_KNOWN: tuple[tuple[str, Kind, str], ...] = (
    ("invalid auth token", Kind.TOKEN, ""),
    ("revision of auth store is old", Kind.TOKEN, ""),
    ("revision in header is old", Kind.TOKEN, ""),
    ("user name is empty", Kind.REFUSED, "name a user and a password for it in the spec"),
    ("authentication failed", Kind.REFUSED, "check the user and the password in the spec"),
    ("authentication is not enabled", Kind.REFUSED, "take the user out of the spec, or run `etcdctl auth enable`"),
    ("permission denied", Kind.REFUSED, "grant the user reading and writing below `understudy/`"),
    ("database space exceeded", Kind.REFUSED, "compact and defragment etcd, then run `etcdctl alarm disarm`"),
    ("request is too large", Kind.REFUSED, "start etcd with its default --max-request-bytes or more"),
    ("too many operations in txn", Kind.REFUSED, "start etcd with its default --max-txn-ops or more"),
    ("corrupt", Kind.REFUSED, "replace the corrupt member as etcd's manual says"),
    ("too many requests", Kind.UNSENT, ""),
    ("no leader", Kind.LEADERLESS, ""),
    ("leader changed", Kind.LED_ANEW, ""),
    ("not supported for learner", Kind.UNSENT, ""),
)

_NO_EFFECT_CODES = {3, 5, 6, 7, 9, 11, 12, 16}
"""gRPC codes that are given before anything is done: invalid argument, not found, exists, permission, precondition,
out of range, unimplemented, unauthenticated."""  # fmt: skip


def classify(member: str, http_status: int, code: int, said: str) -> Trouble:
    """What a member's error answer means."""
    for words, kind, advice in _KNOWN:
        if words in said:
            return Trouble(kind, f"etcd at {member} says {said!r}" + (f"; {advice}" if advice else ""))
    if http_status == 404:
        return Trouble(Kind.UNSENT, f"{member} is no etcd, or one older than 3.4")
    kind = Kind.REFUSED if code in _NO_EFFECT_CODES else Kind.LOST
    return Trouble(kind, f"etcd at {member} says {said!r}")


def refused(trouble: Trouble) -> str:
    """The sentence for a request that any member would refuse."""
    advice = "" if ";" in str(trouble) else "; look at etcd's log"
    return f"The store refused the request and nothing took effect, because {trouble}{advice}."


def away(troubles: list[Trouble]) -> str:
    """The sentence for a request that no member did, and that took no effect."""
    why = str(troubles[-1]) if troubles else "there was no time left"
    return f"The store did not answer ({why}); check that a majority of its etcd members runs and can be reached."


def unknown(trouble: Trouble) -> str:
    """The sentence for a transaction whose answer was lost."""
    return f"The store's answer was lost ({trouble}), so whether the transaction took effect is unknown; look again."


def replaced(contradiction: str) -> str:
    """The sentence for a store that is not the one we knew."""
    return (
        f"The store is not the one it was ({contradiction}), so it was left alone; find out whether it was wiped, "
        "restored from a backup, or the spec names the wrong etcd."
    )
