"""What has to happen to get a running HAProxy from one state to another: runtime commands, or one reload. Pure.

Commands are lines for the runtime socket together with the answers that mean success; sending them is
router/runtime.py's work.
"""

import re
from dataclasses import dataclass

from understudy.core.routes import RouterState


@dataclass(frozen=True, slots=True)
class Command:
    """One line for the runtime socket. `answer` is what success looks like (the whole answer, stripped)."""

    line: str
    answer: re.Pattern[str]
    sentence: str
    """What it does, for people; several commands of one change carry the same sentence."""

    def accepted(self, answer: str) -> bool:
        """Whether HAProxy's answer means that it was done."""
        return self.answer.fullmatch(answer.strip()) is not None


@dataclass(frozen=True, slots=True)
class Diff:
    """The way from one state to another. When `reload` names a reason, the new configuration holds everything."""

    commands: tuple[Command, ...] = ()
    """In this order; empty when a reload is needed."""
    reload: tuple[str, ...] = ()
    """Why runtime commands cannot do it, a sentence each."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the commands do, each said once."""
        return tuple(dict.fromkeys(command.sentence for command in self.commands))


def diff(old: RouterState, new: RouterState) -> Diff:
    """The smallest change that makes a proxy that is in `old` do what `new` says."""
    raise NotImplementedError
