"""The update of a Promotable by real nodes: its mentor is killed, and another one frozen, with documents on the way."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from raftnode.cli.local_cluster import free_ports
from tests.harness.cluster import PATIENT, Cluster, northwind
from tests.harness.holding_proxy import HoldingProxy
from tests.harness.runs import assert_no_overlap

FLAGS = ("--cluster.stabilization-time-sec", "0", *PATIENT)
OLD = "orders/10248-A"
GONE = "orders/10249-A"


class Filling:
    """Databases on A, B and C, to each of which D is added with B as its mentor. Documents reach D through a proxy."""

    def __init__(self, cluster: Cluster, proxy: HoldingProxy) -> None:
        self.cluster, self.proxy = cluster, proxy

    async def begin(self, database: str) -> None:
        """Northwind is on its way to D, in a request that is held."""
        await self.cluster.create_database(database, "ABC")
        await self.cluster.import_documents(database, northwind(), "B")
        for tag in "AC":
            await self.same(database, "B", tag)
        self.proxy.hold(f"POST /replication/{database}/documents".encode())
        await self.cluster.call("PUT", f"/admin/databases/node?name={database}&node=D&mentor=B")
        await self.cluster.wait_until(self.proxy.held.is_set, "B's request to be held")
        self.proxy.marker = None

    async def change(self, database: str) -> None:
        """A document that is on its way is changed, another one deleted, while B is away."""
        changed = {"Company": "changed", "@metadata": {"@collection": "Orders"}}
        await self.cluster.call("PUT", f"/databases/{database}/docs?id={OLD}", changed, "A")
        await self.cluster.call("DELETE", f"/databases/{database}/docs?id={GONE}", tag="C")

    async def filled(self, database: str) -> dict[str, Any]:
        """Waits until another node has made D a Member with all documents; these."""

        async def promoted() -> bool:
            return "D" in (await self.cluster.topology(database, "ACD"))["Members"]

        await self.cluster.wait_until(promoted, "D to be a Member")
        found = await self.same(database, "A", "D")
        assert found[OLD][1]["Company"] == "changed"
        assert GONE not in found
        assert len(found) == len(northwind()) - 1
        return found

    async def arrives(self) -> None:
        """What B had sent reaches D now."""
        self.proxy.release()
        await self.cluster.wait_until(lambda: self.proxy.answers, "the late request to be answered")

    async def documents(self, database: str, tag: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """A node's documents by id, each with its change vector."""
        path = f"/databases/{database}/docs?start=0&pageSize=5000"
        found = (await self.cluster.call("GET", path, tag=tag))["Results"]
        return {d["@metadata"]["@id"]: (d["@metadata"]["@change-vector"], d) for d in found}

    async def same(self, database: str, one: str, other: str) -> dict[str, Any]:
        """Waits until two nodes have the same versions of the same documents; these."""

        async def equal() -> dict[str, Any] | None:
            found = await self.documents(database, one)
            return found if found == await self.documents(database, other) else None

        result: dict[str, Any] = await self.cluster.wait_until(equal, f"{one} and {other} to have the same")
        return result


@pytest.fixture
async def filling(tmp_path: Path) -> AsyncIterator[Filling]:
    cluster = Cluster(tmp_path, "ABCD", flags=FLAGS)
    [behind] = free_ports(1)
    async with HoldingProxy(behind) as proxy:
        node = cluster.nodes["D"]
        node.flags, node.http_port = ("--http.port", str(behind)), int(proxy.url.rpartition(":")[2])
        async with cluster:
            yield Filling(cluster, proxy)


async def test_a_promotable_gets_everything_although_its_mentor_is_killed_or_frozen_in_the_middle(
    filling: Filling,
) -> None:
    """What the mentor had sent arrives after all that its successor has sent, and changes nothing."""
    cluster = filling.cluster
    await filling.begin("Killed")
    await cluster.kill("B")
    await filling.change("Killed")
    before = await filling.filled("Killed")
    await filling.arrives()
    assert await filling.documents("Killed", "D") == before
    await cluster.restart("B")
    assert await filling.same("Killed", "B", "D") == before

    await filling.begin("Frozen")
    await cluster.freeze("B")
    await filling.change("Frozen")
    before = await filling.filled("Frozen")
    cluster.thaw("B")
    await filling.arrives()
    assert await filling.documents("Frozen", "D") == before
    assert await cluster.died("B") == -signal.SIGKILL
    await cluster.restart("B")
    for tag in "BC":
        assert await filling.same("Frozen", tag, "D") == before
    for database in ("killed", "frozen"):
        assert_no_overlap(cluster.runs(), [f"{database}/Update/d"])
