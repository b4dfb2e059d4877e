"""External replication between clusters of real nodes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.cluster import PATIENT, Cluster, northwind
from tests.harness.runs import assert_no_overlap
from tests.harness.slow_road import slow_road

pytestmark = pytest.mark.timeout(240)
PAGE = 10_000


class Side:
    """A cluster with a database, which may replicate to another side's."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster, self.database = cluster, database
        self.urls = [node.url for node in cluster.nodes.values()]

    async def create(self, members: str) -> "Side":
        """Makes the database."""
        await self.cluster.create_database(self.database, members)
        return self

    async def replicate_to(self, other: "Side", **more: Any) -> int:
        """Adds the connection string and the task; its id."""
        string = {
            "Name": other.database,
            "Type": "Raven",
            "Database": other.database,
            "TopologyDiscoveryUrls": other.urls,
        }
        await self.cluster.put_connection_string(self.database, string)
        watcher = {"ConnectionStringName": other.database, "Name": f"to {other.database}", **more}
        path = f"/databases/{self.database}/admin/tasks/external-replication"
        answer = await self.cluster.call("POST", path, {"Watcher": watcher})
        return int(answer["TaskId"])

    async def write(self, first: int, end: int, value: str = "", tag: str = "A") -> None:
        """Documents of those numbers."""
        documents = [
            {"Value": value, "@metadata": {"@id": f"items/{n}", "@collection": "Items"}} for n in range(first, end)
        ]
        await self.cluster.import_documents(self.database, documents, tag)

    async def delete(self, *ids: str, tag: str | None = None) -> None:
        """Deletes documents."""
        commands = [{"Type": "DELETE", "Id": id} for id in ids]
        await self.cluster.call("POST", f"/databases/{self.database}/bulk_docs", {"Commands": commands}, tag)

    async def documents(self, tag: str | None = None) -> dict[str, tuple[str, Any]]:
        """Every document on a node by id: its change vector and content."""
        found: dict[str, tuple[str, Any]] = {}
        while True:
            path = f"/databases/{self.database}/docs?start={len(found)}&pageSize={PAGE}"
            results = (await self.cluster.call("GET", path, tag=tag))["Results"]
            for document in results:
                metadata = document.pop("@metadata")
                found[metadata["@id"]] = (metadata["@change-vector"], document)
            if len(results) < PAGE:
                break
        return found

    async def count(self, tag: str) -> int:
        """How many documents a node has."""
        return int((await self.cluster.call("GET", f"/databases/{self.database}/stats", tag=tag))["CountOfDocuments"])

    async def same_as(self, other: "Side") -> dict[str, tuple[str, Any]]:
        """Waits until all nodes of both sides hold the same documents in the same versions; these."""

        async def same() -> dict[str, tuple[str, Any]] | None:
            # Reading all documents of all nodes is dear: only once their numbers are equal.
            counts = {await side.count(tag) for side in (self, other) for tag in side.cluster.living()}
            if len(counts) > 1:
                return None
            found = [await side.documents(tag) for side in (self, other) for tag in side.cluster.living()]
            return found[0] if all(one == found[0] for one in found) else None

        result: dict[str, tuple[str, Any]] = await self.cluster.wait_until(same, "both sides to hold the same")
        return result

    async def info(self, task_id: int) -> dict[str, Any]:
        """The task's info."""
        path = f"/databases/{self.database}/task?key={task_id}&type=Replication"
        answer: dict[str, Any] = await self.cluster.call("GET", path)
        return answer


async def test_northwind_travels_both_ways_and_nothing_is_sent_back(tmp_path: Path) -> None:
    async with (
        Cluster(tmp_path / "one", "A", flags=PATIENT) as one,
        Cluster(tmp_path / "two", "B", flags=PATIENT) as two,
    ):
        here, there = await Side(one, "Shop").create("A"), await Side(two, "Copy").create("B")
        later = await Side(two, "Later").create("B")
        documents = northwind()
        await one.import_documents("Shop", documents, "A")
        out = await here.replicate_to(there)
        assert len(await here.same_as(there)) == len(documents)
        # A second destination, in which all is what it was a while ago.
        await here.replicate_to(later, DelayReplicationFor="00:00:02")
        back = await there.replicate_to(here)
        await there.write(0, 5, "there", tag="B")
        await here.delete("orders/10248-A", "orders/10249-A")
        await here.write(5, 10, "here")
        assert len(await here.same_as(there)) == len(documents) + 8

        async def told() -> tuple[Any, ...] | None:
            infos = [await here.info(out), await there.info(back)]
            if any(info["Behind"] != 0 or info["LastSentEtag"] != info["LastDatabaseEtag"] for info in infos):
                return None
            return tuple(info["Run"]["Info"]["Processed"] for info in infos)

        assert await one.wait_until(told, "both tasks to be through") == (len(documents) + 2 + 5, 5)
        info = await here.info(out)
        assert info["DestinationUrl"] == two.nodes["B"].url
        assert info["TaskConnectionStatus"] == "Active"
        assert info["LastAcceptedChangeVectorFromDestination"] == info["SourceDatabaseChangeVector"]
        await two.kill("B")
        await here.write(10, 15, "meanwhile")

        async def waits() -> bool:
            info = await here.info(out)
            return (info["TaskConnectionStatus"], "of database 'Copy'" in (info["Error"] or "")) == ("Reconnect", True)

        await one.wait_until(waits, "the task to say that the destination is gone")
        await two.restart("B")
        assert len(await here.same_as(there)) == len(documents) + 13
        assert len(await here.same_as(later)) == len(documents) + 13


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sides(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Cluster, Cluster]]:
    """A cluster of three and another of one, which forget tombstones at once."""
    directory = tmp_path_factory.mktemp("sides")
    flags = ("--cluster.stabilization-time-sec", "0", "--documents.tombstone-cleanup-sec", "1", *PATIENT)
    async with (
        Cluster(directory / "one", "ABC", flags=flags) as one,
        Cluster(directory / "two", "D", flags=flags) as two,
    ):
        yield one, two


