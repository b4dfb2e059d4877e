"""A thousand light tasks and more on real nodes: one that loses its lease stops them all in time, a lost leader's are
taken over, and no watchdog kills anybody on the way."""

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.harness import hostile_tasks
from tests.harness.cluster import PATIENT as SHORT
from tests.harness.cluster import Cluster, northwind
from tests.harness.plugins import install

DATABASE = "Many"
PUT_AT_ONCE = 16
MANY = 900
PATIENT = (
    *("--cluster.lease-ms", "3000"),
    *("--cluster.task-stop-timeout-ms", "4000"),
    *("--cluster.time-before-moving-to-rehab-ms", "8000"),
)
"""Time for machines with other work; docs/guarantees.md says how many bodies one without stops in a second."""


def a_cluster(directory: Path, tags: Sequence[str] = "ABC", flags: Sequence[str] = PATIENT) -> Cluster:
    """Nodes with the plug-in. The journal of runs keeps every line."""
    kept = ("--tasks.run-journal-bytes-max", str(1 << 30), "--log.format", "json")
    cluster = Cluster(directory, tags, profile="default", flags=(*flags, *kept))
    found = install(directory / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    for node in cluster.nodes.values():
        node.prefix = (*node.prefix, *found)
    return cluster


async def put_tasks(cluster: Cluster, count: int, mentor: str | None = None) -> None:
    """Tasks that only rest, all with that mentor."""
    places = asyncio.Semaphore(PUT_AT_ONCE)

    async def put(n: int) -> None:
        async with places:
            await cluster.put_etl(DATABASE, {"EtlType": "Hostile", "Name": f"t{n}", "MentorNode": mentor})

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(put(n))


class Runs:
    """How many runs of a node have begun and not ended, by its journal, which is read on."""

    def __init__(self, cluster: Cluster, tag: str) -> None:
        self._file = cluster.nodes[tag].data_dir / "runs.jsonl"
        self._offset = 0
        self._counted: Counter[str] = Counter()

    def live(self) -> int:
        if not self._file.exists():
            return 0
        with self._file.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._counted[json.loads(line)["event"]] += 1
        return self._counted["start"] - self._counted["end"]


def stopping_ms(cluster: Cluster, tag: str) -> float:
    """From the last end of the node's lease to the last end of a body."""
    said = map(json.loads, cluster.nodes[tag].log_file.read_text(encoding="utf-8").splitlines())
    lapsed = [line["timestamp"] for line in said if line.get("lease_held") is False][-1]
    with (cluster.nodes[tag].data_dir / "runs.jsonl").open(encoding="utf-8") as file:
        ended = [line["at"] for line in map(json.loads, file) if line["event"] == "end"][-1]
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(lapsed)).total_seconds() * 1000


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("count", "flags"),
    [
        pytest.param(1000, PATIENT, id="patient"),
        pytest.param(5000, PATIENT, id="5000, patient", marks=pytest.mark.long),
        pytest.param(5000, (), id="5000, default", marks=pytest.mark.long),
    ],
)
async def test_a_node_that_loses_its_lease_stops_a_thousand_bodies_and_more_in_time(
    tmp_path: Path, count: int, flags: Sequence[str]
) -> None:
    async with a_cluster(tmp_path, flags=flags) as cluster:
        await cluster.create_database(DATABASE, "ABC")
        await put_tasks(cluster, count, mentor="A")
        runs = Runs(cluster, "A")
        await cluster.wait_until(lambda: runs.live() == count, "A to run every task", timeout_sec=120)
        await cluster.kill("B")
        await cluster.kill("C")
        await cluster.wait_until(lambda: runs.live() == 0, "every body of A to end", timeout_sec=60)
        print(f"{count} bodies ended within {stopping_ms(cluster, 'A'):.0f} ms of the end of the lease")
        assert cluster.ended("A") is None, "A was killed by its watchdog"
        cluster.start("B")
        cluster.start("C")
        await cluster.wait_until(lambda: runs.live() == count, "A to run every task again", timeout_sec=120)
        assert cluster.ended("A") is None, "A was killed by its watchdog"


@pytest.mark.timeout(400)
async def test_a_node_that_loses_its_lease_stops_dozens_of_sql_tasks_at_work_in_time(tmp_path: Path) -> None:
    count = 40
    async with Cluster(tmp_path, "ABC", flags=SHORT) as cluster:
        await cluster.create_database(DATABASE, "ABC")
        for n in range(count):
            file = tmp_path / f"target{n}.db"
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("CREATE TABLE Orders (Id text, Company text)")
            string = {"Name": f"s{n}", "Type": "Sql", "FactoryName": "System.Data.SQLite"}
            await cluster.put_connection_string(DATABASE, string | {"ConnectionString": f"Data Source={file}"})
            await cluster.put_etl(DATABASE, sql_etl(n))
        runs = Runs(cluster, "A")
        await cluster.wait_until(lambda: runs.live() == count, "A to run every task", timeout_sec=60)
        orders = [d for d in northwind() if d["@metadata"]["@collection"] == "Orders"]
        await cluster.import_documents(DATABASE, orders, "A")
        await cluster.kill("B")
        await cluster.kill("C")
        await cluster.wait_until(lambda: runs.live() == 0, "every body of A to end", timeout_sec=60)
        cluster.start("B")
        cluster.start("C")
        await cluster.wait_until(lambda: runs.live() == count, "A to run every task again", timeout_sec=120)
        assert cluster.ended("A") is None, "A was killed by its watchdog"


def sql_etl(n: int) -> dict[str, Any]:
    """A task of A's with a target of its own."""
    return {
        "EtlType": "Sql", "Name": f"orders{n}", "ConnectionStringName": f"s{n}", "MentorNode": "A",
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company})"}],
    }  # fmt: skip


@pytest.mark.timeout(400)
async def test_the_loss_of_a_leader_with_many_tasks_on_three_nodes_settles_without_watchdog_kills(
    tmp_path: Path,
) -> None:
    async with a_cluster(tmp_path) as cluster:
        await cluster.create_database(DATABASE, "ABC")
        await put_tasks(cluster, MANY)
        runs = {tag: Runs(cluster, tag) for tag in "ABC"}
        await cluster.wait_until(lambda: sum(r.live() for r in runs.values()) == MANY, "all to run", timeout_sec=120)
        leader = await cluster.leader()
        await cluster.kill(leader)
        left = [tag for tag in "ABC" if tag != leader]
        await cluster.wait_until(
            lambda: sum(runs[t].live() for t in left) == MANY, "the two to run all", timeout_sec=120
        )
        assert [cluster.ended(tag) for tag in left] == [None, None], "a watchdog has killed"
