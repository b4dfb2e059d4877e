"""The transport of real nodes under fuzz: bent frames from a member and from strangers.

A cluster of four, of which the fourth, X, is this test: it is let in, speaks on every channel, and sends garbage. All
the while strangers knock with garbage, and nodes that only a newer membership knows are let in and damage their frames.
"""

import ast
import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from raftnode.cli.local_cluster import memory_pss_bytes
from raftnode.consensus.engine import messages
from raftnode.consensus.transport.connection import HEADER, framed
from raftnode.consensus.transport.raft_channel import RAFT_CHANNEL
from tests.fuzz.frames import Frames
from tests.harness.cluster import PATIENT, Cluster

REAL, X, GUEST = "ABC", "X", "Y"
BATCH_FRAMES = 200
VISIT_FRAMES = 10
MEMBER_SHARE = 0.85
GROWTH_BYTES_MAX = 32 * 1024 * 1024
ANSWER_SEC = 30.0
SEED = os.environ.get("RAFTNODE_TEST_FUZZ_SEED", "one and the same")
ROOT = Path(__file__).parents[2]


class Besieged(Cluster):
    """The nodes A, B and C of a cluster of four; X is a founder that is never started."""

    def start(self, tag: str) -> None:
        """Starts a real node."""
        if tag != X:
            super().start(tag)

    async def formed(self) -> None:
        """Waits until the real nodes are ready."""
        for tag in REAL:
            await self.ready(tag)


class Raider:
    """Attacks one node with frames of its own random sequence, and counts those that the node has taken."""

    def __init__(self, cluster: Cluster, target: str, mark: Path) -> None:
        node = cluster.nodes[target]
        self._port = node.cluster_port
        wire_id = json.loads((node.data_dir / "cluster.json").read_text())["wire_id"]
        self._nonces = Random(f"{SEED} {target} nonces")
        self._member = Frames(Random(f"{SEED} {target} {X}"), cluster=wire_id, tag=X, membership_index=0, mark=mark)
        self._guest = Frames(
            Random(f"{SEED} {target} {GUEST}"), cluster=wire_id, tag=GUEST, membership_index=2**40, mark=mark
        )
        self.taken = 0

    async def attack(self, frames: int, term: int) -> None:
        """That many frames from each side's share. The cluster has reached the term."""
        self._member.term = self._guest.term = term
        async with asyncio.TaskGroup() as group:
            group.create_task(self._as_member(int(frames * MEMBER_SHARE)))
            group.create_task(self._as_strangers(frames - int(frames * MEMBER_SHARE)))

    async def _as_member(self, frames: int) -> None:
        async with self._connected() as (reader, writer):
            writer.write(self._member.greeting())
            for first in range(0, frames, BATCH_FRAMES):
                count = min(BATCH_FRAMES, frames - first)
                writer.write(b"".join(self._member.sound() for _ in range(count)))
                await self._all_taken(reader, writer)
                self.taken += count

    async def _all_taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Messages are taken in order: once this question is answered, the node is through with all before it."""
        nonce = self._nonces.getrandbits(60)
        question = messages.encode(messages.PreVote(0, nonce, 0, 0))
        writer.write(framed(msgspec.msgpack.encode((RAFT_CHANNEL, question))))
        async with asyncio.timeout(ANSWER_SEC):
            while True:
                length, _, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
                channel, payload = self._pair(await reader.readexactly(length))
                if channel == RAFT_CHANNEL:
                    message = messages.decode(payload)
                    if isinstance(message, messages.PreVoteGranted) and message.nonce == nonce:
                        return

    @staticmethod
    def _pair(frame: bytes) -> tuple[str, bytes]:
        message: list[Any] = msgspec.msgpack.decode(frame)
        return ("", b"") if message[0] == "Hello" else (message[0], message[1])

    async def _as_strangers(self, frames: int) -> None:
        for first in range(0, frames, VISIT_FRAMES):
            count = min(VISIT_FRAMES, frames - first)
            async with self._connected() as (reader, writer):
                if self._guest.random.random() < 0.3:
                    writer.write(self._guest.no_greeting())
                else:
                    writer.write(self._guest.greeting())
                    writer.write(b"".join(self._guest.sound() for _ in range(count - 1)))
                    writer.write(self._guest.damaged())
                # Cut off by the node, or by this side when the node waits for the rest of a frame.
                with contextlib.suppress(OSError):
                    writer.write_eof()
                    async with asyncio.timeout(ANSWER_SEC):
                        while await reader.read(1 << 16):
                            pass
                self.taken += count

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def besiege(directory: Path, frames: int) -> None:
    """The attack, and what must hold during it and after it."""
    print(f"replay with RAFTNODE_TEST_FUZZ_SEED={SEED}")
    mark = directory / "code ran"
    flags = ("--log.format", "json", *PATIENT)
    async with Besieged(directory, REAL + X, flags=flags) as cluster:
        await cluster.create_database("Shop", REAL)
        await put(cluster, "before")
        members = await cluster.call("GET", "/cluster/topology")
        raiders = [Raider(cluster, tag, mark) for tag in REAL]
        rounds = 10
        sizes: list[dict[str, int]] = []
        for _ in range(rounds):
            term = min([(await healthy(cluster, tag))["Node"]["Term"] for tag in REAL])
            async with asyncio.TaskGroup() as group:
                for raider in raiders:
                    group.create_task(raider.attack(frames // rounds // len(REAL) + 1, term))
            sizes.append({tag: memory(cluster, tag) for tag in REAL})
        assert sum(raider.taken for raider in raiders) >= frames
        for tag in REAL:
            assert sizes[-1][tag] - sizes[0][tag] < GROWTH_BYTES_MAX, f"{tag} grew: {[size[tag] for size in sizes]}"
        await put(cluster, "after")
        for tag in REAL:
            await cluster.wait_until(partial(unharmed, cluster, tag, members), f"{tag} to be as it was")
            assert "Traceback" not in cluster.nodes[tag].log_file.read_text(errors="replace")
        assert not mark.exists()


async def healthy(cluster: Cluster, tag: str) -> dict[str, Any]:
    """The node's status. It lives and says so."""
    assert cluster.ended(tag) is None
    await cluster.call("GET", "/health/live", tag=tag)
    status = await cluster.wait_until(lambda: cluster.status(tag), f"{tag} to answer")
    assert isinstance(status, dict)
    return status


