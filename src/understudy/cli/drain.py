"""`understudy drain`: order it, then wait until the endpoint may be stopped, and show how far it has come."""

import time

from understudy.cli.client import Client, understood
from understudy.cli.screen import console
from understudy.cli.words import counted, duration, plain
from understudy.control.view import Progress
from understudy.core.errors import Refused
from understudy.core.pools import Admin

POLL_S = 0.25


def drain(client: Client, service: str, endpoint: str, timeout_s: float | None) -> None:
    """Drain the endpoint; returns when it is safe to stop, Refused when the time is up or the wait is interrupted."""
    path = ("services", service, "endpoints", endpoint)
    screen = console()
    screen.print(plain(client.post(*path, "admin", admin=Admin.DRAIN)["reason"]))
    begin_s = time.monotonic()
    told = ""
    progress: Progress | None = None
    try:
        with screen.status("waiting for work in flight") as spinner:
            while True:
                progress = understood(Progress, client.get(*path, "drain"))
                text = plain(progress.reason)
                if progress.safe_to_stop:
                    break
                if timeout_s is not None and time.monotonic() - begin_s >= timeout_s:
                    raise Refused(_unfinished(service, endpoint, progress, f"after {duration(timeout_s)}"))
                if screen.is_terminal:
                    spinner.update(f"{text} ({duration(time.monotonic() - begin_s)})")
                elif text != told:
                    screen.print(text)
                told = text
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise Refused(_unfinished(service, endpoint, progress, "as the wait was interrupted")) from None
    screen.print(text)


def _unfinished(service: str, endpoint: str, progress: Progress | None, when: str) -> str:
    running = counted(progress.sessions, "session") if progress else "an unknown number of sessions"
    verb = "is" if progress and progress.sessions == 1 else "are"
    return (
        f"{running} of {service}/{endpoint} {verb} still running {when}: the drain stays in force, "
        f"so ask again with `understudy drain {service} {endpoint}`, "
        f"or end it with `understudy ready {service} {endpoint}`"
    )
