"""Connections to a target: few, in turn, and none for who does not write."""

import asyncio
import gc
import uuid
from pathlib import Path

import pytest

from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Task
from tasks.kinds.registry import TaskFailed
from tasks.kinds.sql_etl.task import KIND
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql import pool as sql_pool
from tasks.sinks.sql.connection_string import parse
from tasks.sinks.sql.pool import SqlPool, SqlPools
from tests.unit.tasks.conftest import BodyBench, SqlTarget, database, northwind, put_all, until

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool'"
OF_NODES = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^raftnode' AND datname = current_database()"
pytestmark = pytest.mark.postgres


async def connections(target: SqlTarget) -> int:
    ((count,),) = await target.rows(CONNECTIONS)
    return int(count)


async def test_no_more_connections_are_open_than_allowed_and_who_asks_first_is_served_first(
    postgres_target: SqlTarget,
) -> None:
    pool = SqlPool(postgres_target.connection, SqlLimits(connections_max=2), "pool")
    served, most, go = [], 0, asyncio.Event()

    async def use(number: int) -> None:
        nonlocal most
        async with pool.connection(f"task {number}"):
            served.append(number)
            most = max(most, len(pool.held))
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(use(number))
        await until(lambda: len(pool.held) == 2)
        assert await connections(postgres_target) == 2
        go.set()
    assert most == 2
    assert (set(served[:2]), served[2:]) == ({0, 1}, [2, 3, 4, 5, 6, 7])
    assert await connections(postgres_target) <= 2
    await pool.close()


async def test_where_the_server_allows_fewer_connections_tasks_wait_for_those_there_are(
    postgres_target: SqlTarget,
) -> None:
    role = f"few_{uuid.uuid4().hex[:8]}"
    await postgres_target.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2")
    url = postgres_target.connection.url.set(drivername="postgresql", username=role).render_as_string()
    few = parse(postgres_target.configuration | {"ConnectionString": url})
    pool = SqlPool(few, SqlLimits(connections_max=4), "pool")
    served: list[int] = []

    async def use(number: int) -> None:
        async with pool.connection(f"task {number}") as pooled:
            await pooled.connection.exec_driver_sql("SELECT 1")
            await pooled.connection.rollback()
            served.append(number)

    try:
        async with asyncio.TaskGroup() as group, pool.connection("first"), pool.connection("second"):
            for number in range(20):
                group.create_task(use(number))
            await asyncio.sleep(0.1)
            assert not served
        assert sorted(served) == list(range(20))
        other = SqlPool(few, SqlLimits(), "other")
        async with pool.connection("first"), pool.connection("second"):
            with pytest.raises(TaskFailed, match="too many connections for role"):
                async with other.connection("task"):
                    pass
    finally:
        await pool.close()
        await postgres_target.execute(f"DROP ROLE {role}")


async def test_a_connection_nobody_uses_is_closed_and_a_dead_one_is_not_given_out(
    postgres_target: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SqlPool(postgres_target.connection, SqlLimits(), "pool")
    async with pool.connection("task") as first:
        pass
    async with pool.connection("task") as again:
        assert again is first
    await postgres_target.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pool'")
    await until(lambda: not first.usable)
    monkeypatch.setattr(sql_pool, "IDLE_S", 0.01)
    async with pool.connection("task") as other:
        assert other is not first
        assert await connections(postgres_target) == 1
    await postgres_target.shows(CONNECTIONS, [(0,)])
    await pool.close()


async def test_who_gives_up_waiting_or_fails_costs_nobody_a_connection(postgres_target: SqlTarget) -> None:
    pool = SqlPool(postgres_target.connection, SqlLimits(connections_max=1), "pool")

    async def use() -> None:
        async with pool.connection("task"):
            pass

    async with pool.connection("task"):
        waiting = [asyncio.create_task(use()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting[:2]:
            task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        async with pool.connection("task"):
            raise ZeroDivisionError
    await asyncio.wait_for(use(), 10)
    await pool.close()


async def test_a_target_out_of_reach_is_not_tried_for_each_waiting_task_in_turn() -> None:
    tries = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(8)
        await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = f"Host=127.0.0.1;Port={port};Database=d;Username=u;SSL Mode=Disable"
    target = parse({"Name": "d", "FactoryName": "Npgsql", "ConnectionString": text})
    pool = SqlPool(target, SqlLimits(connections_max=1), "pool")

    async def use() -> None:
        async with pool.connection("task"):
            raise AssertionError("there is no target")

    answers = await asyncio.gather(*(use() for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TaskFailed}
    assert tries == 1
    server.close()
    await pool.close()


async def test_tasks_with_the_same_address_share_a_pool_that_goes_with_them(postgres_target: SqlTarget) -> None:
    pools = SqlPools(SqlLimits())
    configuration = postgres_target.configuration
    same = parse(configuration | {"Name": "another name"})
    first = pools.pool(postgres_target.connection)
    assert pools.pool(same) is first
    other = parse(configuration | {"ConnectionString": configuration["ConnectionString"] + "?ssl=disable"})
    assert pools.pool(other) is not first
    del first
    gc.collect()
    assert len(pools._pools) == 0
    await pools.close()


async def test_twenty_tasks_share_two_connections_and_hold_none_while_they_wait_for_documents(
    postgres_target: SqlTarget, store: DocumentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_pool, "IDLE_S", 0.05)
    await postgres_target.execute('CREATE TABLE "Orders" ("Id" text, "Task" int)')
    await put_all(store, northwind("Orders")[:10])
    bench = BodyBench(store, postgres_target, tmp_path)
    contexts = [
        bench.context(task(postgres_target, n), 10 + n, generation=n, sql=SqlLimits(connections_max=2))
        for n in range(1, 21)
    ]
    bodies = [asyncio.create_task(KIND.run(context)) for context in contexts]
    most = 0
    while sum(context.info.processed for context in contexts) < 200:
        assert not any(body.done() for body in bodies)
        ((count,),) = await postgres_target.rows(OF_NODES)
        most = max(most, count)
    assert 1 <= most <= 2
    await postgres_target.shows(OF_NODES, [(0,)])
    assert await postgres_target.rows('SELECT count(*), count(DISTINCT "Task") FROM "Orders"') == [(200, 20)]
    for body in bodies:
        body.cancel()
    await asyncio.gather(*bodies, return_exceptions=True)
    await bench.shared.close()
    bench.journal.close()


def task(target: SqlTarget, number: int) -> Task:
    configuration = {
        "Name": f"Task {number}",
        "ConnectionStringName": "target",
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": f"loadToOrders({{Task: {number}}});"}],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": True}],
    }
    put = KIND.parse(configuration, database(target))
    return Task(
        id=number,
        name=put.name,
        kind=put.kind,
        key=put.key,
        connection_string="target",
        configuration=put.configuration,
    )


async def test_tasks_with_a_command_timeout_have_connections_with_that_limit(sqlite_target: SqlTarget) -> None:
    pools = SqlPools(SqlLimits(connections_max=2))
    ours, others = pools.pool(sqlite_target.connection, 5), pools.pool(sqlite_target.connection)
    assert ours is not others
    assert ours is pools.pool(sqlite_target.connection, 5)
    assert (ours.limits.statement_timeout_ms, others.limits.statement_timeout_ms) == (5_000, 30_000)
    assert ours.limits.connections_max == 2
    await pools.close()
