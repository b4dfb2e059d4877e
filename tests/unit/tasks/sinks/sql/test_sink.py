"""The SQL sink against real databases: once, fenced, and fair to single documents."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.etl.refusals import DocumentRefusal
from tasks.kinds.registry import TaskFailed
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.fence import FENCE, FencedTask, StaleEpoch
from tasks.sinks.sql.pool import SqlPool
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.sink import SqlSink
from tasks.sinks.sql.tables import SqlTable
from tasks.sinks.sql.types import NotWritable
from tests.unit.tasks.conftest import SqlTarget, until

KEY = "cluster/northwind/1"
NAMED = "cluster/northwind/SqlEtl/orders"
"""As earlier versions named the row."""
ORDERS = SqlTable("Orders", "Id")
LINES = SqlTable("Lines", "OrderId")


@pytest.fixture
async def tables(target: SqlTarget) -> SqlTarget:
    await target.execute(
        'CREATE TABLE "Orders" ("Id" varchar(50) PRIMARY KEY, "Company" varchar(50) NOT NULL, "Total" numeric(10, 2))',
        'CREATE TABLE "Lines" ("OrderId" varchar(50), "Quantity" int CHECK ("Quantity" > 0), "At" timestamp)',
    )
    return target


def fenced(generation: int = 1, id: int = 1) -> FencedTask:
    return FencedTask(cluster="cluster", database="northwind", kind="SqlEtl", id=id, generation=generation)


@asynccontextmanager
async def sink(
    target: SqlTarget,
    epoch: int = 10,
    generation: int = 1,
    *,
    id: int = 1,
    tables: Sequence[SqlTable] = (ORDERS, LINES),
    guard: Callable[[], None] = lambda: None,
    limits: SqlLimits | None = None,
    quoted: bool = True,
) -> AsyncIterator[SqlSink]:
    """A sink on a node of its own."""
    pool = SqlPool(target.connection, limits or SqlLimits())
    try:
        task = fenced(generation, id)
        yield await SqlSink.open(pool, tables, task=task, epoch=epoch, guard=guard, quoted=quoted)
    finally:
        await pool.close()


def order(id: str, company: str | None = "c", quantities: Sequence[Any] = (), total: Any = 1) -> DocumentRows:
    rows: list[tuple[str, dict[str, Any]]] = [("orders", {"Company": company, "Total": total})]
    rows += [("lines", {"Quantity": q}) for q in quantities]
    return DocumentRows(id, ("orders", "lines"), rows)


async def next_run(target: SqlTarget, limits: SqlLimits) -> None:
    """Another run that tries until it gets in, as a body does, and writes a row."""
    while True:
        with suppress(TaskFailed):
            async with sink(target, epoch=11, tables=(ORDERS,), limits=limits) as new:
                await write(new, DocumentRows("o/2", ("orders",), [("orders", {"Company": "new"})]))
                return


def writes(opened: SqlSink) -> bool:
    """Whether a write is under way."""
    return any(pooled.connection.in_transaction() for pooled in opened._pool.held)


def gone(id: str) -> DocumentRows:
    return DocumentRows(id, ("orders", "lines"))


def fair(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """Every refusal is the document's own fault."""


async def write(opened: SqlSink, *documents: DocumentRows, progress: bytes = b"{}") -> list[DocumentRefusal]:
    return await opened.write(documents, lambda refused: progress, fair)


async def test_documents_become_rows_and_new_versions_replace_them(tables: SqlTarget) -> None:
    async with sink(tables) as opened:
        await write(opened, order("o/1", quantities=[1, 2]), order("o/2", quantities=[3]))
        await write(opened, order("o/1", company="d", quantities=[9]))
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders" ORDER BY 1') == [("o/1", "d"), ("o/2", "c")]
    assert await tables.rows('SELECT "OrderId", "Quantity" FROM "Lines" ORDER BY 1') == [("o/1", 9), ("o/2", 3)]


