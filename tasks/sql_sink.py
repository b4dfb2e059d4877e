"""The SQL sink: rows, progress and epoch in one transaction of the target, so that a task's effects happen once.

The table `raftnode_tasks` in the target is the fence. The first statement of every transaction raises the task's epoch
there unless a newer one stands; then the runner is stale and nothing of it reaches the target. A runner does this once,
committed, before it reads its progress, so that what it reads is final. (The scheme is that of fencing tokens:
Kleppmann, "How to do distributed locking", 2016.)
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tasks import sql_engine
from tasks.kinds import Superseded, TaskFailed
from tasks.sql_connection import SqlConnection
from tasks.sql_tables import SqlTable, Target, reflect
from tasks.sql_types import DoesNotFit

FENCE = sa.Table(
    "raftnode_tasks",
    sa.MetaData(),
    sa.Column("task", sa.String(512), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False),
)
DELETE_IDS_MAX = 500

T = TypeVar("T")


class StaleEpoch(Superseded):
    """A newer run of the task has reached the sink: this one must do nothing more."""


class DocumentRows(msgspec.Struct, frozen=True):
    """What one document becomes: `tables` are those from which its old rows go; none of `rows` for a deletion."""

    id: str
    tables: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Any]]] = ()


class Refusal(msgspec.Struct, frozen=True):
    """A document that the database refused by itself, and why."""

    id: str
    reason: str


class Verdict(Protocol):
    """Whose fault refusals are: raises TaskFailed when they are the task's and not single documents'."""

    def __call__(self, accepted: int, refusals: Sequence[Refusal], *, final: bool) -> None:
        """Called after every refusal, and with `final` at the end of the batch."""


class SqlSink:
    """One runner's connection to its target. After any error it is closed and a new one opened.

    A cancelled call aborts the connection, so that a target that has fallen silent cannot keep a body from ending.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        connection: AsyncConnection,
        driver: object,
        key: str,
        epoch: int,
        guard: Callable[[], None],
    ) -> None:
        self._engine, self._connection, self._driver = engine, connection, driver
        self._key, self._epoch, self._guard = key, epoch, guard
        self._aborted = False
        self._targets: dict[str, Target] = {}
        self.progress = b"{}"

    @classmethod
    async def open(
        cls,
        target: SqlConnection,
        tables: Sequence[SqlTable],
        *,
        key: str,
        epoch: int,
        generation: int,
        guard: Callable[[], None],
        application: str = "raftnode",
    ) -> "SqlSink":
        """Connect, raise the epoch, and read the progress of this generation into `progress` (JSON, b"{}" if none).

        `key` names the task in all clusters; `guard` raises when the runner has lost its lease. Raises StaleEpoch,
        TaskFailed.
        """
        engine = sql_engine.create(target, application)
        try:
            connection = await engine.connect()
        except (SQLAlchemyError, OSError) as error:
            raise _unusable(error, target) from error
        driver = (await connection.get_raw_connection()).driver_connection
        sink = cls(engine, connection, driver, key, epoch, guard)
        try:
            await sink._abortable(sink._prepare(tables, generation))
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
        self, documents: Sequence[DocumentRows], progress: Callable[[int], bytes], verdict: Verdict
    ) -> list[Refusal]:
        """Replace the rows of these documents and store the progress, in one transaction.

        `progress` is called with the number of refused documents. Returns the documents that the database refused by
        themselves: their old rows stay. Raises StaleEpoch, TaskFailed.
        """
        try:
            return await self._abortable(self._write(documents, progress, verdict))
        except (SQLAlchemyError, OSError) as error:
            raise TaskFailed(f"the target failed: {sql_engine.said(error)}") from error

    async def _write(
        self, documents: Sequence[DocumentRows], progress: Callable[[int], bytes], verdict: Verdict
    ) -> list[Refusal]:
        async with self._transaction() as connection:
            writing = _Writing(connection, self._targets, verdict, self._check)
            await writing.write(documents)
            self._guard()
            self._check()
            await self._store(connection, progress(len(writing.refused)))
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
            await self._raise_epoch()
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

    async def _raise_epoch(self) -> None:
        mine = sa.update(FENCE).where(FENCE.c.task == self._key, FENCE.c.epoch <= self._epoch)
        result = await self._connection.execute(mine.values(epoch=self._epoch))
        if result.rowcount != 1:
            raise StaleEpoch(f"a newer run than epoch {self._epoch} has reached the target")

    async def _prepare(self, tables: Sequence[SqlTable], generation: int) -> None:
        await self._make_fence(generation)
        async with self._transaction() as connection:
            row = (
                await connection.execute(
                    sa.select(FENCE.c.generation, FENCE.c.progress).where(FENCE.c.task == self._key)
                )
            ).one()
            if row.generation > generation:
                raise StaleEpoch(f"the task was reset: generation {row.generation} has replaced {generation}")
            if row.generation == generation:
                self.progress = row.progress.encode()
            else:
                await self._store(connection, b"{}", generation=generation)
            self._targets = await connection.run_sync(reflect, tables)

    async def _make_fence(self, generation: int) -> None:
        async with self._begun():
            if not await self._connection.run_sync(lambda c: sa.inspect(c).has_table(FENCE.name)):
                await self._connection.run_sync(FENCE.create, checkfirst=True)
            await self._follow_rename(generation)
            dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
            row = dialect.insert(FENCE).values(
                task=self._key, epoch=self._epoch, generation=generation, progress="{}", updated_at=_now()
            )
            await self._connection.execute(row.on_conflict_do_nothing())

    async def _follow_rename(self, generation: int) -> None:
        """A renamed task takes its row along, so that it goes on from its progress and fences runs under its old name.

        The generation, the log index of a task's creation, tells which row was its own. A row under the new name was
        another task's, which is gone: this run's epoch is above all of its.
        """
        cluster, database, kind, _ = self._key.split("/", 3)
        former = sa.and_(
            FENCE.c.task.startswith(f"{cluster}/{database}/{kind}/", autoescape=True),
            FENCE.c.task != self._key,
            FENCE.c.generation == generation,
        )
        row = (await self._connection.execute(sa.select(FENCE.c.epoch).where(former))).first()
        if row is None:
            return
        if row.epoch > self._epoch:
            raise StaleEpoch(f"the task was renamed: epoch {row.epoch} has replaced {self._epoch}")
        await self._connection.execute(sa.delete(FENCE).where(FENCE.c.task == self._key))
        await self._connection.execute(sa.update(FENCE).where(former).values(task=self._key))

    async def _store(self, connection: AsyncConnection, progress: bytes, **more: Any) -> None:
        row = sa.update(FENCE).where(FENCE.c.task == self._key)
        await connection.execute(row.values(progress=progress.decode(), updated_at=_now(), **more))


