"""RavenDB ETL between two clusters of three while documents keep changing and its holder is killed and cut off again
and again: in the end every node of the destination has the last version of every document, and nothing else."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raftnode.foundation.http_client import HttpError
from tests.harness.cluster import PATIENT, Cluster, northwind
from tests.harness.runs import assert_no_overlap
from tests.partition.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

SOURCE, COPY = "Source", "Copy"
SEED = 9
BULK = 100
SETTLED_SEC = 300.0
PAGE = 5_000
TRANSFORMS = [
    {"Name": "as they are", "Collections": ["Items"], "Script": ""},
    {
        "Name": "parts",
        "Collections": ["Kits"],
        "Script": "for (const n of this.Parts) loadToParts({Kit: id(this), N: n})",
    },
]
FLAGS = (*PATIENT, "--cluster.stabilization-time-sec", "0")


class Beside(Cluster):
    """Another cluster in the network of a lab, at the places of its guests."""

    def __init__(self, lab: Lab, directory: Path, tags: str) -> None:
        flags = ("--security.unsecured-access-allowed", "private_network", *FLAGS)
        super().__init__(directory, tags, flags=flags)
        for node in self.nodes.values():
            lab.place(node)


class ChangingDocuments:
    """Documents that keep changing in the source, and what the destination has of them."""

    def __init__(self, source: Lab, destination: Cluster, documents: int) -> None:
        self.source, self.destination, self.documents = source, destination, documents
        self.random = random.Random(SEED)
        self.changes = 0
        self._versions = itertools.count(1)

    async def begin(self, *transforms: dict[str, Any]) -> None:
        """Both databases and the task."""
        await self.source.create_database(SOURCE, "ABC")
        await self.destination.create_database(COPY, "XYZ")
        urls = [self.destination.nodes[tag].url for tag in "XYZ"]
        string = {"Type": "Raven", "Name": "copy", "Database": COPY, "TopologyDiscoveryUrls": urls}
        await self.source.put_connection_string(SOURCE, string)
        etl = {"EtlType": "Raven", "Name": "copy", "ConnectionStringName": "copy", "Transforms": transforms}
        await self.source.put_etl(SOURCE, etl)

    def _command(self, number: int, *, first: bool) -> dict[str, Any]:
        kit = number % 10 == 0
        id = f"{'kits' if kit else 'items'}/{number}"
        if not first and self.random.random() < 0.1:
            return {"Type": "DELETE", "Id": id}
        version, parts = next(self._versions), self.random.randrange(4)
        body = {"Parts": [version * 10 + n for n in range(parts)]} if kit else {"Version": version}
        return {"Type": "PUT", "Id": id, "Document": body | {"@metadata": {"@collection": "Kits" if kit else "Items"}}}

    async def fill(self) -> None:
        """Every document once."""
        for first in range(0, self.documents, 10 * BULK):
            numbers = range(first, min(first + 10 * BULK, self.documents))
            commands = [self._command(number, first=True) for number in numbers]
            await self.source.call("POST", f"/databases/{SOURCE}/bulk_docs", {"Commands": commands}, "A")

    async def change(self) -> None:
        """Documents change, at whatever node of the source lives, until this is cancelled."""
        while True:
            numbers = self.random.sample(range(self.documents), BULK)
            commands = [self._command(number, first=False) for number in numbers]
            with contextlib.suppress(HttpError):
                tag = self.random.choice(self.source.living())
                await self.source.call("POST", f"/databases/{SOURCE}/bulk_docs", {"Commands": commands}, tag)
                self.changes += BULK
            await asyncio.sleep(0.02)

    async def goes_on(self, holder_was: str | None) -> None:
        """Waits until another run than that node's carries documents."""
        before = await self.processed()

        async def more() -> bool:
            holder = await self.source.holder(SOURCE, "copy", self.connected(holder_was))
            return holder not in (None, holder_was) and await self.processed() > before

        await self.source.wait_until(more, "the task to go on", 120)

    def connected(self, but: str | None) -> list[str]:
        return [tag for tag in self.source.living() if tag != but]

    async def processed(self) -> int:
        task = await self.source.task(SOURCE, "copy")
        return int((task["Progress"] or {"Processed": 0})["Processed"])

    async def holder(self) -> str:
        return str(await self.source.wait_until(lambda: self.source.holder(SOURCE, "copy"), "a holder"))

    async def kill(self) -> None:
        """The holder is killed in the middle, and comes back."""
        tag = await self.holder()
        await self.source.kill(tag)
        await self.goes_on(tag)
        await self.source.restart(tag)

    async def cut_off(self) -> None:
        """The holder is cut off from everybody, the destination included, until the task has moved."""
        tag = await self.holder()
        self.source.network.isolate(tag)
        await self.goes_on(tag)
        self.source.network.heal()
        if self.source.ended(tag) is not None:
            await self.source.restart(tag)

    async def settled(self) -> None:
        """Waits until all nodes of both clusters have what they must."""
        await self.source.wait_until(
            lambda: self._same(self.source, SOURCE, "ABC"), "the source to be at rest", SETTLED_SEC
        )
        await self.source.wait_until(self._caught_up, "the task to be through", SETTLED_SEC)
        await self.destination.wait_until(
            lambda: self._same(self.destination, COPY, "XYZ"), "the destination to be at rest", SETTLED_SEC
        )
        expected = self.expected(await self.content(self.source, SOURCE, "A"))
        for tag in "XYZ":
            wrong: set[tuple[str, str]] = set()

            async def there(tag: str = tag, wrong: set[tuple[str, str]] = wrong) -> bool:
                seen = self.seen(await self.content(self.destination, COPY, tag))
                wrong.clear()
                wrong.update(seen ^ expected)
                return not wrong

            try:
                await self.destination.wait_until(
                    there, f"{tag} to have the last versions and nothing else", SETTLED_SEC
                )
            except AssertionError as error:
                raise AssertionError(f"{len(wrong)} differ, such as {sorted(wrong)[:6]}: {error}") from None

    async def _caught_up(self) -> bool:
        task = await self.source.task(SOURCE, "copy")
        return bool(task["State"] == "Running" and task["Behind"] == 0 and not task["Error"])

    async def _same(self, cluster: Cluster, database: str, tags: str) -> bool:
        stats = [await cluster.call("GET", f"/databases/{database}/stats", tag=tag) for tag in tags]
        return len({(s["CountOfDocuments"], s["DatabaseChangeVector"]) for s in stats}) == 1

    async def content(self, cluster: Cluster, database: str, tag: str) -> list[dict[str, Any]]:
        """All documents of a node."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"/databases/{database}/docs?startsWith=&start={len(found)}&pageSize={PAGE}"
            page = (await cluster.call("GET", path, tag=tag))["Results"]
            found += page
            if len(page) < PAGE:
                return found

    def expected(self, source: list[dict[str, Any]]) -> set[tuple[str, str]]:
        """What must be at the destination, but for the ends of ids that it gives itself."""
        found = set()
        for document in source:
            id = document["@metadata"]["@id"]
            if "Parts" in document and document["@metadata"]["@collection"] == "Kits":
                found |= {(f"{id}/parts/", json.dumps({"Kit": id, "N": n})) for n in document["Parts"]}
            else:
                found.add((id, _plain(document)))
        return found

    def seen(self, copy: list[dict[str, Any]]) -> set[tuple[str, str]]:
        """The same of the destination. A document that is there twice is seen, as its part is longer then."""
        found: dict[tuple[str, str], int] = {}
        for document in copy:
            metadata = document["@metadata"]
            id = metadata["@id"].rpartition("/")[0] + "/" if metadata["@collection"] == "Parts" else metadata["@id"]
            key = id, _plain(document)
            found[key] = found.get(key, 0) + 1
        return {(id, text if count == 1 else f"{text} {count} times") for (id, text), count in found.items()}


def _plain(document: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in document.items() if key != "@metadata"})


@asynccontextmanager
async def scene(directory: Path, documents: int) -> AsyncIterator[ChangingDocuments]:
    async with Lab(directory / "source", "ABC", guests="XYZ", flags=FLAGS) as source:
        async with Beside(source, directory / "destination", "XYZ") as destination:
            yield ChangingDocuments(source, destination, documents)
        assert_no_overlap(source.runs(), [])


@pytest.mark.parametrize(
    ("documents", "kills", "cuts"), [(1_000, 1, 1), pytest.param(100_000, 20, 5, marks=pytest.mark.long)]
)
async def test_whatever_happens_to_its_holder_the_last_versions_arrive(
    tmp_path: Path, documents: int, kills: int, cuts: int
) -> None:
    """Northwind travels first."""
    async with scene(tmp_path, documents) as made:
        await made.begin(*TRANSFORMS, *NORTHWIND)
        await made.source.import_documents(SOURCE, northwind(), "B")
        await made.settled()
        await made.fill()
        changing = asyncio.create_task(made.change())
        accidents = [made.kill] * kills + [made.cut_off] * cuts
        made.random.shuffle(accidents)
        for accident in accidents:
            await accident()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        assert made.changes > documents // 20, "documents changed all the while"
        await made.settled()


NORTHWIND = [
    {
        "Name": "northwind",
        "Collections": sorted({str(d["@metadata"]["@collection"]) for d in northwind()} - {"@hilo"}),
        "Script": "",
    }
]
