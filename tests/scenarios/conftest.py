"""One cluster of five real nodes for all tests of a module; each test has a database of its own."""

import itertools
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap

_numbers = itertools.count(1)


class Group:
    """A database on some nodes, and SQL ETL tasks that carry its documents into a SQLite file each."""

    def __init__(self, cluster: Cluster, name: str, members: str) -> None:
        self.cluster, self.name, self.members = cluster, name, members
        self.targets: dict[str, Path] = {}
        self.ids: dict[str, int] = {}

    async def create(self) -> "Group":
        """Makes the database."""
        await self.cluster.create_database(self.name, self.members)
        return self

    async def add_task(self, name: str, **more: Any) -> int:
        """A task with a target and a connection string of its own. Its table has no key: what comes twice shows."""
        target = self.targets[name] = self.cluster.directory / f"{self.name}-{name}.sqlite"
        with sqlite3.connect(target) as connection:
            connection.execute("CREATE TABLE Items (Id TEXT, Value INTEGER)")
        await self.put_string(name)
        self.ids[name] = await self.cluster.put_etl(self.name, etl(name, **more))
        return self.ids[name]

    async def put_string(self, name: str) -> None:
        """Writes the task's connection string (again)."""
        string = {"Name": name, "Type": "Sql", "FactoryName": "System.Data.SQLite"}
        await self.cluster.put_connection_string(
            self.name, string | {"ConnectionString": f"Data Source={self.targets[name]}"}
        )

    async def write(self, first: int, last: int, tag: str) -> None:
        """Documents of those numbers, through one node."""
        documents = [
            {"Value": n, "@metadata": {"@id": f"items/{n}", "@collection": "Items"}} for n in range(first, last + 1)
        ]
        await self.cluster.import_documents(self.name, documents, tag)

    def rows(self, name: str) -> list[int]:
        """What the task's target holds, in order."""
        with sqlite3.connect(self.targets[name]) as connection:
            return [value for (value,) in connection.execute("SELECT Value FROM Items ORDER BY Value")]

    async def has_rows(self, name: str, count: int) -> None:
        """Waits until the target holds exactly the items 1 to `count`."""
        wanted = list(range(1, count + 1))
        await self.cluster.wait_until(lambda: self.rows(name) == wanted, f"items 1 to {count} in {name}'s target")

    async def task(self, name: str) -> dict[str, Any]:
        """The task as `/status` shows it."""
        return await self.cluster.task(self.name, name)

    async def held_by(self, name: str, tag: str) -> dict[str, Any]:
        """Waits until the node holds the task; the task."""

        async def held() -> bool:
            task = await self.task(name)
            return bool(task["Holder"] == tag)

        await self.cluster.wait_until(held, f"{name} on {tag}")
        return await self.task(name)

    async def holders(self) -> dict[str, str]:
        """Who holds each task, once every task is held by whom placement names."""

        async def settled() -> bool:
            view = await self.cluster.view()
            tasks = view["Databases"][self.name]["Tasks"] if view else []
            return bool(tasks) and all(t["Holder"] and t["Holder"] == t["Placement"]["Node"] for t in tasks)

        await self.cluster.wait_until(settled, f"every task of {self.name} to be held by whom placement names")
        view = await self.cluster.view()
        return {t["TaskName"]: t["Holder"] for t in view["Databases"][self.name]["Tasks"]}

    async def held_elsewhere(self, names: set[str], tag: str) -> dict[str, int]:
        """Waits until others than this node hold these tasks; their epochs."""

        async def moved() -> dict[str, int]:
            view = await self.cluster.view()
            tasks = [t for t in view["Databases"][self.name]["Tasks"] if t["TaskName"] in names] if view else []
            epochs = {t["TaskName"]: int(t["Epoch"]) for t in tasks if t["Holder"] not in (None, tag)}
            return epochs if set(epochs) == names else {}

        epochs: dict[str, int] = await self.cluster.wait_until(moved, f"{sorted(names)} on others than {tag}")
        return epochs

    async def epochs(self) -> dict[str, int]:
        """The epoch of each task, once settled."""
        await self.holders()
        view = await self.cluster.view()
        return {t["TaskName"]: int(t["Epoch"]) for t in view["Databases"][self.name]["Tasks"]}

    async def is_member(self, tag: str) -> None:
        """Waits until the node is a Member."""

        async def member() -> bool:
            return tag in (await self.cluster.topology(self.name))["Members"]

        await self.cluster.wait_until(member, f"{tag} to be a Member of {self.name}")

    async def is_rehab(self, tag: str) -> None:
        """Waits until the node is in Rehab."""

        async def rehab() -> bool:
            return tag in (await self.cluster.topology(self.name))["Rehabs"]

        await self.cluster.wait_until(rehab, f"{tag} in Rehab of {self.name}")


def etl(name: str, **more: Any) -> dict[str, Any]:
    """An SQL ETL task in RavenDB's shape; its connection string has its name."""
    return {
        "EtlType": "Sql",
        "Name": name,
        "ConnectionStringName": name,
        "SqlTables": [{"TableName": "Items", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
        "Transforms": [{"Name": "t", "Collections": ["Items"], "Script": "loadToItems({Value: this.Value});"}],
        **more,
    }


@pytest.fixture(scope="module")
def stabilization_time_sec() -> int:
    """How long a node must be good before it becomes a Member; a module may say otherwise."""
    return 0


@pytest.fixture(scope="module")
def more_flags() -> tuple[str, ...]:
    """What else the nodes are told; a module may say something."""
    return ()


@pytest.fixture(scope="module")
def kind_of_cluster() -> type[Cluster]:
    """What the nodes are made as; a module may want another kind."""
    return Cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    stabilization_time_sec: int,
    more_flags: tuple[str, ...],
    kind_of_cluster: type[Cluster],
) -> AsyncIterator[Cluster]:
    """Five nodes, fast. At the end no two runs of a task may have overlapped."""
    flags = ("--cluster.stabilization-time-sec", str(stabilization_time_sec), *more_flags, *PATIENT)
    async with kind_of_cluster(tmp_path_factory.mktemp("cluster"), flags=flags) as five:
        yield five
        assert_no_overlap(five.runs(), [])


@pytest_asyncio.fixture(loop_scope="module")
async def group(cluster: Cluster) -> Group:
    """A database on A, B and E. Nodes that a failed test has left dead are started again, so that it fails alone."""
    for tag in set(cluster.nodes) - set(cluster.living()):
        cluster.start(tag)
    await cluster.formed()
    return await Group(cluster, f"Db{next(_numbers)}", "ABE").create()
