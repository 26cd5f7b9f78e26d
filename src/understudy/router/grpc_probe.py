"""The bytes of a gRPC health check over HTTP/2, which HAProxy 2.6 cannot make itself: pure, no connection.

One request of grpc.health.v1.Health/Check with literal header fields only, so that no compression state is needed.
"""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = 0x4
_HEADERS = 0x1
_DATA = 0x0
_END_STREAM = 0x1
_END_HEADERS = 0x4
_STREAM = 1

SERVING = bytes.fromhex("00000000020801")
"""The message of a healthy answer: not compressed, two bytes long, field 1 (status) is 1 (SERVING)."""


def health_request(service: str) -> bytes:
    """Everything that a client sends to ask for one service; empty asks for the whole server."""
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "understudy"),
    )
    name = service.encode("ascii")
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, b""),
            _frame(_HEADERS, _END_HEADERS, _STREAM, b"".join(_literal(*header) for header in headers)),
            _frame(_DATA, _END_STREAM, _STREAM, b"\0" + len(message).to_bytes(4, "big") + message),
        )
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    """A header field that is neither indexed nor compressed; each part is shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode("ascii") + bytes([len(value)]) + value.encode("ascii")
