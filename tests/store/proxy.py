"""A TCP proxy that can swallow the answers of some connections, as a half-open one does."""

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Passes everything on to a port of this host."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.muted = 0
        """How many pieces were swallowed."""
        self._target_port = target_port
        self._muted_words: bytes | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    def mute(self, words: bytes) -> None:
        """From now on swallow the answers of connections whose requests held these words, old ones and new."""
        self._muted_words = words

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, up_writer]
        asked = bytearray()

        async def up() -> None:
            while data := await reader.read(65536):
                asked.extend(data)
                up_writer.write(data)
            up_writer.close()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if self._muted_words and self._muted_words in asked:
                    self.muted += 1
                else:
                    writer.write(data)
            writer.close()

        await asyncio.gather(up(), down(), return_exceptions=True)