async def test_deleting_a_document_deletes_its_rows(tables: SqlTarget) -> None:
    async with sink(tables) as opened:
        await write(opened, order("o/1", quantities=[1, 2]), order("o/2", quantities=[3]))
        await write(opened, gone("o/1"))
    assert await tables.rows('SELECT "Id" FROM "Orders"') == [("o/2",)]
    assert await tables.rows('SELECT "OrderId" FROM "Lines"') == [("o/2",)]


async def test_in_insert_only_mode_nothing_is_deleted(tables: SqlTarget) -> None:
    only = (ORDERS, SqlTable("Lines", "OrderId", insert_only_mode=True))
    async with sink(tables, tables=only) as opened:
        await write(opened, order("o/1", quantities=[1]))
        await write(opened, order("o/1", quantities=[2]))
        await write(opened, gone("o/1"))
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]
    assert await tables.rows('SELECT count(*) FROM "Lines"') == [(2,)]


@pytest.mark.postgres
async def test_a_name_without_quotes_is_read_as_in_sql(postgres_target: SqlTarget) -> None:
    names = ('"Orders"', "orders", '"Order.Lines"')
    await postgres_target.execute(*(f'CREATE TABLE {name} ("Id" text)' for name in names))
    tables = (SqlTable("Orders", "Id"), SqlTable('public."Order.Lines"', "Id"))
    folded = [table.table_name.lower() for table in tables]
    async with sink(postgres_target, tables=tables, quoted=False) as opened:
        assert await write(opened, DocumentRows("o/1", folded, [(name, {}) for name in folded])) == []
    found = [await postgres_target.rows(f"SELECT * FROM {name}") for name in names]
    assert found == [[], [("o/1",)], [("o/1",)]]


async def test_progress_is_stored_with_the_rows_and_read_by_the_next_run(tables: SqlTarget) -> None:
    async with sink(tables, epoch=10) as opened:
        assert opened.progress == b"{}"
        await write(opened, order("o/1"), progress=b'{"a":1}')
    async with sink(tables, epoch=11) as opened:
        assert opened.progress == b'{"a":1}'


async def test_progress_of_an_older_generation_is_discarded(tables: SqlTarget) -> None:
    async with sink(tables, epoch=10, generation=1) as opened:
        await write(opened, order("o/1"), progress=b'{"a":1}')
    async with sink(tables, epoch=11, generation=5) as opened:
        assert opened.progress == b"{}"
    async with sink(tables, epoch=12, generation=5) as opened:
        assert opened.progress == b"{}"


async def test_an_old_runner_that_wakes_late_is_refused(tables: SqlTarget) -> None:
    async with sink(tables, epoch=10) as old:
        await write(old, order("o/1"), progress=b'{"a":1}')
        async with sink(tables, epoch=11) as new:
            assert new.progress == b'{"a":1}'
            with pytest.raises(StaleEpoch, match="newer run than epoch 10"):
                await write(old, order("o/1", company="late"), order("o/2"))
            await write(new, order("o/3"), progress=b'{"a":2}')
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders" ORDER BY 1') == [("o/1", "c"), ("o/3", "c")]
    with pytest.raises(StaleEpoch):
        async with sink(tables, epoch=10):
            pass


@pytest.mark.postgres
async def test_a_runner_frozen_inside_its_transaction_does_not_block_its_successor(postgres_target: SqlTarget) -> None:
    await postgres_target.execute('CREATE TABLE "Orders" ("Id" text, "Company" text, "Total" int)')
    async with sink(postgres_target, epoch=10, tables=(ORDERS,)) as frozen:

        async def freeze() -> None:
            async with frozen._pool.connection("frozen") as held, frozen._transaction(held.connection):
                await held.connection.execute(sa.text("INSERT INTO \"Orders\" VALUES ('o/1', 'frozen', 1)"))
                await held.connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 300"))
                await next_run(postgres_target, SqlLimits())

        with pytest.raises(Exception, match="closed"):
            await freeze()
    assert await postgres_target.rows('SELECT "Company" FROM "Orders"') == [("new",)]


