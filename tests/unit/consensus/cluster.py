"""Several real nodes in this process: real transports over loopback, real journals, one state machine each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raftnode.consensus.raft import Peer, Raft, RaftConfig
from raftnode.consensus.transport.links import TransportConfig
from raftnode.consensus.transport.tls import Tls
from raftnode.consensus.transport.transport import Transport
from raftnode.foundation.incarnation import NodeIncarnation
from tests.unit.consensus.support import FAST, Ledger


class RaftNode:
    """One node, which can be stopped and started again on its directory."""

    def __init__(self, tag: str, directory: Path, *, tls: Tls | None = None, **settings: Any) -> None:
        self.tag = tag
        self.config = RaftConfig(data_dir=directory / tag, **(FAST | settings))
        self.boot = 0
        self.port = 0
        self.machine = Ledger()
        self._tls = tls

    async def listen(self) -> None:
        """Opens the port; it stays the same over restarts."""
        self.boot += 1
        own = NodeIncarnation(self.tag, f"node-{self.tag}", self.boot, self.boot)
        self.transport = Transport("test", own, TransportConfig(port=self.port), tls=self._tls)
        await self.transport.start()
        self.port = self.transport.port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def run(self, peers: Sequence[Peer]) -> None:
        self.machine = Ledger()
        self.raft = Raft(tag=self.tag, peers=peers, transport=self.transport, machine=self.machine, config=self.config)
        await self.raft.start()

    async def stop(self) -> None:
        await self.raft.stop()
        await self.transport.stop()

    async def restart(self, peers: Sequence[Peer]) -> None:
        await self.stop()
        await self.listen()
        await self.run(peers)

    def cut(self) -> None:
        """Loses every connection and makes no new one."""
        self.transport.set_peers({}, 10**9)

    def heal(self) -> None:
        """Ends `cut`."""
        self.raft.members_changed()


class RaftCluster:
    """Nodes that know one another from the start."""

    def __init__(self, nodes: list[RaftNode]) -> None:
        self.nodes = nodes
        self.peers: list[Peer] = []

    def __getitem__(self, tag: str) -> RaftNode:
        return next(node for node in self.nodes if node.tag == tag)

    async def start(self) -> None:
        for node in self.nodes:
            await node.listen()
        self.peers = [Peer(node.tag, node.address) for node in self.nodes]
        for node in self.nodes:
            await node.run(self.peers)

    async def leader(self, among: Sequence[RaftNode] | None = None) -> RaftNode:
        """The node that leads and that all the others follow."""
        nodes = self.nodes if among is None else among

        def agreed() -> RaftNode | None:
            leaders = [node for node in nodes if node.raft.status.role == "Leader"]
            if len(leaders) == 1 and all(node.raft.status.leader == leaders[0].tag for node in nodes):
                return leaders[0]
            return None

        await until(lambda: agreed() is not None)
        found = agreed()
        assert found is not None
        return found

    async def same(self) -> list[bytes]:
        """The commands that all nodes have applied, once all have applied the same."""
        await until(lambda: len({node.raft.status.applied_index for node in self.nodes}) == 1)
        assert all(node.machine.commands == self.nodes[0].machine.commands for node in self.nodes)
        return self.nodes[0].machine.commands

    async def stop(self) -> None:
        for node in self.nodes:
            await node.stop()


@asynccontextmanager
async def running(
    directory: Path, tags: str = "ABC", *, tls_by_tag: dict[str, Tls] | None = None, **settings: Any
) -> AsyncIterator[RaftCluster]:
    """A cluster with a leader."""
    cluster = RaftCluster([RaftNode(tag, directory, tls=(tls_by_tag or {}).get(tag), **settings) for tag in tags])
    await cluster.start()
    try:
        await cluster.leader()
        yield cluster
    finally:
        await cluster.stop()


async def until(condition: Callable[[], bool], *, limit_s: float = 20) -> None:
    """Waits for the condition; the limit only ends a test that would hang."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 (conditions over several nodes have no one event)
            await asyncio.sleep(0.005)


async def eventually(attempt: Callable[[], Awaitable[Any]], *errors: type[Exception]) -> Any:
    """Repeats the attempt while it raises one of the errors."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await attempt()
            except errors:
                await asyncio.sleep(0.01)
