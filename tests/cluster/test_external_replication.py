"""External replication between clusters of real nodes."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import PATIENT, Cluster, northwind

pytestmark = pytest.mark.timeout(240)


class Side:
    """A cluster with a database, which may replicate to another side's."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster, self.database = cluster, database

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.cluster.nodes.values()]

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

    async def delete(self, *ids: str) -> None:
        """Deletes documents."""
        commands = [{"Type": "DELETE", "Id": id} for id in ids]
        await self.cluster.call("POST", f"/databases/{self.database}/bulk_docs", {"Commands": commands})

    async def documents(self, tag: str | None = None) -> dict[str, tuple[str, Any]]:
        """Every document on a node by id: its change vector and content."""
        path = f"/databases/{self.database}/docs?pageSize=10000"
        results = (await self.cluster.call("GET", path, tag=tag))["Results"]
        found = {}
        for document in results:
            metadata = document.pop("@metadata")
            found[metadata["@id"]] = (metadata["@change-vector"], document)
        return found

    async def same_as(self, other: "Side") -> dict[str, tuple[str, Any]]:
        """Waits until all nodes of both sides hold the same documents in the same versions; these."""

        async def same() -> dict[str, tuple[str, Any]] | None:
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
        here, there = Side(one, "Shop"), Side(two, "Copy")
        await one.create_database("Shop", "A")
        await two.create_database("Copy", "B")
        documents = northwind()
        await one.import_documents("Shop", documents, "A")
        out = await here.replicate_to(there)
        assert len(await here.same_as(there)) == len(documents)
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
