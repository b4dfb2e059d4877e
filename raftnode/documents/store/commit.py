"""Group commit: writes that arrive together share one transaction and one fsync."""

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from raftnode.documents.errors import StoreBusy, StoreClosed, StoreDamaged, StoreError, StoreFailed
from raftnode.documents.store import sqlite
from raftnode.documents.store.file_guard import FileGuard
from raftnode.documents.store.writes import Writer
from raftnode.foundation.background import watched

log = structlog.get_logger(__name__)
T = TypeVar("T")

GROUP_WRITES_MAX = 1_000
GROUP_BYTES_MAX = 16 * 1024 * 1024
PENDING_WRITES_MAX = 10_000
PENDING_BYTES_MAX = 256 * 1024 * 1024
WRITE_THREADS_MAX = 4
"""Shared by all databases of the process; one database has at most one transaction at a time."""

_writing = ThreadPoolExecutor(WRITE_THREADS_MAX, thread_name_prefix="documents-write")


class _Write(NamedTuple):
    run: Callable[[Writer], Any]
    size: int
    future: asyncio.Future[Any]


class GroupCommit:
    """The one writer of a file. `on_commit` is called in the loop after a commit, before its writes are answered."""

    def __init__(self, path: Path, connection: sqlite3.Connection, writer: Writer, presence: FileGuard) -> None:
        self.on_commit: Callable[[], None] = lambda: None
        self._path, self._connection, self._writer = path, connection, writer
        self._presence = presence
        self._pending: deque[_Write] = deque()
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._working: list[_Write] = []
        self._failed = ""
        self._closing = False
        self._stale = False
        self._loop_task = watched(self._loop(), f"commits of {path.name}", self._give_up, may_end=True)

    async def submit(self, run: Callable[[Writer], T], size: int) -> T:
        """Have `run` called within a transaction; returns its result once the transaction is on the disk, or
        raises its error, or the disk's. `size` in bytes counts towards the limits. A write whose caller is
        cancelled may still be made.
        """
        if self._closing:
            raise StoreClosed(f"{self._path.name} is being closed")
        if self._failed:
            raise StoreFailed(self._failed)
        if len(self._pending) >= PENDING_WRITES_MAX or self._pending_bytes > PENDING_BYTES_MAX:
            raise StoreBusy(
                f"{len(self._pending)} writes with {self._pending_bytes} bytes wait for {self._path.name}, the "
                f"limits are {PENDING_WRITES_MAX} and {PENDING_BYTES_MAX}: write more slowly, or try again"
            )
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Write(run, size, future))
        self._pending_bytes += size
        self._wake.set()
        return await future

    def check_present(self) -> None:
        """Raises StoreDamaged when the file is no longer there. For a thread."""
        if self._failed:
            raise StoreDamaged(self._failed)
        with sqlite.errors(self._path):
            self._presence.check()

    async def close(self) -> None:
        """Make the writes that wait, then fold the log into the file and close it."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._loop_task])
        await asyncio.get_running_loop().run_in_executor(_writing, self._close_connection)

    def _close_connection(self) -> None:
        # It only makes the file small: all that was acknowledged is in it, or in the log beside it.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    async def _loop(self) -> None:
        while True:
            if not self._pending:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._take()
            self._working = group
            outcomes = await self._outcomes(group)
            for write, outcome in zip(group, outcomes, strict=True):
                _answer(write, outcome)
            self._working = []

    async def _outcomes(self, group: list[_Write]) -> list[Any]:
        """What became of each. A failure of our own (no memory, say) fails these writes and not those that follow."""
        outcomes: list[Any] = []
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(_writing, self._commit, group)
            if any(not isinstance(outcome, BaseException) for outcome in outcomes):
                self.on_commit()
        except Exception as error:
            log.exception("Writes failed because of a defect.", file=str(self._path), count=len(group))
            unknown = f"writing {self._path.name} failed ({error!r}); whether this was written is not known"
            return outcomes or [StoreFailed(unknown) for _ in group]
        return outcomes

    def _give_up(self, error: Exception) -> None:
        """The loop has ended: whoever waits is told, and so is whoever comes. The copy counts as faulted."""
        self._failed = f"writing {self._path.name} has ended ({error!r}): start the node again"
        for write in [*self._working, *self._pending]:
            _answer(write, StoreFailed(self._failed))
        self._working = []
        self._pending.clear()
        self._pending_bytes = 0

    def _take(self) -> list[_Write]:
        group: list[_Write] = []
        size = 0
        while self._pending and len(group) < GROUP_WRITES_MAX and (not group or size < GROUP_BYTES_MAX):
            write = self._pending.popleft()
            group.append(write)
            size += write.size
        self._pending_bytes -= size
        return group

    def _commit(self, group: list[_Write]) -> list[Any]:
        try:
            return self._transaction(group)
        except StoreFailed as error:
            # What the disk refuses together it may take one by one: a huge document must not fail the small ones.
            if len(group) > 1:
                return [outcome for write in group for outcome in self._commit([write])]
            log.warning("A write failed.", file=str(self._path), reason=str(error))
            return [error]
        except Exception as error:
            return [error for _ in group]

    def _transaction(self, group: list[_Write]) -> list[Any]:
        try:
            with sqlite.errors(self._path):
                self._connection.execute("BEGIN IMMEDIATE")
                if self._stale:
                    self._writer.load()
                    self._stale = False
                outcomes = [self._step(write) for write in group]
                self._writer.save()
                self._connection.execute("COMMIT")
                self._presence.check()
                return outcomes
        except BaseException:
            self._stale = True
            if self._connection.in_transaction:
                # The error that led here is raised; SQLite undoes by itself what it could not be told to.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _step(self, write: _Write) -> Any:
        before = self._writer.marks
        self._connection.execute("SAVEPOINT step")
        try:
            outcome = write.run(self._writer)
        except sqlite3.Error:
            raise
        except Exception as error:
            self._connection.execute("ROLLBACK TO step")
            self._writer.back_to(before)
            outcome = error
            if not isinstance(error, StoreError):
                log.exception("A write failed because of a defect.", file=str(self._path))
        self._connection.execute("RELEASE step")
        return outcome


def _answer(write: _Write, outcome: Any) -> None:
    if write.future.done():
        return
    if isinstance(outcome, BaseException):
        write.future.set_exception(outcome)
    else:
        write.future.set_result(outcome)
