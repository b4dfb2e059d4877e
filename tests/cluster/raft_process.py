"""One consensus node as a process of its own, driven by lines of JSON. Used by test_consensus_processes.

Started with one JSON argument: {"tag", "directory", "peers": {tag: address}, "boot", "acks", "tls"?}. It writes
commands all the time, eight in flight, and notes every acknowledged one in the file `acks`. Answers on stdout.
"""

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from raftnode.consensus.raft import NotCommitted, OutcomeUnknown, Peer, Raft, RaftConfig
from raftnode.consensus.transport.links import TransportConfig
from raftnode.consensus.transport.tls import load_tls
from raftnode.consensus.transport.transport import Transport
from raftnode.foundation.incarnation import NodeIncarnation

IN_FLIGHT = 8


class CommandDigest:
    """How often each command was applied, and a digest of their order."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.digest = ""

    def apply(self, index: int, term: int, command: bytes) -> int:
        name = command[:64].rstrip(b".").decode()
        self.counts[name] = self.counts.get(name, 0) + 1
        self.digest = hashlib.sha256(self.digest.encode() + name.encode()).hexdigest()
        return len(self.counts)

    def refuses(self, command: bytes) -> str | None:
        return None

    def dump(self) -> Callable[[], Iterable[bytes]]:
        state = json.dumps([self.counts, self.digest]).encode()
        return lambda: iter([state])

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.counts, self.digest = json.loads(b"".join(chunks))

    def after_tick(self) -> None: ...


async def write(raft: Raft, prefix: str, acks: int, stop: asyncio.Event) -> None:
    """Proposes until told to stop; a line in `acks` for everything acknowledged."""
    number = 0
    while not stop.is_set():
        name = f"{prefix}-{number}"
        number += 1
        try:
            await raft.propose(name.encode().ljust(400, b"."), timeout_ms=2000)
            os.write(acks, f"{name}\n".encode())
        except NotCommitted:
            await asyncio.sleep(0.01)
        except OutcomeUnknown:
            pass


async def main(given: dict[str, Any]) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    tag, boot = given["tag"], given["boot"]
    peers = [Peer(name, address) for name, address in given["peers"].items()]
    tls = load_tls(*(Path(name) for name in given["tls"])) if given.get("tls") else None
    port = int(given["peers"][tag].rpartition(":")[2])
    own = NodeIncarnation(tag, f"node-{tag}", boot, os.getpid())
    transport = Transport("processes", own, TransportConfig(port=port), tls=tls)
    machine = CommandDigest()
    config = RaftConfig(
        data_dir=Path(given["directory"]),
        election_min_ms=300,
        election_max_ms=600,
        snapshot_bytes_min=200_000,
        segment_bytes_max=50_000,
    )
    raft = Raft(tag=tag, peers=peers, transport=transport, machine=machine, config=config)
    await transport.start()
    await raft.start()
    stop = asyncio.Event()
    acks = os.open(given["acks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group:
        for lane in range(IN_FLIGHT):
            group.create_task(write(raft, f"{tag}-{boot}-{lane}", acks, stop))
        while line := await reader.readline():
            if line.strip() == b"quiet":
                stop.set()
            status = {
                "role": raft.status.role,
                "leader": raft.status.leader,
                "applied": raft.status.applied_index,
                "snapshot": raft.status.snapshot_index,
                "failure": str(raft.status.failure or ""),
                "digest": machine.digest,
                "counts": machine.counts if line.strip() == b"counts" else len(machine.counts),
            }
            print(json.dumps(status), flush=True)
        stop.set()
    await raft.stop()
    await transport.stop()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
