"""The example of docs/tasks/sql_etl.md, as it is written there, into a real MariaDB."""

import json
import re
from pathlib import Path

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.names import fold
from raftnode.record.model import Task
from tasks.kinds.sql_etl.task import KIND
from tasks.sinks.sql import connection_string as sql_connection
from tests.unit.tasks.conftest import BodyBench, SqlTarget, database, put_all, until
from tests.unit.tasks.kinds.test_sql_etl import running

PAGE = Path(__file__).parents[4] / "docs" / "tasks" / "sql_etl.md"


@pytest.mark.mysql
async def test_the_example_makes_the_rows_that_it_says(
    store: DocumentStore, mysql_target: SqlTarget, tmp_path: Path
) -> None:
    example = PAGE.read_text(encoding="utf-8").split("## Example", 1)[1].split("\n## ", 1)[0]
    document, string, task = map(json.loads, re.findall(r"(?ms)^```json\n(.*?)^```", example))
    [tables] = re.findall(r"(?ms)^```sql\n(.*?)^```", example)
    assert sql_connection.parse(string).hosts == (("db1", 3306), ("db2", 3306))
    await mysql_target.execute(*filter(str.strip, tables.split(";")))
    record = database(mysql_target)
    known = replace(record.connection_strings["target"], name=string["Name"])
    record = replace(record, connection_strings=Map({fold(string["Name"]): known}))
    definition = KIND.parse(task, record)
    bench = BodyBench(store, mysql_target, tmp_path)
    await put_all(store, [document])
    context = bench.context(
        Task(
            id=7,
            name=definition.name,
            kind=definition.kind,
            key=definition.key,
            connection_string=definition.connection_string,
            configuration=definition.configuration,
        ),
        10,
    )
    async with running(context) as body:
        await until(lambda: context.info.processed >= 1, body)
    await bench.shared.close()
    bench.journal.close()
    rows = await mysql_target.rows(
        "SELECT Orders.Id, Company, CAST(OrderedAt AS char), CAST(Total AS char), OrderId, Product, "
        "CAST(Quantity AS char) FROM Orders, OrderLines"
    )
    told = re.findall(r"`([^`]+)`", example.split("Then `Orders` has the row", 1)[1].split("RavenDB's clients")[0])
    assert [list(row) for row in rows] == [[value for value in told if value != "OrderLines"]]
