"""SQL targets behind PgBouncer, and targets of several hosts.

In transaction mode each transaction may be on another of the server's connections, and two are fewer than the tasks
have: whatever a connection remembered would show.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Task
from tasks.etl.refusals import DocumentRefusal
from tasks.kinds.registry import TaskFailed
from tasks.kinds.sql_etl.task import KIND
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql.connection_string import parse
from tasks.sinks.sql.fence import FencedTask, StaleEpoch
from tasks.sinks.sql.pool import SqlPool
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.sink import SqlSink
from tasks.sinks.sql.tables import SqlTable
from tests.pgbouncer import Mode, pgbouncer
from tests.unit.tasks.conftest import BodyBench, SqlTarget, database, northwind, put_all, until

pytestmark = pytest.mark.postgres

ORDERS = SqlTable("Orders", "Id")


def through(target: SqlTarget, port: int) -> SqlTarget:
    """The same database by another way."""
    text = target.configuration["ConnectionString"].replace(f":{target.connection.url.port}/", f":{port}/")
    return SqlTarget("through", target.configuration | {"ConnectionString": text})


@pytest.fixture(params=["session", "transaction"])
async def bounced(postgres_target: SqlTarget, request: pytest.FixtureRequest) -> AsyncIterator[SqlTarget]:
    mode: Mode = request.param
    await postgres_target.execute('CREATE TABLE "Orders" ("Id" varchar(50), "Company" text, "Lines" jsonb, "N" int)')
    with pgbouncer(postgres_target.connection.url, mode, connections_max=4 if mode == "session" else 2) as port:
        yield through(postgres_target, port)


async def opened(pool: SqlPool, epoch: int, id: int = 1) -> SqlSink:
    fenced = FencedTask(cluster="c", database="d", kind="SqlEtl", id=id, generation=id)
    return await SqlSink.open(pool, (ORDERS,), task=fenced, epoch=epoch, guard=lambda: None)


def row(id: str, n: Any = 1, company: str = "c") -> DocumentRows:
    return DocumentRows(id, ("orders",), [("orders", {"Company": company, "Lines": [n, {"a": n}], "N": n})])


def fair(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """Every refusal is the document's own fault."""


async def test_the_fence_holds_between_transactions_of_runs_that_share_connections(
    bounced: SqlTarget, postgres_target: SqlTarget
) -> None:
    pools = [SqlPool(bounced.connection, SqlLimits(connections_max=2)) for _ in range(2)]  # of two nodes
    old = await opened(pools[0], 10)
    await old.write([row("o/1")], lambda refused: b'{"x": 1}', fair)
    new = await opened(pools[1], 11)
    assert new.progress == b'{"x": 1}'
    late, mine = await asyncio.gather(
        old.write([row("o/1", company="late")], lambda refused: b"{}", fair),
        new.write([row("o/2"), row("o/3", n="no number")], lambda refused: b'{"x": 2}', fair),
        return_exceptions=True,
    )
    assert isinstance(late, StaleEpoch)
    assert [r.id for r in mine] == ["o/3"]  # type: ignore[union-attr]
    assert await postgres_target.rows('SELECT "Id", "Company" FROM "Orders" ORDER BY 1') == [("o/1", "c"), ("o/2", "c")]
    for pool in pools:
        await pool.close()


async def test_many_tasks_write_at_once_through_few_connections(bounced: SqlTarget, postgres_target: SqlTarget) -> None:
    pools = [SqlPool(bounced.connection, SqlLimits(connections_max=2)) for _ in range(2)]

    async def task(number: int) -> None:
        sink = await opened(pools[number % 2], 10 + number, id=number + 1)
        for batch in range(5):
            rows = [row(f"{number}/{batch}/{n}", n) for n in range(7 + batch)]
            assert await sink.write(rows, lambda refused: b"{}", fair) == []

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(task(number))
    assert await postgres_target.rows('SELECT count(*), count(DISTINCT "Id") FROM "Orders"') == [(540, 540)]
    for pool in pools:
        await pool.close()


async def test_what_bounds_a_transaction_ends_with_it(bounced: SqlTarget) -> None:
    pool = SqlPool(bounced.connection, SqlLimits(connections_max=1, statement_timeout_ms=777_000))
    sink = await opened(pool, 10)
    query = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
    async with pool.connection("task") as held:
        async with sink._transaction(held.connection):
            inside = (await held.connection.exec_driver_sql(query)).one()
        async with held.connection.begin():
            outside = (await held.connection.exec_driver_sql(query)).one()
    assert (tuple(inside), tuple(outside)) == (("777s", "3s"), ("0", "0"))
    await pool.close()


