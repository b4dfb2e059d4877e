"""The SQL sink: rows, progress and epoch in one transaction of the target, so that a task's effects happen once.

`fence` keeps stale runners out, `rows` writes, `pool` has the connections; here are the transactions.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tasks.etl.refusals import DocumentRefusal, RefusalCheck
from tasks.kinds.registry import TaskFailed
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.fence import Fence, FencedTask
from tasks.sinks.sql.pool import Pooled, SqlPool
from tasks.sinks.sql.rows import BatchWrite, DocumentRows
from tasks.sinks.sql.tables import SqlTable, TargetSchema, reflect
from tasks.sinks.sql.types import NotWritable

T = TypeVar("T")


class _FenceHeld(Exception):
    """Another transaction has held the task's row for longer than this one may wait."""


class SqlSink:
    """One runner's way into its target. It holds a connection only while it writes.

    A cancelled call aborts its connection, so that a target that has fallen silent cannot keep a body from ending.
    """

    fenced = True

    def __init__(
        self,
        pool: SqlPool,
        tables: Sequence[SqlTable],
        quoted: bool,
        fence: Fence,
        guard: Callable[[], None],
        application: str,
    ) -> None:
        self._pool, self._tables, self._quoted = pool, tables, quoted
        self._fence, self._guard = fence, guard
        # PostgreSQL keeps ASCII of it, and a database of another encoding than UTF-8 may refuse the rest.
        self._application = application.encode("ascii", "replace").decode()
        self._aborted = False
        self._schema = TargetSchema()
        self.progress = b"{}"

    @classmethod
    async def open(
        cls,
        pool: SqlPool,
        tables: Sequence[SqlTable],
        *,
        task: FencedTask,
        epoch: int,
        guard: Callable[[], None],
        application: str = "raftnode",
        quoted: bool = True,
    ) -> "SqlSink":
        """Raise the epoch, and read the task's progress into `progress` (JSON, b"{}" if none).

        `guard` raises when the runner has lost its lease. `application`, "raftnode A db/kind/task", names its
        transactions in PostgreSQL. `quoted` tells how names of tables are written, see `names.split`.
        Raises StaleEpoch, TaskFailed.
        """
        sink = cls(pool, tables, quoted, Fence(task, epoch), guard, application)
        try:
            await sink._with_connection(sink._prepare)
        except (SQLAlchemyError, OSError) as error:
            raise sql_engine.unusable(error, pool.target) from error
        return sink

    async def write(
        self,
        documents: Sequence[DocumentRows],
        progress: Callable[[Sequence[DocumentRefusal]], bytes],
        check_refusals: RefusalCheck,
    ) -> list[DocumentRefusal]:
        """Replace the rows of these documents and store the progress, in one transaction.

        `progress` is called with the refused documents. Returns the documents that the database refused by
        themselves: their old rows stay. Raises StaleEpoch, NotWritable, TaskFailed.
        """
        try:
            return await self._with_connection(lambda c: self._write(c, documents, progress, check_refusals))
        except (SQLAlchemyError, OSError) as error:
            raise TaskFailed(f"the target failed: {sql_engine.said(error)}") from error

    async def find(self, tables: Sequence[str]) -> bool:
        """See that these tables (by folded name) are there; False if they were when that was last looked at. Raises
        NotWritable, StaleEpoch, TaskFailed."""
        if self._schema.missing.keys().isdisjoint(tables):
            return False
        try:
            await self._with_connection(self._look)
        except (SQLAlchemyError, OSError) as error:
            raise TaskFailed(f"the target failed: {sql_engine.said(error)}") from error
        self._schema.check(tables)
        return True

    async def _look(self, connection: AsyncConnection) -> None:
        async with self._transaction(connection):
            self._schema = await self._read_schema(connection)

    async def _write(
        self,
        connection: AsyncConnection,
        documents: Sequence[DocumentRows],
        progress: Callable[[Sequence[DocumentRefusal]], bytes],
        check_refusals: RefusalCheck,
    ) -> list[DocumentRefusal]:
        async with self._transaction(connection):
            writing = BatchWrite(
                connection, self._schema, lambda: self._read_schema(connection), check_refusals, self._check
            )
            try:
                await writing.write(documents)
            except SQLAlchemyError as error:
                if sql_engine.is_of_server(error):
                    raise
                raise NotWritable(f"the target failed: {sql_engine.said(error)}") from error
            finally:
                self._schema = writing.schema
            self._guard()
            self._check()
            await self._fence.store(connection, progress(writing.refused))
            return writing.refused

    def _check(self) -> None:
        if self._aborted:
            raise TaskFailed("the write was given up")

    async def _with_connection(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        self._aborted = False
        async with self._pool.connection(self._application) as pooled:
            return await self._abortable(pooled, self._told(pooled.connection, work))

    async def _told(self, connection: AsyncConnection, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work(connection)
        except _FenceHeld:
            raise await self._who_holds(connection) from None

    async def _abortable(self, pooled: Pooled, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns. Cancelled, it fails at once and has ended, its thread too, when this raises."""
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._aborted = True
            while not task.done():
                await pooled.abort()
                await asyncio.wait([task], timeout=sql_engine.BUSY_ATTEMPT_S)
            task.exception()
            raise

    @asynccontextmanager
    async def _transaction(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """A transaction of this run, behind the fence."""
        async with self._begun(connection), AsyncExitStack() as stack:
            await self._at_fence(self._fence.raise_epoch(connection))
            if connection.dialect.name == "mysql":
                await sql_engine.limit_locks(connection, self._pool.limits.statement_timeout_ms)
                # A deadlock, or a statement that commits by itself, ends a transaction there, and the next statement
                # begins another, which has not passed the fence. The savepoint goes with the one that has, and to
                # release it then fails.
                await stack.enter_async_context(connection.begin_nested())
            yield

    @asynccontextmanager
    async def _begun(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """A transaction. An SQLite file that others write to is waited for here, where the wait can be cancelled."""
        until_s = time.monotonic() + sql_engine.BUSY_TIMEOUT_S
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(connection.begin())
                    break
                except OperationalError as error:
                    if not sql_engine.is_locked(error) or self._aborted or time.monotonic() > until_s:
                        raise
            timeout_ms, path = self._pool.limits.statement_timeout_ms, self._pool.target.search_path
            await sql_engine.limit_transaction(connection, self._application, timeout_ms, path)
            yield

    async def _at_fence(self, step: Coroutine[Any, Any, None]) -> None:
        """A step that waits for others' transactions: one of a run that is over may still be open."""
        try:
            await step
        except SQLAlchemyError as error:
            if not sql_engine.is_lock_timeout(error):
                raise
            raise _FenceHeld from error

    async def _who_holds(self, connection: AsyncConnection) -> TaskFailed:
        async with connection.begin():
            others = await sql_engine.who_has_it(connection, self._application)
        return TaskFailed(
            f"an earlier transaction still holds this task's row in the target: {others or 'of somebody else'}; the "
            f"server ends it by itself when its runner is gone, after one statement has taken "
            f"{self._pool.limits.statement_timeout_ms} ms at the latest"
        )

    async def _prepare(self, connection: AsyncConnection) -> None:
        async with self._begun(connection):
            await self._at_fence(self._fence.make(connection))
        async with self._transaction(connection):
            self.progress = await self._fence.progress(connection)
            self._schema = await self._read_schema(connection)

    async def _read_schema(self, connection: AsyncConnection) -> TargetSchema:
        return await connection.run_sync(partial(reflect, tables=self._tables, quoted=self._quoted))
