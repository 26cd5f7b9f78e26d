"""A stand-in for an engine: serves an echo on a unix socket, and misbehaves as its first argument says.

Run as `python engine.py MODE FIFO SOCKET [FILE]`. Everybody of its family holds the FIFO open for writing, so whoever
reads it sees the very moment in which the last of them is gone. All end by themselves after LIFE_S, but for the
stopped ones.
"""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

LIFE_S = 60.0
BORN_S = time.monotonic()
CHAINS = 3


def rest():
    while time.monotonic() < BORN_S + LIFE_S:
        time.sleep(0.2)
    os._exit(0)


def deafen():
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def child(what):
    """Fork; the child does `what`, which never returns."""
    pid = os.fork()
    if pid == 0:
        what()
        os._exit(0)
    return pid


def daemon():
    """Double fork, as daemons do, in a session of its own, deaf, with a child that is stopped."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    deafen()
    child(lambda: (os.kill(os.getpid(), signal.SIGSTOP), rest()))
    rest()


def family():
    child(lambda: (os.setsid(), child(lambda: (os.setsid(), child(rest), rest())), rest()))
    os.waitpid(child(daemon), 0)
    threading.Thread(target=lambda: (child(rest), rest()), daemon=True).start()  # listed under another thread of ours


def storm():
    """Fork, leave the session and end, over and over: no generation lives longer than a millisecond or two."""

    def hop():
        while time.monotonic() < BORN_S + LIFE_S:
            if os.fork():
                os._exit(0)
            os.setsid()

    for _ in range(CHAINS):
        os.waitpid(child(hop), 0)


def serve(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    while True:
        connection, _ = server.accept()
        connection.sendall(str(os.getpid()).encode())
        connection.close()


def main(mode, fifo, place, *rest_of_it):
    os.set_inheritable(os.open(fifo, os.O_WRONLY), True)
    if mode == "deaf":
        deafen()
    elif mode == "family":
        family()
    elif mode == "storm":
        storm()
    elif mode == "leaver":
        family()
        sys.exit(7)
    threading.Thread(target=serve, args=(place,), daemon=True).start()
    if mode == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if mode == "writer":
        with Path(rest_of_it[0]).open("ab", buffering=0) as file:
            while time.monotonic() < BORN_S + LIFE_S:
                file.write(b"x")
                time.sleep(0.01)
    rest()


if __name__ == "__main__":
    main(*sys.argv[1:])