class _Writing:
    """One batch in one transaction. What the database refuses is halved until the document stands alone."""

    def __init__(
        self,
        connection: AsyncConnection,
        targets: Mapping[str, Target],
        verdict: Verdict,
        check: Callable[[], None],
    ) -> None:
        self._connection, self._targets, self._verdict, self._check = connection, targets, verdict, check
        self.accepted = 0
        self.refused: list[Refusal] = []

    async def write(self, documents: Sequence[DocumentRows]) -> None:
        fitting = []
        for document in documents:
            try:
                fitting.append((document, self._converted(document)))
            except DoesNotFit as error:
                self._refuse(document.id, str(error))
        if fitting:
            await self._write(fitting)
        self._verdict(self.accepted, self.refused, final=True)

    def _converted(self, document: DocumentRows) -> list[tuple[Target, dict[str, Any]]]:
        return [(t := self._targets[table], t.convert(document.id, row)) for table, row in document.rows]

    def _refuse(self, id: str, reason: str) -> None:
        self.refused.append(Refusal(id, reason))
        self._verdict(self.accepted, self.refused, final=False)

    async def _write(self, documents: list[tuple[DocumentRows, list[tuple[Target, dict[str, Any]]]]]) -> None:
        try:
            async with self._connection.begin_nested():
                await self._delete([document for document, _ in documents])
                await self._insert([row for _, rows in documents for row in rows])
                await self._check_deferred()
        except (SQLAlchemyError, OverflowError) as error:
            if not sql_engine.blames_data(error):
                raise
            if len(documents) == 1:
                self._refuse(documents[0][0].id, sql_engine.said(error))
                return
            middle = len(documents) // 2
            await self._write(documents[:middle])
            await self._write(documents[middle:])
            return
        self.accepted += len(documents)

    async def _delete(self, documents: list[DocumentRows]) -> None:
        ids: dict[str, list[str]] = {}
        for document in documents:
            for table in document.tables:
                ids.setdefault(table, []).append(document.id)
        for table in reversed(list(ids)):
            target = self._targets[table]
            if target.insert_only:
                continue
            for start in range(0, len(ids[table]), DELETE_IDS_MAX):
                self._check()
                some = ids[table][start : start + DELETE_IDS_MAX]
                await self._connection.execute(sa.delete(target.table).where(target.id_column.in_(some)))

    async def _insert(self, rows: list[tuple[Target, dict[str, Any]]]) -> None:
        """Rows of the same columns go together; tables in the order in which the script loaded to them first."""
        groups: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
        tables = {}
        for target, row in rows:
            tables[target.name] = target.table
            groups.setdefault((target.name, tuple(row)), []).append(row)
        for name, table in tables.items():
            for (of, _), some in groups.items():
                if of == name:
                    self._check()
                    await self._connection.execute(sa.insert(table), some)

    async def _check_deferred(self) -> None:
        """Have deferred constraints speak now: at commit they would refuse the whole batch."""
        if self._connection.dialect.name == "postgresql":
            await self._connection.execute(sa.text("SET CONSTRAINTS ALL IMMEDIATE"))
            await self._connection.execute(sa.text("SET CONSTRAINTS ALL DEFERRED"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _unusable(error: BaseException, target: SqlConnection) -> TaskFailed:
    return TaskFailed(target.redacted(f"the target {target} is not usable: {sql_engine.said(error)}"))
