"""A SQL ETL into PostgreSQL whose node is killed again and again ends with exactly the right rows."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap
from tests.postgres import table

KILLS = 5
BATCHES = 400
pytestmark = pytest.mark.postgres


@pytest.fixture
async def target() -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """The target: its database's URL and a connection."""
    async with table('"Survivors" ("Line" serial PRIMARY KEY, "Id" text, "Value" bigint)') as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_thousands_of_documents_and_five_kills_leave_exactly_the_right_rows(
    tmp_path: Path, target: tuple[str, asyncpg.Connection], count: int
) -> None:
    """Each document is two rows. The task's node is killed whenever a sixth more of them has arrived."""
    url, connection = target
    flags = ("--cluster.stabilization-time-sec", "0", "--tasks.batch-documents-max", str(count // BATCHES), *PATIENT)
    async with Cluster(tmp_path, "ABC", flags=flags) as cluster:
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