@pytest.mark.asyncio(loop_scope="module")
async def test_a_node_that_is_killed_in_the_middle_leaves_nothing_out(sides: tuple[Cluster, Cluster]) -> None:
    one, two = sides
    here, there = await Side(one, "Killed").create("ABC"), await Side(two, "KilledCopy").create("D")
    for first in range(0, 10_000, 2000):
        await here.write(first, first + 2000)
    await here.replicate_to(there)

    async def some() -> int:
        stats = await two.call("GET", "/databases/KilledCopy/stats")
        return int(stats["CountOfDocuments"])

    await two.wait_until(some, "the first documents to arrive")
    holder = await one.wait_until(lambda: one.holder("Killed", "to KilledCopy"), "somebody to hold the task")
    await one.kill(holder)
    assert 0 < await some() < 10_000
    writer = one.living()[0]
    await here.write(10_000, 10_500, tag=writer)
    await here.delete("items/1", "items/10001")

    async def moved() -> bool:
        return await one.holder("Killed", "to KilledCopy") not in {None, holder}

    await one.wait_until(moved, "the task to move")
    assert len(await here.same_as(there)) == 10_498
    await one.restart(holder)
    assert len(await here.same_as(there)) == 10_498
    assert_no_overlap(one.runs(), ["to KilledCopy"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_frozen_nodes_last_request_that_arrives_after_all_changes_nothing(
    sides: tuple[Cluster, Cluster],
) -> None:
    """Its task has moved, what it sends is changed or deleted since, and the tombstones are forgotten on all sides."""
    one, two = sides
    here, there = await Side(one, "Frozen").create("ABC"), await Side(two, "FrozenCopy").create("D")
    async with slow_road(two.nodes["D"].url) as road:
        there.urls = [road.url]
        await here.write(0, 20, "old")
        road.held_path = "/documents"
        await here.replicate_to(there)
        await one.wait_until(lambda: road.held, "a batch to be on its way")
        holder = await one.holder("Frozen", "to FrozenCopy")
        assert holder is not None
        await one.freeze(holder)
        road.held_path = None
        writer = next(tag for tag in one.living() if tag != holder)
        await here.write(0, 10, "new", tag=writer)
        await here.delete(*(f"items/{n}" for n in range(5, 15)), tag=writer)

        async def forgotten() -> bool:
            stats = await two.call("GET", "/databases/FrozenCopy/stats")
            return (stats["CountOfDocuments"], stats["CountOfTombstones"]) == (10, 0)

        await two.wait_until(forgotten, "the successor to have sent all, and the tombstones to be forgotten")
        before = await there.documents()
        assert {content["Value"] for _, content in before.values()} == {"new", "old"}
        one.thaw(holder)
        [(status, answer)] = await road.arrive()
        assert status == 200, answer
        assert await there.documents() == before
        await one.died(holder)
        await one.restart(holder)
        assert await here.same_as(there) == before

        async def forgotten_here() -> bool:
            stats = [await one.call("GET", "/databases/Frozen/stats", tag=tag) for tag in "ABC"]
            return all(found["CountOfTombstones"] == 0 for found in stats)

        await one.wait_until(forgotten_here, "the source to forget the tombstones that the destination has")
    assert_no_overlap(one.runs(), ["to FrozenCopy"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_for_a_database_that_was_created_again_is_refused(sides: tuple[Cluster, Cluster]) -> None:
    one, two = sides
    here, there = await Side(one, "Again").create("ABC"), await Side(two, "AgainCopy").create("D")
    async with slow_road(two.nodes["D"].url) as road:
        there.urls = [road.url]
        await here.write(0, 5, "old")
        road.held_path = "/documents"
        task = await here.replicate_to(there)
        await one.wait_until(lambda: road.held, "a batch to be on its way")
        await one.call("DELETE", f"/databases/Again/admin/tasks?id={task}&type=Replication")
        await two.call("DELETE", "/admin/databases", {"DatabaseNames": ["AgainCopy"], "HardDelete": True})
        await there.create("D")
        [(status, answer)] = await road.arrive()
        assert status >= 400
        assert "which was here before" in answer
        assert await there.documents() == {}