async def test_what_the_guard_refuses_before_the_commit_never_happened(tables: SqlTarget) -> None:
    class Lapsed(Exception):
        pass

    lapsed = False

    def guard() -> None:
        if lapsed:
            raise Lapsed

    async with sink(tables, guard=guard) as opened:
        await write(opened, order("o/1"), progress=b'{"a":1}')
        lapsed = True
        with pytest.raises(Lapsed):
            await write(opened, order("o/2"), progress=b'{"a":2}')
    assert await tables.rows('SELECT "Id" FROM "Orders"') == [("o/1",)]
    assert await tables.rows("SELECT progress FROM raftnode_tasks") == [('{"a":1}',)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (order("o/7", company=None), "(?i)not.null|null value|be null"),
        (order("o/7", quantities=[1, -1]), "(?i)check|constraint .*failed"),
        (order("o/7", total="a lot"), 'Orders.Total: "a lot" is not a number'),
    ],
)
async def test_a_document_the_database_refuses_by_itself_is_listed_and_the_rest_goes_on(
    tables: SqlTarget, bad: DocumentRows, reason: str
) -> None:
    async with sink(tables) as opened:
        await write(opened, order("o/7", company="before", quantities=[5]))
        documents = [order(f"o/{n}", quantities=[n + 1]) for n in range(20)]
        documents[7] = bad
        refused = await write(opened, *documents, progress=b'{"a":20}')
    assert [r.id for r in refused] == ["o/7"]
    assert re.search(reason, refused[0].reason)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(20,)]
    assert await tables.rows('SELECT "Company" FROM "Orders" WHERE "Id" = \'o/7\'') == [("before",)]
    assert await tables.rows("SELECT progress FROM raftnode_tasks") == [('{"a":20}',)]


@pytest.mark.postgres
async def test_a_constraint_that_is_checked_at_commit_refuses_its_document_only(postgres_target: SqlTarget) -> None:
    await postgres_target.execute(
        'CREATE TABLE "Companies" ("Id" text PRIMARY KEY)',
        "INSERT INTO \"Companies\" VALUES ('c')",
        'CREATE TABLE "Orders" ("Id" text, "Total" int, '
        '"Company" text REFERENCES "Companies" DEFERRABLE INITIALLY DEFERRED)',
    )
    async with sink(postgres_target, tables=(ORDERS,)) as opened:
        rows = [DocumentRows(f"o/{n}", ("orders",), [("orders", {"Company": c})]) for n, c in enumerate("cxc")]
        assert [r.id for r in await write(opened, *rows)] == ["o/1"]
    assert await postgres_target.rows('SELECT count(*) FROM "Orders"') == [(2,)]


async def test_the_verdict_that_everything_fails_undoes_the_batch(tables: SqlTarget) -> None:
    def harsh(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
        if final and refusals:
            raise TaskFailed(f"{accepted} accepted, {len(refusals)} refused")

    async with sink(tables) as opened:
        with pytest.raises(TaskFailed, match="2 accepted, 1 refused"):
            await opened.write([order("o/1"), order("o/2", company=None), order("o/3")], lambda n: b"{}", harsh)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]


async def test_a_missing_table_or_id_column_is_named_with_the_remedy(tables: SqlTarget) -> None:
    async with sink(tables, tables=(SqlTable("Bills", "Id"), SqlTable("Orders", "DocId"), LINES)) as opened:
        assert not await opened.find(["lines"])
        with pytest.raises(NotWritable, match="has no table 'Bills'; create it in the target"):
            await opened.find(["bills"])
        with pytest.raises(NotWritable, match="table 'Orders' has no column 'DocId'; add it, or load to one of: Id, C"):
            await opened.find(["orders"])
        await tables.execute('ALTER TABLE "Orders" ADD COLUMN "DocId" varchar(20)')
        assert await opened.find(["orders"])


async def test_names_may_differ_by_case(target: SqlTarget) -> None:
    await target.execute("CREATE TABLE orders (id varchar(50), company varchar(50), total int)")
    async with sink(target, tables=(ORDERS,)) as opened:
        await write(opened, DocumentRows("o/1", ("orders",), [("orders", {"Company": "c", "TOTAL": 3})]))
    assert await target.rows("SELECT id, company, total FROM orders") == [("o/1", "c", 3)]


