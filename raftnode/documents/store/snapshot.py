"""A moment of a store that stays as it was while writes go on: a read transaction of its own, read in slices.

SQLite keeps what the moment needs in the write-ahead log, which grows by what is written meanwhile; so a snapshot is
closed as soon as it is read.
"""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import msgspec

from raftnode.documents.errors import StoreClosed
from raftnode.documents.store import reads, rows, sqlite
from raftnode.foundation.threads import in_executor

SnapshotRow = tuple[str, str, bytes, int, str, str]
"""A document or tombstone: id, collection, body, etag, change vector, last modified."""

_COLUMNS = "id, collection, body, etag, change_vector, last_modified"
_ROWS_MAX = 20_000


class SnapshotMoment(msgspec.Struct, frozen=True, kw_only=True):
    """Which moment it is: how far the store's order goes, all it knows, how many live documents it has, and a time
    that no tombstone which it has forgotten is later than (empty: it has forgotten none)."""

    last_etag: int
    change_vector: str
    documents: int
    purged_last_modified: str


class StoreSnapshot:
    """See the module. Made by `DocumentStore.snapshot`; methods raise StoreClosed once the store closes."""

    def __init__(self, path: Path, own: tuple[str, str], executor: Executor) -> None:
        self._path, self._own, self._executor = path, own, executor
        self._connection: sqlite3.Connection | None = None
        self.closing = False

    async def open(self) -> SnapshotMoment:
        """Take the moment."""
        return await in_executor(self._executor, self._open)

    def _open(self) -> SnapshotMoment:
        with sqlite.errors(self._path):
            self._connection = connection = sqlite.connect(self._path)
            connection.execute("BEGIN")
            state = rows.state(connection)
            return SnapshotMoment(
                last_etag=state.last_etag,
                change_vector=reads.as_of(connection, self._own, state, state.last_etag),
                documents=rows.live(connection),
                purged_last_modified=state.purged_last_modified,
            )

    async def slice(self, after_etag: int, *, deleted: bool, bytes_max: int) -> Sequence[SnapshotRow]:
        """The next live documents, or tombstones, by etag: at most `bytes_max` bytes of bodies beyond the first one.
        Empty at the end."""
        if self.closing:
            raise StoreClosed(f"the database in {self._path.name} is being closed on this node")
        return await in_executor(self._executor, lambda: self._slice(after_etag, deleted, bytes_max))

    def _slice(self, after_etag: int, deleted: bool, bytes_max: int) -> list[SnapshotRow]:
        assert self._connection is not None
        found: list[SnapshotRow] = []
        size = 0
        with sqlite.errors(self._path):
            cursor = self._connection.execute(
                f"SELECT {_COLUMNS} FROM documents WHERE deleted = {int(deleted)} AND etag > ? ORDER BY etag LIMIT ?",
                (after_etag, _ROWS_MAX),
            )
            for row in cursor:
                size += len(row[2])
                if found and size > bytes_max:
                    break
                found.append(row)
        return found

    async def close(self) -> None:
        """Let go of the moment."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await in_executor(self._executor, connection.close)
