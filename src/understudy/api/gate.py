"""What every request must pass before it is read: who may ask, in what form, how much. No routes.

The API has no log-in yet and listens on loopback, where two kinds of foreign request arrive through a user's browser: a
page whose host name was made to resolve to 127.0.0.1 (DNS rebinding), and a form posted across sites. The first carries
the page's host name, the second cannot carry `application/json`; both are refused here.
"""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BODY_MAX_BYTES = 8 * 1024 * 1024
"""A spec of 1 000 services with 10 endpoints each has about 1 MiB."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?")


class Gate:
    """ASGI middleware that answers with a reason, instead of the application, where a request may not pass."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or refuse it."""
        if scope["type"] == "http" and (refusal := refuse(scope["method"], Headers(scope=scope))):
            status, reason = refusal
            await JSONResponse({"reason": reason}, status)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def refuse(method: str, headers: Headers) -> tuple[int, str] | None:
    """The HTTP status and the reason why this request may not pass; None when it may."""
    if not is_local_name(headers.get("host", "")):
        return (
            403,
            "this API answers only to an IP address or localhost in the Host header: use one of them in the URL",
        )
    if method in SAFE_METHODS:
        return None
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return 415, "what changes something must be sent with the header Content-Type: application/json"
    length = headers.get("content-length", "")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        return 411, "the body has no Content-Length header: send one, since chunked bodies are not taken"
    if int(length) > BODY_MAX_BYTES:
        return 413, f"the body has {length} bytes and at most {BODY_MAX_BYTES} are taken: send less"
    return None


def is_local_name(host: str) -> bool:
    """Whether a Host header names an address and not somebody's domain."""
    match = _HOST.fullmatch(host)
    if not match:
        return False
    name = match[1] or match[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() == "localhost"
    return True
