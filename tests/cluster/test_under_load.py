"""The cluster changes under load: every task ends where `why` says, the targets are right, no call fails for good."""

import asyncio
import itertools
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from raftnode.foundation.http_client import HttpError, HttpFailed
from tests.harness.cluster import Cluster
from tests.harness.runs import assert_no_overlap
from tests.postgres import table

pytestmark = pytest.mark.postgres

DATABASE = "Load"
WRITERS = 3
TRY_SEC = 3.0
CALL_SEC = 40.0
PAUSE_SEC = 0.03
WHILE_DOCUMENTS = 40
"""How many documents, at least, are written while each of the changes is under way or just done."""
FLAGS = (
    *("--cluster.lease-ms", "2400", "--cluster.task-stop-timeout-ms", "1000"),
    *("--cluster.time-before-moving-to-rehab-ms", "4000", "--cluster.stabilization-time-sec", "0"),
    *("--cluster.time-before-adding-replica-sec", "1", "--cluster.time-before-rotating-preferred-node-sec", "1"),
)
"""Leases that outlast the freeze that makes the preferred node a bad one; whoever is lost is soon replaced."""


class UserProgram:
    """One user's program: it knows the group's nodes, asks another one when one fails, and gives up in the end."""

    def __init__(self, cluster: Cluster) -> None:
        self._http = cluster.http
        self._seeds = [node.url for node in cluster.nodes.values()]
        self._urls = list(self._seeds)
        self.gave_up: list[str] = []
        self.tries = 0

    async def call(self, method: str, path: str, body: Any) -> None:
        """The request, until a node answers it."""
        last: HttpError | None = None
        try:
            async with asyncio.timeout(CALL_SEC):
                while True:
                    for url in self._urls:
                        self.tries += 1
                        try:
                            await self._http.request(method, url + path, json=body, timeout_s=TRY_SEC)
                            return
                        except HttpError as error:
                            last = error
                            # What is wrong with the request itself is wrong on every node.
                            if isinstance(error, HttpFailed) and error.status in (400, 405, 409, 413):
                                break
                    await self._refresh()
                    await asyncio.sleep(PAUSE_SEC)
        except TimeoutError:
            self.gave_up.append(f"{method} {path}: {last}")

    async def _refresh(self) -> None:
        """Learns who is in the group, from whoever knows."""
        for url in [*self._urls, *self._seeds]:
            try:
                answer = await self._http.request("GET", f"{url}/topology?name={DATABASE}", timeout_s=1.0)
            except HttpError:
                continue
            members = [node["Url"] for node in answer.json()["Nodes"] if node["ServerRole"] == "Member"]
            if members:
                self._urls = members
                return


class Load:
    """Writers of documents and of commands, which go on until they are told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        self.clients = [UserProgram(cluster) for _ in range(WRITERS)]
        self.documents: dict[str, int] = {}
        self.commands = 0
        self._numbers = itertools.count()
        self._stopping = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """The load, for as long as the block takes; every call that was begun is finished."""
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self.clients):
                group.create_task(self._write(number, client))
            try:
                yield
            finally:
                self._stopping = True

    async def _write(self, number: int, client: UserProgram) -> None:
        while not self._stopping:
            n = next(self._numbers)
            document = {"Value": n, "@metadata": {"@collection": "Items"}}
            put = {"Type": "PUT", "Id": f"items/{n}", "ChangeVector": None, "Document": document}
            # A node that dies takes along what nobody else has: one more must have it before it counts as written.
            wait = "numberOfReplicasToWaitFor=1&waitForReplicasTimeout=00:00:02"
            await client.call("POST", f"/databases/{DATABASE}/bulk_docs?{wait}", {"Commands": [put]})
            self.documents[f"items/{n}"] = n
            if n % 4 == 0:
                index = {"Name": f"i{number}", "Maps": [f"from x in docs select x.F{n}"]}
                await client.call("PUT", f"/databases/{DATABASE}/admin/indexes", {"Indexes": [index]})
                self.commands += 1
            await asyncio.sleep(PAUSE_SEC)

    def has_written(self, count: int) -> bool:
        """Whether that many documents were acknowledged."""
        return len(self.documents) >= count


@pytest.fixture
async def postgres() -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """The target: its database's URL and a connection."""
    async with table('"Items" ("Id" text, "Value" bigint)') as made:
        yield made


