"""Cables that flip bits: the traffic of three real nodes runs through them, and every damage is noticed."""

import asyncio
import contextlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from raftnode.cli.local_cluster import free_ports
from raftnode.foundation.http_client import HttpError
from tests.harness.cluster import PATIENT, Cluster

TAGS = "ABC"
FLIPS = 300
FLIP_CHANCE = 0.02
SEED = os.environ.get("RAFTNODE_TEST_FUZZ_SEED", "one and the same")


class Cable:
    """Carries what comes to one port to another, both ways. While it is bad, now and then a bit arrives flipped."""

    def __init__(self, seed: str) -> None:
        self.bad = True
        self.flips = 0
        self._random = Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def lay(self, from_port: int, to_port: int) -> None:
        """Begins to carry."""
        self._to_port = to_port
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", from_port)

    async def take_up(self) -> None:
        """Ends every connection."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(reader, back))
                    group.create_task(self._copy(there, writer))
            finally:
                back.transport.abort()
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(self._worn(data))
            await writer.drain()
        # Either end is the end of both.
        raise ConnectionResetError

    def _worn(self, data: bytes) -> bytes:
        if not self.bad or self._random.random() > FLIP_CHANCE:
            return data
        self.flips += 1
        bent = bytearray(data)
        bent[self._random.randrange(len(bent))] ^= 1 << self._random.randrange(8)
        return bytes(bent)


class Cabled(Cluster):
    """A cluster whose nodes reach each other only through cables."""

    def __init__(self, directory: Path, tags: Sequence[str], flags: Sequence[str]) -> None:
        super().__init__(directory, tags, flags=flags)
        self.cables = {
            tag: (port, Cable(f"{SEED} {tag}")) for tag, port in zip(tags, free_ports(len(tags)), strict=True)
        }
        listed = [
            {"tag": node.tag, "url": node.url, "cluster_address": f"127.0.0.1:{self.cables[node.tag][0]}"}
            for node in self.nodes.values()
        ]
        for node in self.nodes.values():
            node.flags = ("--cluster.initial-nodes", json.dumps(listed))

    async def __aenter__(self) -> "Cabled":
        for tag, (port, cable) in self.cables.items():
            await cable.lay(port, self.nodes[tag].cluster_port)
        await super().__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await super().__aexit__(*failure)
        for _, cable in self.cables.values():
            await cable.take_up()

    @property
    def flips(self) -> int:
        """How many bits were flipped so far."""
        return sum(cable.flips for _, cable in self.cables.values())


async def test_flipped_bits_cost_connections_and_nothing_else(tmp_path: Path) -> None:
    print(f"replay with RAFTNODE_TEST_FUZZ_SEED={SEED}")
    async with Cabled(tmp_path, TAGS, ("--log.format", "json", *PATIENT)) as cluster:
        await cluster.wait_until(partial(created, cluster), "the database", 60)
        answered: set[str] = set()
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(cluster, tag, answered)) for tag in TAGS]
            await cluster.wait_until(lambda: cluster.flips >= FLIPS, f"{FLIPS} flipped bits", 60)
            for writer in writers:
                writer.cancel()
        for _, cable in cluster.cables.values():
            cable.bad = False
        assert len(answered) > FLIPS / 10
        await cluster.wait_until(partial(all_equal, cluster, answered), "equal nodes with all that was answered")
        for node in cluster.nodes.values():
            log = node.log_file.read_text(errors="replace")
            assert "Traceback" not in log
            assert "this node starts over" not in log
            assert "cannot be read" not in log, "only damage that the checksum missed could have got that far"
        assert sum("does not match its checksum" in n.log_file.read_text() for n in cluster.nodes.values())


async def created(cluster: Cabled) -> bool:
    """Whether the database is there; asks for it until it is."""
    with contextlib.suppress(HttpError):
        await cluster.create_database("Shop", TAGS, "A")
    return bool(await cluster.call("GET", "/databases/Shop/stats", tag="A"))


async def write(cluster: Cabled, tag: str, answered: set[str]) -> None:
    """Commands through one node until cancelled; notes those that were answered."""
    number = 0
    while True:
        number += 1
        name = f"{tag}{number % 50}"
        definition = {"Indexes": [{"Name": name, "Maps": [f"from x in docs select x.F{number}"]}]}
        try:
            await cluster.call("PUT", "/databases/Shop/admin/indexes", definition, tag)
            answered.add(name)
        except HttpError:
            await asyncio.sleep(0.02)


async def all_equal(cluster: Cabled, answered: set[str]) -> bool:
    """Whether all nodes show the same record, with every index that was answered for."""
    records: list[Any] = [await cluster.call("GET", "/databases/Shop/indexes", tag=tag) for tag in TAGS]
    return records[0] == records[1] == records[2] and answered <= {i["Name"] for i in records[0]["Results"]}
