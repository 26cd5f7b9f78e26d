"""The socket of the API, taken before anything else is touched. No web framework here: loading one takes a while."""

import errno
import socket

from understudy.core.errors import Fault
from understudy.core.text import Address


def bind(address: Address) -> socket.socket:
    """A socket on the address, not yet listening; Fault when it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((address.host, address.port))
        taken.listen()
    except OSError as failure:
        taken.close()
        raise Fault(_why_not(address, failure)) from failure
    return taken


def _why_not(address: Address, failure: OSError) -> str:
    if failure.errno == errno.EADDRINUSE:
        return (
            f"the API cannot listen on {address} because another program does: "
            f"stop that program, or set `api:` in the spec to a free address"
        )
    return f"the API cannot listen on {address} ({failure.strerror}): set `api:` in the spec to an address of this host"