async def test_a_whole_task_works(bounced: SqlTarget, store: DocumentStore, tmp_path: Path) -> None:
    await put_all(store, northwind("Orders"))
    bench = BodyBench(store, bounced, tmp_path)
    configuration = {
        "Name": "Orders",
        "ConnectionStringName": "target",
        "Transforms": [
            {
                "Name": "orders",
                "Collections": ["Orders"],
                "Script": "loadToOrders({Company: this.Company, Lines: this.Lines, N: this.Lines.length});",
            }
        ],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    }
    put = KIND.parse(configuration, database(bounced))
    task = Task(
        id=7, name=put.name, kind=put.kind, key=put.key, connection_string="target", configuration=put.configuration
    )
    context = bench.context(task, 10, batch_documents_max=100)
    body = asyncio.create_task(KIND.run(context))
    await until(lambda: context.info.processed >= 830, body)
    body.cancel()
    await asyncio.gather(body, return_exceptions=True)
    assert await bounced.rows('SELECT count(*), sum("N") FROM "Orders"') == [(830, 2155)]
    await bench.shared.close()
    bench.journal.close()


async def test_connections_that_are_cut_at_any_time_double_and_lose_no_row(
    bounced: SqlTarget, postgres_target: SqlTarget, store: DocumentStore, tmp_path: Path
) -> None:
    """Also in the middle of a commit, whose end nobody has heard. A table that is only inserted into shows it."""
    await put_all(store, northwind("Orders"))
    bench = BodyBench(store, bounced, tmp_path)
    configuration = {
        "Name": "Orders",
        "ConnectionStringName": "target",
        "Transforms": [{"Name": "o", "Collections": ["Orders"], "Script": "loadToOrders({N: this.Lines.length});"}],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": True}],
    }
    put = KIND.parse(configuration, database(bounced))
    task = Task(
        id=7, name=put.name, kind=put.kind, key=put.key, connection_string="target", configuration=put.configuration
    )
    context = bench.context(task, 10, batch_documents_max=15, backoff_min_ms=5, backoff_max_ms=10)
    cut = 0

    async def tries() -> None:
        nonlocal cut
        while True:
            try:
                await KIND.run(context)
            except TaskFailed:
                cut += 1

    body, chance = asyncio.create_task(tries()), random.Random(1)
    others = "FROM pg_stat_activity WHERE application_name LIKE 'raftnode%' AND datname = current_database()"
    async with asyncio.timeout(120):
        while context.info.processed < 830 and not body.done():
            await postgres_target.rows(f"SELECT pg_terminate_backend(pid) {others}")
            await asyncio.sleep(chance.uniform(0.0, 0.1))
    body.cancel()
    await asyncio.gather(body, return_exceptions=True)
    assert cut > 0
    rows = await postgres_target.rows('SELECT count(*), count(DISTINCT "Id"), sum("N") FROM "Orders"')
    assert rows == [(830, 830, 2155)]
    await bench.shared.close()
    bench.journal.close()


async def test_of_several_hosts_one_that_takes_rows_is_found(postgres_target: SqlTarget) -> None:
    url = postgres_target.connection.url
    await postgres_target.execute('CREATE TABLE "Orders" ("Id" text)')
    text = f"Host=127.0.0.1:9,{url.host}:{url.port};Database={url.database};Username={url.username};SSL Mode=Disable"
    target = parse({"Name": "d", "FactoryName": "Npgsql", "ConnectionString": text})
    assert f"127.0.0.1:9,{url.host}:{url.port}" in str(target)
    pool = SqlPool(target, SqlLimits())
    sink = await opened(pool, 10)
    await sink.write([DocumentRows("o/1", ("orders",), [("orders", {})])], lambda refused: b"{}", fair)
    assert await postgres_target.rows('SELECT "Id" FROM "Orders"') == [("o/1",)]
    await pool.close()


async def test_a_host_that_only_reads_is_passed_over(postgres_target: SqlTarget) -> None:
    url = postgres_target.connection.url
    await postgres_target.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    text = f"Host=127.0.0.1:9,{url.host}:{url.port};Database={url.database};Username={url.username};SSL Mode=Disable"
    target = parse({"Name": "d", "FactoryName": "Npgsql", "ConnectionString": text})
    pool = SqlPool(target, SqlLimits())
    with pytest.raises(TaskFailed, match="is not usable"):
        await opened(pool, 10)
    await pool.close()