async def test_a_table_that_is_dropped_while_the_sink_is_open_is_the_target_s_fault(tables: SqlTarget) -> None:
    async with sink(tables) as opened:
        await tables.execute('DROP TABLE "Lines"')
        with pytest.raises(TaskFailed, match="the target has no table 'Lines'; create it"):
            await write(opened, order("o/1", quantities=[1]))


@pytest.mark.postgres
async def test_a_dead_target_is_a_failure_that_shows_no_password() -> None:
    from tasks.sinks.sql import connection_string as sql_connection

    dead = sql_connection.parse(
        {
            "Name": "d",
            "FactoryName": "Npgsql",
            "ConnectionString": "Host=127.0.0.1;Port=9;Database=d;Username=u;Password=s3cret",
        }
    )
    with pytest.raises(TaskFailed, match="is not usable") as caught:
        await SqlSink.open(SqlPool(dead, SqlLimits()), (ORDERS,), task=fenced(), epoch=1, guard=lambda: None)
    assert "s3cret" not in str(caught.value)


async def test_a_cancelled_write_leaves_no_thread_and_no_row(tables: SqlTarget) -> None:
    before = threading.active_count()
    async with sink(tables) as opened:
        many = [order(f"o/{n}", quantities=range(1, 10)) for n in range(2000)]
        writing = asyncio.create_task(write(opened, *many))
        await until(lambda: writes(opened))
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await until(lambda: threading.active_count() <= before)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]


async def test_two_tasks_of_one_target_have_fences_of_their_own(tables: SqlTarget) -> None:
    async with sink(tables, epoch=10) as first:
        async with sink(tables, epoch=99, generation=2, id=2):
            pass
        await write(first, order("o/1"))
    rows = await tables.rows("SELECT task, epoch FROM raftnode_tasks ORDER BY epoch")
    assert rows == [(KEY, 10), ("cluster/northwind/2", 99)]
    assert FENCE.name == "raftnode_tasks"


class Proxy:
    """A way to a server that can be cut so that neither side hears of it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.cut = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self.cut:
                await asyncio.Event().wait()
            sink.write(data)
        sink.close()


@pytest.fixture
async def far_target(postgres_target: SqlTarget) -> AsyncIterator[tuple[Proxy, SqlTarget]]:
    await postgres_target.execute('CREATE TABLE "Orders" ("Id" text, "Company" text, "Total" int)')
    url = postgres_target.connection.url
    assert url.host is not None
    assert url.port is not None
    proxy = Proxy(url.host, url.port)
    port = await proxy.start()
    text = postgres_target.configuration["ConnectionString"].replace(f":{url.port}/", f":{port}/")
    yield proxy, SqlTarget("far", postgres_target.configuration | {"ConnectionString": text})
    await proxy.stop()


@pytest.mark.postgres
async def test_a_body_ends_at_once_when_its_target_has_fallen_silent(far_target: tuple[Proxy, SqlTarget]) -> None:
    proxy, far = far_target
    pool = SqlPool(far.connection, SqlLimits())
    opened = await SqlSink.open(pool, (ORDERS,), task=fenced(), epoch=1, guard=lambda: None)

    async def body() -> None:
        await write(opened, DocumentRows("o/1", ("orders",), [("orders", {"Company": "c"})]))

    proxy.cut = True
    running = asyncio.create_task(body())
    await until(lambda: writes(opened))
    for _ in range(10):
        await asyncio.sleep(0)
    running.cancel()
    began = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.get_running_loop().time() - began < sql_engine.CLOSE_TIMEOUT_S + 0.5


@pytest.mark.postgres
async def test_a_silent_target_is_given_up_after_the_statement_s_time(
    far_target: tuple[Proxy, SqlTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engine, "ANSWER_TIMEOUT_S", 1)
    proxy, far = far_target
    async with sink(far, tables=(ORDERS,), limits=SqlLimits(statement_timeout_ms=100)) as opened:
        proxy.cut = True
        with pytest.raises(TaskFailed):
            await write(opened, DocumentRows("o/1", ("orders",), [("orders", {"Company": "c"})]))


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW."Company" = 'slow' THEN PERFORM pg_sleep(3600); END IF;
  RETURN NEW;
END $$"""


SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


async def slow_table(target: SqlTarget) -> None:
    await target.execute(SLOW, 'CREATE TRIGGER slow BEFORE INSERT ON "Orders" FOR EACH ROW EXECUTE FUNCTION slow()')


@pytest.mark.postgres
async def test_a_runner_that_is_cut_off_while_its_statement_runs_keeps_the_next_one_waiting_no_longer_than_a_statement(
    far_target: tuple[Proxy, SqlTarget], postgres_target: SqlTarget
) -> None:
    """Neither side hears of the cut, and the statement would take an hour."""
    proxy, far = far_target
    await slow_table(postgres_target)
    limits = SqlLimits(statement_timeout_ms=5_000)
    async with sink(far, epoch=10, tables=(ORDERS,), limits=limits) as cut:
        writing = asyncio.create_task(write(cut, DocumentRows("o/1", ("orders",), [("orders", {"Company": "slow"})])))
        await postgres_target.shows(SLEEPING, [(1,)])
        proxy.cut = True
        await next_run(postgres_target, limits)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert await postgres_target.rows('SELECT "Company" FROM "Orders"') == [("new",)]


@pytest.mark.postgres
async def test_a_runner_that_dies_while_its_statement_runs_is_noticed_by_the_server(
    far_target: tuple[Proxy, SqlTarget], postgres_target: SqlTarget
) -> None:
    """Its connection ends and nothing else: the statement would take an hour, and so may a statement here."""
    await slow_table(postgres_target)
    limits = SqlLimits(statement_timeout_ms=3_600_000)
    async with sink(postgres_target, epoch=10, tables=(ORDERS,), limits=limits) as dead:
        writing = asyncio.create_task(write(dead, DocumentRows("o/1", ("orders",), [("orders", {"Company": "slow"})])))
        await postgres_target.shows(SLEEPING, [(1,)])
        for pooled in dead._pool.held:
            await pooled.abort()
        await asyncio.gather(writing, return_exceptions=True)
        await next_run(postgres_target, limits)
    assert await postgres_target.rows('SELECT "Company" FROM "Orders"') == [("new",)]


@pytest.mark.postgres
async def test_a_runner_that_waits_for_its_row_says_who_has_it(
    postgres_target: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engine, "FENCE_TIMEOUT_MS", 100)
    monkeypatch.setitem(sql_engine.TRANSACTION_SETTINGS, "idle_in_transaction_session_timeout", 3_600_000)
    pool = SqlPool(postgres_target.connection, SqlLimits(), "raftnode A")
    old, new = [
        await SqlSink.open(
            pool, (), task=fenced(), epoch=epoch, guard=lambda: None, application=f"raftnode {node} n/S/o"
        )
        for node, epoch in (("A", 10), ("B", 10))
    ]
    async with pool.connection("A") as held, old._transaction(held.connection):
        with pytest.raises(TaskFailed, match=r"still holds .* 'raftnode A n/S/o' \(process \d+, open for 0 s\)"):
            await write(new)
        async with pool.connection("psql") as other, other.connection.begin():
            name = await other.connection.execute(sa.text("SHOW application_name"))
            assert name.scalar() == "raftnode A"
    await write(new)
    await pool.close()


async def test_an_sqlite_file_that_others_write_to_is_waited_for_and_the_wait_can_be_cancelled(
    sqlite_target: SqlTarget,
) -> None:
    await sqlite_target.execute('CREATE TABLE "Orders" ("Id" text, "Company" text, "Total" int)')
    row = DocumentRows("o/1", ("orders",), [("orders", {"Company": "c"})])
    other = sqlite3.connect(str(sqlite_target.connection.url.database), isolation_level=None)
    async with sink(sqlite_target, tables=(ORDERS,)) as opened:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(write(opened, row))
        done, _ = await asyncio.wait([waiting], timeout=3 * sql_engine.BUSY_ATTEMPT_S)
        assert not done
        other.execute("COMMIT")
        assert await waiting == []
        other.execute("BEGIN IMMEDIATE")
        cancelled = asyncio.create_task(write(opened, row))
        await asyncio.wait([cancelled], timeout=2 * sql_engine.BUSY_ATTEMPT_S)
        cancelled.cancel()
        began = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert asyncio.get_running_loop().time() - began < sql_engine.BUSY_TIMEOUT_S / 2
    other.close()