@pytest.mark.timeout(180)
async def test_under_load_the_cluster_grows_loses_rotates_drains_and_reelects_and_nobody_notices(
    tmp_path: Path, postgres: tuple[str, asyncpg.Connection]
) -> None:
    url, connection = postgres
    async with Cluster(tmp_path, "ABCDE", flags=FLAGS) as cluster:
        await prepare(cluster, url)
        load = Load(cluster)
        async with load.going_on():
            for change in (leads_another, joins, is_rotated, is_replaced, is_drained, leads_another):
                enough = partial(load.has_written, len(load.documents) + WHILE_DOCUMENTS)
                await change(cluster)
                await cluster.wait_until(enough, f"{WHILE_DOCUMENTS} documents more")
                await settled(cluster)
        assert [line for client in load.clients for line in client.gave_up] == []
        await cluster.wait_until(partial(complete, tmp_path, connection, load.documents), "the targets to be right", 60)
        await cluster.wait_until(partial(all_copies_equal, cluster, load.documents), "every copy to be whole", 60)
        await settled(cluster)
        tries = sum(client.tries for client in load.clients)
        print(f"{len(load.documents)} documents, {load.commands} commands in {tries} tries")
        assert_no_overlap(cluster.runs(), ["lite", "great"])


async def prepare(cluster: Cluster, url: str) -> None:
    """A database on A, B and C that keeps its copies, and two tasks that carry its documents away."""
    await cluster.create_database(DATABASE, "ABC")
    await cluster.call("POST", f"/admin/databases/dynamic-node-distribution?name={DATABASE}&enable=true")
    with sqlite3.connect(cluster.directory / "lite.db") as connection:
        connection.execute('CREATE TABLE "Items" ("Id" text, "Value" integer)')
    file = f"Data Source={cluster.directory / 'lite.db'}"
    for name, factory, target in (("lite", "System.Data.SQLite", file), ("great", "Npgsql", url)):
        string = {"Name": name, "Type": "Sql", "FactoryName": factory, "ConnectionString": target}
        await cluster.put_connection_string(DATABASE, string)
        await cluster.put_etl(DATABASE, etl(name))


