"""The port on which a node listens for the others: taken before the node joins or leads anything, served once it can.

A node whose port is taken must end before any other node counts on it.
"""

import asyncio
from collections.abc import Callable

from raftnode.consensus.transport.tls import Tls


class ListeningPort:
    """One address. Port 0 takes a free one."""

    def __init__(self, host: str, port: int, *, tls: Tls | None = None, handshake_ms: int = 1_000) -> None:
        self._host, self._port, self._tls, self._handshake_ms = host, port, tls, handshake_ms
        self._accept: Callable[[], asyncio.Protocol] | None = None
        self._server: asyncio.Server | None = None

    async def bind(self) -> None:
        """Takes the address, and lets nobody in yet. Raises OSError when it cannot be had."""
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            self._host,
            self._port,
            ssl=self._tls.server if self._tls else None,
            ssl_handshake_timeout=self._handshake_ms / 1000 if self._tls else None,
            reuse_address=True,
            start_serving=False,
        )

    async def serve(self, accept: Callable[[], asyncio.Protocol]) -> None:
        """Lets the others in, each into what `accept` gives. Raises OSError when the address cannot be had."""
        self._accept = accept
        if self._server is None:
            await self.bind()
        assert self._server is not None
        await self._server.start_serving()

    def close(self) -> None:
        """Gives the address back. What has been let in stays."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def number(self) -> int:
        """The port that was taken."""
        assert self._server is not None, "bind() comes first"
        return int(self._server.sockets[0].getsockname()[1])

    def _protocol(self) -> asyncio.Protocol:
        assert self._accept is not None
        return self._accept()