async def test_an_sqlite_file_that_stays_locked_is_the_target_s_fault(
    sqlite_target: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engine, "BUSY_TIMEOUT_S", 0.1)
    await sqlite_target.execute('CREATE TABLE "Orders" ("Id" text)')
    other = sqlite3.connect(str(sqlite_target.connection.url.database), isolation_level=None)
    async with sink(sqlite_target, tables=(ORDERS,)) as opened:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TaskFailed, match="database is locked"):
            await write(opened)
    other.close()


async def earlier(target: SqlTarget, *rows: tuple[str, int, int, str]) -> None:
    """A fence as an earlier version left it: (the task's name in the row, epoch, generation, progress)."""
    async with sink(target, id=1000, generation=1000, tables=()):
        pass
    for name, epoch, generation, progress in rows:
        row = f"('{name}', {epoch}, {generation}, '{progress}', '2026-01-01T00:00:00.000+00:00')"
        await target.execute(f"INSERT INTO raftnode_tasks VALUES {row}")


async def passes(target: SqlTarget, name: str, epoch: int) -> bool:
    """Whether a run of an earlier version still gets past its fence."""
    return bool(await target.rows(f"SELECT task FROM raftnode_tasks WHERE task = '{name}' AND epoch <= {epoch}"))


async def test_a_row_named_by_an_earlier_version_is_carried_over_to_its_task_whatever_the_name_is_now(
    tables: SqlTarget,
) -> None:
    await earlier(tables, (NAMED, 10, 7, '{"x": 7}'), (f"{NAMED}/to_sql", 11, 8, '{"x": 8}'))
    async with sink(tables, epoch=12, generation=9, id=9) as took_the_name:
        assert took_the_name.progress == b"{}"
    async with sink(tables, epoch=13, generation=7, id=7) as renamed:
        assert renamed.progress == b'{"x": 7}'
        await write(renamed, order("o/1"), progress=b'{"x": 70}')
    async with sink(tables, epoch=14, generation=8, id=8) as other:
        assert other.progress == b'{"x": 8}'
    async with sink(tables, epoch=15, generation=7, id=7) as again:
        assert again.progress == b'{"x": 70}'
    assert not await passes(tables, NAMED, 1 << 60)


async def test_a_row_of_an_earlier_version_is_not_carried_over_by_a_stale_run(tables: SqlTarget) -> None:
    await earlier(tables, (NAMED, 10, 7, '{"x": 7}'))
    with pytest.raises(StaleEpoch, match="epoch 10 has replaced 9"):
        async with sink(tables, epoch=9, generation=7, id=7):
            pass
    async with sink(tables, epoch=11, generation=7, id=7) as newest:
        assert newest.progress == b'{"x": 7}'


async def test_a_reset_closes_the_rows_of_earlier_versions_that_the_task_had_under_any_name(tables: SqlTarget) -> None:
    names = ("first", "second", "other", "older")
    rows = [
        (f"cluster/northwind/SqlEtl/{n}", 10 + i, g, "{}")
        for i, (n, g) in enumerate(zip(names, (7, 20, 30, 6), strict=True))
    ]
    await earlier(tables, *rows)
    async with sink(tables, epoch=40, generation=30, id=7) as reset:
        assert reset.progress == b"{}"
    assert [await passes(tables, row[0], 39) for row in rows] == [False, False, False, True]


