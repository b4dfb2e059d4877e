"""A TCP proxy on loopback that holds back what a test names, as a network that delays a request would."""

import asyncio
import contextlib
from typing import Self

CHUNK_BYTES = 1 << 16


class HoldingProxy:
    """Forwards to a port on loopback. What has `marker` in it is held, with all behind it on its connection, until
    `release`, even when whoever sent it is gone; `answers` are what the server then said. `closed` refuses newcomers.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.marker: bytes | None = None
        self.held = asyncio.Event()
        self.closed = False
        self.answers: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, marker: bytes) -> None:
        """From now on."""
        self._released, self.held, self.marker, self.answers = asyncio.Event(), asyncio.Event(), marker, []

    def release(self) -> None:
        """What was held arrives, and nothing is held any more."""
        self.marker = None
        self._released.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
            was_held: list[bool] = []
            back = asyncio.create_task(self._back(server_reader, writer, was_held))
            try:
                await self._forward(reader, server_writer, was_held)
                await back
            finally:
                back.cancel()
                server_writer.close()
                writer.close()

    async def _forward(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, was_held: list[bool]) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.marker is not None and self.marker in data:
                was_held.append(True)
                released = self._released
                self.held.set()
                await released.wait()
            server.write(data)
            await server.drain()
        if not was_held:
            server.write_eof()

    async def _back(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, was_held: list[bool]) -> None:
        while data := await server.read(CHUNK_BYTES):
            if was_held:
                self.answers.append(data)
            with contextlib.suppress(OSError):
                writer.write(data)
                await writer.drain()
