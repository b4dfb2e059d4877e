"""A SQL ETL into PostgreSQL whose node is killed again and again ends with exactly the right rows."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.harness.cluster import Cluster
from tests.harness.runs import assert_no_overlap
from tests.postgres import server

KILLS = 5
pytestmark = pytest.mark.postgres


@pytest.fixture
async def target() -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """A table of its own in PostgreSQL: the URL and a connection."""
    with server() as url:
        connection = await asyncpg.connect(url)
        await connection.execute('DROP TABLE IF EXISTS "Survivors"; DROP TABLE IF EXISTS raftnode_tasks')
        await connection.execute('CREATE TABLE "Survivors" ("Line" serial PRIMARY KEY, "Id" text, "Value" bigint)')
        try:
            yield url, connection
        finally:
            await connection.execute('DROP TABLE "Survivors"; DROP TABLE IF EXISTS raftnode_tasks')
            await connection.close()


async def test_ten_thousand_documents_and_five_kills(tmp_path: Path, target: tuple[str, asyncpg.Connection]) -> None:
    await carried_once(tmp_path, target, 10_000)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_hundred_thousand_documents_and_five_kills(
    tmp_path: Path, target: tuple[str, asyncpg.Connection]
) -> None:
    await carried_once(tmp_path, target, 100_000)


async def carried_once(directory: Path, target: tuple[str, asyncpg.Connection], count: int) -> None:
    """Carries that many documents, each two rows, and kills the task's node whenever a sixth more has arrived."""
    url, connection = target
    batch = str(max(50, count // 400))
    flags = ("--cluster.stabilization-time-sec", "0", "--tasks.batch-documents-max", batch)
    async with Cluster(directory, "ABC", flags=flags) as cluster:
        await cluster.create_database("Survival", "ABC")
        for first in range(0, count, 5000):
            await cluster.import_documents("Survival", documents(first, min(first + 5000, count)), "A")
        await replicated(cluster, count)
        string = {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": url}
        await cluster.put_connection_string("Survival", string)
        await cluster.put_etl("Survival", ETL)
        killed = []
        for number in range(1, KILLS + 1):
            goal = number * count // (KILLS + 1)

            async def arrived(goal: int = goal) -> bool:
                return bool(await connection.fetchval('SELECT count(*) FROM "Survivors"') >= 2 * goal)

            await cluster.wait_until(arrived, f"{goal} documents in the target", 120)
            holder = await cluster.wait_until(lambda: cluster.holder("Survival", "survivors"), "somebody to hold it")
            await cluster.kill(holder)
            killed.append(await connection.fetchval('SELECT count(*) FROM "Survivors"'))
            await cluster.restart(holder)
        assert killed[-1] < 2 * count, "the last kill must come before the end"

        async def complete() -> bool:
            return bool(await connection.fetchval('SELECT count(*) FROM "Survivors"') >= 2 * count)

        await cluster.wait_until(complete, "every document in the target", 120)
        figures = await connection.fetchrow(
            'SELECT count(*), count(DISTINCT "Id"), count(DISTINCT ("Id", "Value")), sum("Value") FROM "Survivors"'
        )
        assert figures is not None
        assert tuple(figures) == (2 * count, count, 2 * count, 2 * sum(range(count)) + count)
        assert_no_overlap(cluster.runs(), ["survivors"])


async def replicated(cluster: Cluster, count: int) -> None:
    """Waits until every node has all documents."""
    for tag in "ABC":

        async def there(tag: str = tag) -> bool:
            stats = await cluster.call("GET", "/databases/Survival/stats", tag=tag)
            return bool(stats["CountOfDocuments"] == count)

        await cluster.wait_until(there, f"{count} documents on {tag}", 120)


def documents(first: int, end: int) -> list[dict[str, Any]]:
    """Documents of those numbers."""
    return [{"Value": n, "@metadata": {"@id": f"items/{n}", "@collection": "Items"}} for n in range(first, end)]


ETL = {
    "EtlType": "Sql",
    "Name": "survivors",
    "ConnectionStringName": "target",
    "SqlTables": [{"TableName": "Survivors", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
    "Transforms": [
        {
            "Name": "t",
            "Collections": ["Items"],
            "Script": "loadToSurvivors({Value: this.Value}); loadToSurvivors({Value: this.Value + 1});",
        }
    ],
}