def etl(name: str) -> dict[str, Any]:
    """A task; its connection string has its name, and its table no key: what comes twice shows."""
    return {
        "EtlType": "Sql",
        "Name": name,
        "ConnectionStringName": name,
        "SqlTables": [{"TableName": "Items", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
        "Transforms": [{"Name": "t", "Collections": ["Items"], "Script": "loadToItems({Value: this.Value});"}],
    }


# the changes


async def leads_another(cluster: Cluster) -> None:
    """The leader hands over to somebody who does not prefer anything: not to the group's first node."""
    before = await cluster.leader()
    preferred = (await cluster.topology(DATABASE))["Members"][0]
    successor = next(tag for tag in sorted(cluster.living(), reverse=True) if tag not in (before, preferred))
    answer = await cluster.call("POST", f"/admin/cluster/reelect?nodeTag={successor}", tag=before)
    assert answer["Leader"] == successor


async def joins(cluster: Cluster) -> None:
    """A sixth node joins and gets a copy."""
    await cluster.add("F")
    await cluster.call("PUT", f"/admin/databases/node?name={DATABASE}&node=F")
    await members(cluster, lambda tags: "F" in tags and len(tags) == 4, "F to be a Member")


async def is_rotated(cluster: Cluster) -> None:
    """The preferred node stands still for so long that another one is preferred, and not so long that it is lost."""
    preferred = (await cluster.topology(DATABASE))["Members"][0]
    others = set(cluster.living()) - {preferred}
    await cluster.freeze(preferred)

    async def another() -> bool:
        return bool((await cluster.topology(DATABASE, others))["Members"][0] != preferred)

    try:
        await cluster.wait_until(another, f"another than {preferred} to be preferred")
    finally:
        cluster.thaw(preferred)
    answer = await cluster.call("GET", f"/admin/cluster/observer/decisions?database={DATABASE}", tag=min(others))
    said = [entry["Message"] for entry in answer["ObserverLog"]]
    assert any(sentence.startswith(f"{preferred} is no longer the preferred node") for sentence in said), said
    await members(cluster, lambda tags: preferred in tags and len(tags) == 4, f"{preferred} among the Members")


async def is_replaced(cluster: Cluster) -> None:
    """A Member dies for good, and another node takes its place."""
    before = (await cluster.topology(DATABASE))["Members"]
    dead = before[-1]
    await cluster.kill(dead, signal.SIGKILL)
    await members(cluster, lambda tags: dead not in tags and len(tags) == len(before), f"{dead} to be replaced")
    await cluster.call("DELETE", f"/admin/cluster/node?nodeTag={dead}&force=true")


async def is_drained(cluster: Cluster) -> None:
    """A node that holds a task is drained, leaves the cluster, and is switched off."""
    view = await settled(cluster)
    leaving = view["lite"]
    asked = next(tag for tag in cluster.living() if tag != leaving)
    await cluster.call("DELETE", f"/admin/cluster/node?nodeTag={leaving}", tag=asked)
    await members(cluster, lambda tags: leaving not in tags, f"{leaving} to be out of the group", among=asked)
    await cluster.kill(leaving, signal.SIGTERM)
    await members(cluster, lambda tags: len(tags) >= 3, "three Members")


# what must hold


async def members(cluster: Cluster, condition: Any, what: str, among: str | None = None) -> None:
    """Waits until the Members are as wanted."""

    async def wanted() -> bool:
        return bool(condition((await cluster.topology(DATABASE, among))["Members"]))

    await cluster.wait_until(wanted, what, 60)


async def settled(cluster: Cluster) -> dict[str, str]:
    """Waits until each task is held by the node that `why` names, on every living node; who that is, by task."""

    async def as_why_says() -> dict[str, str]:
        found: dict[str, str] = {}
        for tag, name in itertools.product(cluster.living(), ("lite", "great")):
            answer = await cluster.call("GET", f"/databases/{DATABASE}/tasks/{name}/why", tag=tag)
            if answer["ClaimState"] != "Held" or answer["Holder"] != answer["Placement"]["Node"]:
                return {}
            if found.setdefault(name, answer["Holder"]) != answer["Holder"]:
                return {}
        return found

    found: dict[str, str] = await cluster.wait_until(as_why_says, "every task to be where `why` says", 60)
    return found


async def complete(directory: Path, connection: asyncpg.Connection, documents: dict[str, int]) -> bool:
    """Whether both targets hold each document once, and nothing else."""
    wanted = sorted(documents.items())
    with sqlite3.connect(directory / "lite.db") as lite:
        rows = lite.execute('SELECT "Id", "Value" FROM "Items"').fetchall()
    great = [tuple(row) for row in await connection.fetch('SELECT "Id", "Value" FROM "Items"')]
    return sorted(rows) == wanted and sorted(great) == wanted


async def all_copies_equal(cluster: Cluster, documents: dict[str, int]) -> bool:
    """Whether each node of the group has every document that was acknowledged, and no other."""
    for tag in (await cluster.topology(DATABASE))["Members"]:
        stats = await cluster.call("GET", f"/databases/{DATABASE}/stats", tag=tag)
        if stats["CountOfDocuments"] != len(documents):
            return False
    return True
