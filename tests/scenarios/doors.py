"""A cluster whose HTTP servers, and so the documents of the nodes, are reached only through doors.

Consensus and heartbeats do not pass through a door: a shut one breaks replication to a node that is well otherwise.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from raftnode.cli.local_cluster import free_ports
from tests.harness.cluster import Cluster

CHUNK_BYTES = 64 * 1024


class Door:
    """A TCP port through which a server behind it on loopback, a node's HTTP server, is reached while it is open."""

    def __init__(self, port: int, behind: int, host: str = "127.0.0.1") -> None:
        self.host, self.port, self._behind = host, port, behind
        self._server: asyncio.Server | None = None
        self._joined: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self) -> None:
        """Takes connections; one that is open already stays so."""
        if self._server is None:
            self._server = await asyncio.start_server(self._join, self.host, self.port)

    async def shut(self) -> None:
        """Refuses new connections and breaks those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._joined.values():
            writer.transport.abort()
        await asyncio.gather(*self._joined)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._joined[task] = writer
        try:
            reader_behind, writer_behind = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_carry(reader, writer_behind), _carry(reader_behind, writer))
        except OSError:
            writer.close()
        finally:
            del self._joined[task]


class DoorCluster(Cluster):
    """A cluster in which each node's HTTP address, for the test too, is that of its door."""

    def __init__(self, directory: Path, *, flags: tuple[str, ...]) -> None:
        super().__init__(directory, flags=flags)
        self.doors: dict[str, Door] = {}
        for node, behind in zip(self.nodes.values(), free_ports(len(self.nodes)), strict=True):
            self.doors[node.tag] = Door(node.http_port, behind)
            node.flags = ("--http.port", str(behind))

    async def __aenter__(self) -> Self:
        await self.open_doors()
        return await super().__aenter__()

    async def __aexit__(self, *failure: object) -> None:
        try:
            await super().__aexit__(*failure)
        finally:
            await self.shut_doors(self.doors)

    async def open_doors(self) -> None:
        """Opens every door."""
        for door in self.doors.values():
            await door.open()

    async def shut_doors(self, tags: Iterable[str]) -> None:
        """Nobody reaches the HTTP servers of these nodes any more."""
        for tag in tags:
            await self.doors[tag].shut()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries what comes until either side ends, and then ends the other one."""
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
