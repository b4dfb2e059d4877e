"""Connections to targets: a few for each target and node, taken for one transaction and given back.

A database server has a limited number of connections (PostgreSQL: 100), and a node has any number of tasks. A task
that waits for documents holds none, and one that no task has used for a while is closed. Whoever asks first is served
first. Nothing of a session outlasts a transaction, so it does not matter which connection a task gets, nor which one
of the server's a pooler such as PgBouncer gives it.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from raftnode.foundation.broadcast import Broadcast
from tasks.kinds.registry import TaskFailed
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.connection_string import SqlConnection

log = structlog.get_logger(__name__)

IDLE_S = 5.0
"""A connection that no task has used for so long is closed."""
LONG_WAIT_S = 10.0
"""A task that waits this long for a connection says so in the log."""


class _ServerFull(Exception):
    """The server allows no connection more."""


class Pooled:
    """A connection and the driver's object beneath it."""

    def __init__(self, connection: AsyncConnection, driver: Any) -> None:
        self.connection, self._driver = connection, driver
        self.idle_since_s = 0.0

    @property
    def usable(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        gone = getattr(self._driver, "is_closed", None)
        return not (self.connection.closed or self.connection.invalidated or (gone is not None and gone()))

    async def abort(self) -> None:
        """Make whatever the connection is doing fail now, without a word to the server."""
        await sql_engine.abort(self._driver)

    async def close(self) -> None:
        """Close it; its thread has ended when this returns."""
        try:
            async with asyncio.timeout(sql_engine.CLOSE_TIMEOUT_S):
                await self.connection.close()
        except (SQLAlchemyError, OSError):
            await self.abort()
            with suppress(SQLAlchemyError, OSError):
                await self.connection.invalidate()


class SqlPool:
    """The connections of a node to one target; `held` are those in tasks' hands."""

    def __init__(self, target: SqlConnection, limits: SqlLimits, application: str = "raftnode") -> None:
        self.target, self.limits = target, limits
        self._engine = sql_engine.create(target, application, limits.statement_timeout_ms)
        # An SQLite file has one writer at a time: others would only wait for its lock, and not in turn.
        self._free = asyncio.Semaphore(1 if sql_engine.is_sqlite(target) else limits.connections_max)
        self.held: set[Pooled] = set()
        self._idle: list[Pooled] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._refused: tuple[float, TaskFailed] = (0.0, TaskFailed())
        self._given_back = Broadcast()

    @asynccontextmanager
    async def connection(self, task: str) -> AsyncIterator[Pooled]:
        """A connection outside of any transaction, in turn; `task` names who asks, in the log. After any error it is
        closed. Raises TaskFailed when the target cannot be reached."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        waiting = loop.call_later(LONG_WAIT_S, self._tell, task)
        try:
            await self._free.acquire()
        finally:
            waiting.cancel()
        try:
            if self._refused[0] > asked_s:  # meanwhile, for another task: it need not be tried for each one in turn
                raise self._refused[1]
            pooled = await self._taken()
            self.held.add(pooled)
            try:
                yield pooled
            except BaseException:
                await pooled.close()
                raise
            else:
                self._give_back(pooled)
            finally:
                self.held.remove(pooled)
                # Whoever waits for one that is given back looks at it now, the next ones at the next.
                self._given_back.notify_all()
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close every connection that no task holds."""
        for pooled in self._idle:
            self._close(pooled)
        self._idle.clear()
        if self._closing:
            await asyncio.wait(self._closing)
        await self._engine.dispose()

    async def _taken(self) -> Pooled:
        """One that is idle, else a new one. Where the server allows fewer than there may be here, one that another task
        gives back."""
        while True:
            if pooled := self._reused():
                return pooled
            try:
                return await self._opened()
            except _ServerFull as full:
                if not (self.held or self._idle):
                    raise TaskFailed(str(full)) from full
            if not self._idle:
                await self._given_back.wait()

    def _reused(self) -> Pooled | None:
        while self._idle:
            pooled = self._idle.pop()
            if pooled.usable:
                return pooled
            self._close(pooled)
        return None

    async def _opened(self) -> Pooled:
        try:
            connection = await self._engine.connect()
        except (SQLAlchemyError, OSError) as error:
            unusable = sql_engine.unusable(error, self.target)
            if sql_engine.is_full(error):
                raise _ServerFull(str(unusable)) from error
            self._refused = asyncio.get_running_loop().time(), unusable
            raise unusable from error
        return Pooled(connection, (await connection.get_raw_connection()).driver_connection)

    def _give_back(self, pooled: Pooled) -> None:
        loop = asyncio.get_running_loop()
        pooled.idle_since_s = loop.time()
        self._idle.append(pooled)
        loop.call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        until_s = asyncio.get_running_loop().time() - IDLE_S
        for pooled in [p for p in self._idle if p.idle_since_s <= until_s]:
            self._idle.remove(pooled)
            self._close(pooled)

    def _close(self, pooled: Pooled) -> None:
        closing = asyncio.create_task(pooled.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.error("A connection to a target could not be closed.", target=str(self.target), exc_info=error)

    def _tell(self, task: str) -> None:
        log.info(
            "A task waits for a connection to its target: as many as tasks.sql_connections_max allows are in use.",
            task=task,
            target=str(self.target),
            waiting_s=LONG_WAIT_S,
        )


class SqlPools:
    """The pools of a node, by target. One that no task uses any more goes with its last connection."""

    def __init__(self, limits: SqlLimits, application: str = "raftnode") -> None:
        self._limits, self._application = limits, application
        self._pools: weakref.WeakValueDictionary[tuple[object, ...], SqlPool] = weakref.WeakValueDictionary()

    def pool(self, target: SqlConnection, command_timeout_s: int | None = None) -> SqlPool:
        """The target's pool: the same for every task with the same address, user, password and limit for a statement
        (None for the node's)."""
        key = (*target.address, command_timeout_s)
        pool = self._pools.get(key)
        if pool is None:
            limits = self._limits
            if command_timeout_s is not None:
                limits = replace(limits, statement_timeout_ms=command_timeout_s * 1000)
            pool = self._pools[key] = SqlPool(target, limits, self._application)
        return pool

    async def close(self) -> None:
        """Close the connections that are idle."""
        for pool in list(self._pools.values()):
            await pool.close()
