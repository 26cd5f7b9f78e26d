"""Setting up the log: for people on a terminal, JSON lines elsewhere. What is logged is decided where it happens."""

import contextlib
import logging
import sys
from typing import TextIO

import structlog

from understudy.core.events import Event, EventKind

WARNINGS = frozenset(
    {
        EventKind.ROUTER_DIED,
        EventKind.ROUTER_REFUSED,
        EventKind.SERVICE_DEGRADED,
        EventKind.SERVICE_DOWN,
        EventKind.ENDPOINT_DOWN,
        EventKind.ENDPOINT_EJECTED,
        EventKind.ENDPOINT_SPARED,
        EventKind.ENDPOINT_AGENT_LOST,
        EventKind.RUN_EXITED,
    }
)
"""Kinds that a person may have to look at; all others are told as information."""


def configure(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send the log to `stream` (standard error when none is given); `verbose` adds the debug level."""
    stream = stream or sys.stderr
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(pad_event=0)
        if stream.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=not stream.isatty()),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def tell(event: Event) -> None:
    """Log an event: its sentence as in the journal, its values beside it."""
    about = {"kind": str(event.kind), "service": event.service, "subject": event.subject, "data": dict(event.data)}
    level = logging.WARNING if event.kind in WARNINGS else logging.INFO
    with contextlib.suppress(OSError):  # a closed terminal or a broken pipe is no reason to stop working
        structlog.get_logger().log(level, event.reason, **{name: value for name, value in about.items() if value})
