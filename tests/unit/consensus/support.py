"""A small state machine, and a transport for a node that is alone."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raftnode.consensus.raft import Peer, Raft, RaftConfig

FAST = {"election_min_ms": 200, "election_max_ms": 400, "heartbeat_ms": 50}


class Ledger:
    """Remembers every command in order. `raises`: what applying the next one raises."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.ticks = 0
        self.raises: Exception | None = None

    def apply(self, index: int, term: int, command: bytes) -> Any:
        if self.raises is not None:
            raise self.raises
        self.commands.append(command)
        return len(self.commands)

    def refuses(self, command: bytes) -> str | None:
        return "it begins with '!'" if command.startswith(b"!") else None

    def dump(self) -> Callable[[], Iterable[bytes]]:
        commands = tuple(self.commands)
        return lambda: (b"." + command for command in commands)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.commands = [chunk[1:] for chunk in chunks]

    def after_tick(self) -> None:
        self.ticks += 1


class Nowhere:
    """A transport without peers."""

    def __init__(self) -> None:
        self.on_connection: list[Callable[[str, bool], None]] = []
        self.peers: dict[str, str] = {}

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        return False

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None: ...

    def backlog_bytes(self, tag: str) -> int:
        return 0

    def connected_tags(self) -> frozenset[str]:
        return frozenset()

    def set_peers(self, addresses: dict[str, str], membership_index: int) -> None:
        self.peers = addresses


def alone(path: Path, **settings: Any) -> tuple[Raft, Ledger]:
    """A cluster of one node, not yet started."""
    config = RaftConfig(
        data_dir=path, **({"election_min_ms": 100, "election_max_ms": 200, "heartbeat_ms": 30} | settings)
    )
    machine = Ledger()
    raft = Raft(tag="A", peers=[Peer("A", "127.0.0.1:1")], transport=Nowhere(), machine=machine, config=config)
    return raft, machine


async def leading(raft: Raft) -> None:
    """Returns once the node leads and knows the whole log."""
    became = asyncio.Event()
    raft.on_role_change.append(lambda role, _term: became.set() if role == "Leader" else None)
    if raft.status.role != "Leader":
        await became.wait()
