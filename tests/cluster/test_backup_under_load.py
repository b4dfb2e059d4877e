"""A backup that is made while documents change holds exactly the documents of its etag, however many they are, and
takes little memory."""

import asyncio
import hashlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raftnode.cli.local_cluster import memory_pss_bytes, pids
from raftnode.documents.store.building import StoreBuilder
from tests.cluster.test_backup import back_up, backup, ended
from tests.harness.cluster import PATIENT, Cluster

MEMORY_BYTES_MAX = 200_000_000
PAGE = 1000
ITEM = {"@metadata": {"@collection": "Items"}}
BUILT_AT = "2026-01-01T00:00:00.0000000Z"


def body(number: int, size: int) -> str:
    """A document of that many bytes, of which half can be compressed away."""
    return json.dumps({"Number": number, "Text": random.Random(number).randbytes(size // 2).hex()})


def digest(document: str) -> bytes:
    return hashlib.sha256(document.encode()).digest()


def build(path: Path, count: int, size: int) -> dict[str, bytes]:
    """A store's file with that many documents; the hash of each."""
    found = {}
    builder = StoreBuilder(path, tag="A", database="Shop")
    for first in range(0, count, PAGE):
        rows = []
        for number in range(first, min(first + PAGE, count)):
            document, id = body(number, size), f"items/{number}"
            found[id] = digest(document)
            rows.append((id, "Items", document.encode(), BUILT_AT))
        builder.put(rows)
    builder.finish()
    return found


class OnlyWriter:
    """The only one who writes: so that what stood at each etag is known from its writes."""

    def __init__(self, cluster: Cluster, documents: dict[str, bytes]) -> None:
        self.cluster, self.documents = cluster, documents
        self.etags: list[tuple[int, str, str, str]] = []
        """Of each write: the etag, the id that is gone by then, the one that was put and its document."""

    async def run(self) -> None:
        """Changes documents, adds some and deletes some, in no order, until cancelled."""
        chance, ids = random.Random(9), list(self.documents)
        chance.shuffle(ids)
        for number in itertools.count():
            gone, changed = ids[2 * number % len(ids)], ids[(2 * number + 1) % len(ids)]
            put, document = f"added/{number}" if number % 3 == 0 else changed, body(-number, 200)
            commands = [
                {"Type": "DELETE", "Id": gone},
                {"Type": "PUT", "Id": put, "Document": json.loads(document) | ITEM},
            ]
            answer = await self.cluster.call("POST", "/databases/Shop/bulk_docs", {"Commands": commands})
            written_at = answer["Results"][1]["@change-vector"].partition("-")[0]
            self.etags.append((int(written_at.removeprefix("A:")), gone, put, document))

    def at(self, last_etag: int) -> dict[str, bytes]:
        """What stood at an etag."""
        found = dict(self.documents)
        for etag, gone, put, document in self.etags:
            if etag <= last_etag:
                found.pop(gone, None)
                found[put] = digest(document)
        return found


async def restored(cluster: Cluster, folder: Path, made: dict[str, Any], name: str) -> dict[str, bytes]:
    """The hash of each document of the database that is restored up to that backup."""
    wished = {"DatabaseName": name, "BackupLocation": str(folder / made["Folder"])}
    wished |= {"LastFileNameToRestore": made["File"]}
    begun = await cluster.call("POST", "/admin/restore/database", wished)
    await ended(cluster, "A", begun["OperationId"])
    found: dict[str, bytes] = {}
    while True:
        page = (await cluster.call("GET", f"/databases/{name}/docs?start={len(found)}&pageSize={PAGE}"))["Results"]
        for document in page:
            id = document.pop("@metadata")["@id"]
            found[id] = digest(json.dumps(document))
        if len(page) < PAGE:
            return found


async def most_memory(pid: int, highest: list[int]) -> None:
    """The most that the process takes, until cancelled."""
    while True:
        highest.append(max(memory_pss_bytes(pid), *highest[-1:], 0))
        await asyncio.sleep(0.05)


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These go on while the block lasts."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("count", "size"),
    [pytest.param(1_000, 1_000, id="1 MB"), pytest.param(125_000, 8_000, id="1 GB", marks=pytest.mark.long)],
)
async def test_a_backup_of_documents_that_change_holds_those_of_its_etag_and_its_node_takes_little_memory(
    tmp_path: Path, count: int, size: int
) -> None:
    folder = tmp_path / "backups"
    async with Cluster(tmp_path / "nodes", "A", flags=PATIENT) as cluster:
        place = cluster.nodes["A"].data_dir / "databases" / ".removed" / f"shop-{time.time_ns()}"
        writer = OnlyWriter(cluster, await asyncio.to_thread(build, place / "database.sqlite", count, size))
        await cluster.call("POST", f"/admin/databases/restore?folder={place.name}")
        id = int((await cluster.call("POST", "/databases/Shop/admin/periodic-backup", backup(folder)))["TaskId"])

        async def runs() -> bool:
            return bool((await cluster.task("Shop", "nightly"))["State"] == "Running")

        await cluster.wait_until(runs, "the task to run")
        highest: list[int] = []
        async with beside(writer.run(), most_memory(pids(cluster)["A"], highest)):
            await cluster.wait_until(lambda: len(writer.etags) > 3, "the first writes")
            results = [(await back_up(cluster, id, full=full, database="Shop"))["Result"] for full in (True, False)]
            enough = len(writer.etags) + 3
            await cluster.wait_until(lambda: len(writer.etags) > enough, "writes after the backups")
        assert writer.etags[0][0] < results[0]["LastEtag"] < results[1]["LastEtag"] < writer.etags[-1][0]
        for number, made in enumerate(results):
            assert await restored(cluster, folder, made, f"Again{number}") == writer.at(made["LastEtag"])
        assert 0 < highest[-1] < MEMORY_BYTES_MAX
