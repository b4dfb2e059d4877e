"""The SQL sink: rows, progress and epoch in one transaction of the target, so that a task's effects happen once.

`sql_fence` keeps stale runners out, `sql_rows` writes; here is the connection and its transactions.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tasks import sql_engine
from tasks.kinds import TaskFailed
from tasks.sql_connection import SqlConnection
from tasks.sql_fence import Fence, FencedTask
from tasks.sql_rows import DocumentRows, Refusal, Verdict, Writing
from tasks.sql_tables import SqlTable, Target, reflect

T = TypeVar("T")


class SqlSink:
    """One runner's connection to its target. After any error it is closed and a new one opened.

    A cancelled call aborts the connection, so that a target that has fallen silent cannot keep a body from ending.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        connection: AsyncConnection,
        driver: object,
        fence: Fence,
        guard: Callable[[], None],
    ) -> None:
        self._engine, self._connection, self._driver = engine, connection, driver
        self._fence, self._guard = fence, guard
        self._aborted = False
        self._targets: dict[str, Target] = {}
        self.progress = b"{}"

    @classmethod
    async def open(
        cls,
        target: SqlConnection,
        tables: Sequence[SqlTable],
        *,
        task: FencedTask,
        epoch: int,
        guard: Callable[[], None],
        application: str = "raftnode",
    ) -> "SqlSink":
        """Connect, raise the epoch, and read the task's progress into `progress` (JSON, b"{}" if none).

        `guard` raises when the runner has lost its lease. Raises StaleEpoch,
        TaskFailed.
        """
        engine = sql_engine.create(target, application)
        try:
            connection = await engine.connect()
        except (SQLAlchemyError, OSError) as error:
            raise _unusable(error, target) from error
        driver = (await connection.get_raw_connection()).driver_connection
        sink = cls(engine, connection, driver, Fence(task, epoch), guard)
        try:
            await sink._abortable(sink._prepare(tables))
        except BaseException as error:
            await sink.close()
            if isinstance(error, SQLAlchemyError | OSError):
                raise _unusable(error, target) from error
            raise
        return sink

    async def close(self) -> None:
        """Give the connection back; its threads have ended when this returns."""
        try:
            async with asyncio.timeout(sql_engine.CLOSE_TIMEOUT_S):
                await self._connection.close()
        except (SQLAlchemyError, OSError):
            await sql_engine.abort(self._driver)
            with suppress(SQLAlchemyError, OSError):
                await self._connection.invalidate()
        await self._engine.dispose()

    async def write(
        self, documents: Sequence[DocumentRows], progress: Callable[[Sequence[Refusal]], bytes], verdict: Verdict
    ) -> list[Refusal]:
        """Replace the rows of these documents and store the progress, in one transaction.

        `progress` is called with the refused documents. Returns the documents that the database refused by
        themselves: their old rows stay. Raises StaleEpoch, TaskFailed.
        """
        try:
            return await self._abortable(self._write(documents, progress, verdict))
        except (SQLAlchemyError, OSError) as error:
            raise TaskFailed(f"the target failed: {sql_engine.said(error)}") from error

    async def _write(
        self, documents: Sequence[DocumentRows], progress: Callable[[Sequence[Refusal]], bytes], verdict: Verdict
    ) -> list[Refusal]:
        async with self._transaction() as connection:
            writing = Writing(connection, self._targets, verdict, self._check)
            await writing.write(documents)
            self._guard()
            self._check()
            await self._fence.store(connection, progress(writing.refused))
            return writing.refused

    def _check(self) -> None:
        if self._aborted:
            raise TaskFailed("the write was given up")

    async def _abortable(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns. Cancelled, it fails at once and has ended, its thread too, when this raises."""
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._aborted = True
            while not task.done():
                await sql_engine.abort(self._driver)
                await asyncio.wait([task], timeout=sql_engine.BUSY_ATTEMPT_S)
            task.exception()
            raise

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._begun():
            await self._fence.raise_epoch(self._connection)
            yield self._connection

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        """A transaction. An SQLite file that others write to is waited for here, where the wait can be cancelled."""
        until_s = time.monotonic() + sql_engine.BUSY_TIMEOUT_S
        async with AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self._connection.begin())
                    break
                except OperationalError as error:
                    if not sql_engine.is_locked(error) or self._aborted or time.monotonic() > until_s:
                        raise
            yield

    async def _prepare(self, tables: Sequence[SqlTable]) -> None:
        async with self._begun():
            await self._fence.make(self._connection)
        async with self._transaction() as connection:
            self.progress = await self._fence.progress(connection)
            self._targets = await connection.run_sync(reflect, tables)


def _unusable(error: BaseException, target: SqlConnection) -> TaskFailed:
    return TaskFailed(target.redacted(f"the target {target} is not usable: {sql_engine.said(error)}"))
