"""A tiny web server to try understudy with: `python3 server.py NAME PORT`; / says its name."""  # noqa: INP001  a script

import http.server
import signal
import socketserver
import sys
from typing import Any


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD, and keeps the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer would wait 40 ms between its head and its body
    name = ""

    def do_GET(self) -> None:
        """The server's name, or `ok`, or 404."""
        text = {"/": self.name, "/healthz": "ok"}.get(self.path.partition("?")[0])
        body = f"{text or 'not found'}\n".encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  the name is the library's

    def log_message(self, *_: object) -> None:
        """Say nothing: health checks alone are several requests a second."""


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, as a health check does when it has seen enough."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: server.py NAME PORT")
    Handler.name = sys.argv[1]
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, lambda *_: sys.exit(0))
    with Server(("127.0.0.1", int(sys.argv[2])), Handler) as server:
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