def memory(cluster: Cluster, tag: str) -> int:
    """The memory of the node's process, in bytes."""
    process = cluster.nodes[tag].process
    assert process is not None
    return memory_pss_bytes(process.pid)


async def put(cluster: Cluster, name: str) -> None:
    """A command and a document, once the cluster takes them."""

    async def taken() -> bool:
        definition = {"Indexes": [{"Name": name, "Maps": ["from x in docs select x"]}]}
        await cluster.call("PUT", "/databases/Shop/admin/indexes", definition, "A")
        await cluster.call("PUT", f"/databases/Shop/docs?id={name}", {"@metadata": {"@collection": "Names"}}, "A")
        return True

    await cluster.wait_until(taken, f"{name} to be committed")


async def unharmed(cluster: Cluster, tag: str, members: Any) -> bool:
    """Whether the node has what was there before the attack, what came after it, and nothing else."""
    database = await cluster.call("GET", "/admin/databases?name=Shop", tag=tag)
    indexes = await cluster.call("GET", "/databases/Shop/indexes", tag=tag)
    names = await cluster.call("GET", "/databases?namesOnly=true", tag=tag)
    documents = await cluster.call("POST", "/databases/Shop/docs", {"Ids": ["before", "after"]}, tag)
    topology = await cluster.call("GET", "/cluster/topology", tag=tag)
    return (
        sorted(database["Topology"]["Members"]) == list(REAL)
        and {index["Name"] for index in indexes["Results"]} == {"before", "after"}
        and names == {"Databases": ["Shop"]}
        and all(documents["Results"])
        and topology["Topology"]["AllNodes"] == members["Topology"]["AllNodes"]
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("frames", [30_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_bent_frames_harm_nothing(tmp_path: Path, frames: int) -> None:
    await besiege(tmp_path, frames)


def test_nothing_here_could_run_what_it_is_sent() -> None:
    """No module imports a serializer that runs code. The one that the Raft package imports is disarmed: see trap 5."""
    dangerous = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
    files = [file for top in ("raftnode", "observer", "tasks", "config") for file in (ROOT / top).rglob("*.py")]
    assert len(files) > 100
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {name.partition(".")[0] for name in names} & dangerous, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{file}:{node.lineno}"