@pytest.mark.postgres
async def test_of_two_runs_that_carry_a_row_over_at_once_the_newer_goes_on_with_the_progress(
    postgres_target: SqlTarget,
) -> None:
    for round in range(5):
        name = f"{NAMED}{round}"
        await earlier(postgres_target, (name, 10, 100 + round, '{"x": 7}'))

        async def run(epoch: int, id: int = 100 + round) -> bytes | None:
            try:
                async with sink(postgres_target, epoch=epoch, generation=id, id=id, tables=()) as opened:
                    return opened.progress
            except StaleEpoch:
                return None

        answers = await asyncio.gather(*(run(epoch) for epoch in (11, 12, 13, 14)))
        assert answers[-1] == b'{"x": 7}'
        assert set(answers) <= {b'{"x": 7}', None}
        await postgres_target.execute("DELETE FROM raftnode_tasks")


async def test_a_task_that_takes_another_s_name_has_a_row_of_its_own(tables: SqlTarget) -> None:
    only = (SqlTable("Lines", "OrderId", insert_only_mode=True),)
    rows = DocumentRows("o/1", ("lines",), [("lines", {"Quantity": 1})])
    async with sink(tables, epoch=10, generation=7, id=7, tables=only) as renamed:
        await write(renamed, rows, progress=b'{"x": 1}')
        async with sink(tables, epoch=12, generation=11, id=11, tables=only) as took_the_name:
            assert took_the_name.progress == b"{}"
        async with sink(tables, epoch=13, generation=7, id=7, tables=only) as after:
            assert after.progress == b'{"x": 1}'
        with pytest.raises(StaleEpoch):
            await write(renamed, rows)
    assert await tables.rows('SELECT count(*) FROM "Lines"') == [(1,)]


async def test_a_reset_leaves_no_way_in_for_a_run_of_before_it(tables: SqlTarget) -> None:
    async with sink(tables, epoch=10, generation=1) as before:
        async with sink(tables, epoch=12, generation=11) as after:
            assert after.progress == b"{}"
        with pytest.raises(StaleEpoch):
            await write(before, order("o/1"))


async def test_a_reset_that_a_forced_recovery_has_cut_off_does_not_hold_the_task_up(tables: SqlTarget) -> None:
    async with sink(tables, epoch=50, generation=40) as lost:
        await write(lost, order("o/1"), progress=b'{"x": 1}')
    async with sink(tables, epoch=1 << 40, generation=1) as recovered:
        assert recovered.progress == b'{"x": 1}'
    assert await tables.rows("SELECT generation FROM raftnode_tasks") == [(1,)]


async def test_a_goodbye_that_is_cut_short_is_no_error_in_the_log(
    tables: SqlTarget, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sql_engine, "CLOSE_TIMEOUT_S", 0)
    async with sink(tables) as opened:
        await write(opened, order("o/1"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.postgres
@pytest.mark.parametrize("as_url", [False, True])
async def test_with_a_search_path_the_tables_and_the_fence_stand_in_that_schema(
    postgres_target: SqlTarget, as_url: bool
) -> None:
    await postgres_target.execute(
        'CREATE SCHEMA "Of Ours"', 'CREATE TABLE "Of Ours".t (id text, v int)', "CREATE TABLE t (id text)"
    )
    url = postgres_target.connection.url
    text = (
        url.set(drivername="postgresql", query={"search_path": '"Of Ours"'}).render_as_string(hide_password=False)
        if as_url
        else f"Host={url.host};Port={url.port};Username={url.username};Database={url.database};"
        "Search Path='\"Of Ours\"'"
    )
    there = SqlTarget("there", postgres_target.configuration | {"ConnectionString": text})
    for epoch in (10, 11):
        async with sink(there, epoch=epoch, tables=(SqlTable("t", "id"),)) as opened:
            await write(opened, DocumentRows("o/1", ("t",), [("t", {"v": epoch})]))
    assert await postgres_target.rows('SELECT * FROM "Of Ours".t') == [("o/1", 11)]
    tables = (
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name IN ('t', 'raftnode_tasks')"
    )
    assert sorted(await postgres_target.rows(tables)) == [
        ("Of Ours", "raftnode_tasks"), ("Of Ours", "t"), ("public", "t"),
    ]  # fmt: skip
