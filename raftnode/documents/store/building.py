"""A new store's file, made of documents that come from elsewhere, such as a backup, before anybody has opened it.

Nobody reads the file while it is made, so nothing is synced before the end, and every version gets a place and change
vector of the new database. Runs in threads: nothing here waits for a loop.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from raftnode.documents import change_vector as cv
from raftnode.documents.store import sqlite
from raftnode.documents.store.model import new_database_id
from raftnode.foundation.atomic_files import sync_file
from raftnode.foundation.names import fold

BuiltRow = tuple[str, str, bytes, str]
"""A document: id, collection, body, last modified."""

_PUT = """INSERT INTO documents
    (key, id, collection, body, etag, change_vector, last_modified, deleted, origin, resolved, formerly, size)
VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 0, '', ?)
ON CONFLICT (key) DO UPDATE SET id = excluded.id, collection = excluded.collection, body = excluded.body,
    etag = excluded.etag, change_vector = excluded.change_vector, last_modified = excluded.last_modified,
    origin = excluded.origin, size = excluded.size"""


class StoreBuilder:
    """Makes the file at `path`, which must not be there. Call `finish` or `abandon`. Raises StoreFailed."""

    def __init__(self, path: Path, *, tag: str, database: str) -> None:
        self._path, self._tag, self._id = path, tag, new_database_id()
        self._etag = 0
        with sqlite.errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("PRAGMA synchronous = OFF")
            sqlite.create_tables(self._connection, database, self._id)

    def put(self, documents: Iterable[BuiltRow]) -> None:
        """Add these, or put them in the place of those of their ids."""
        with sqlite.errors(self._path):
            self._connection.execute("BEGIN")
            self._connection.executemany(_PUT, map(self._row, documents))
            self._connection.execute("COMMIT")

    def remove(self, ids: Sequence[str]) -> None:
        """Take these away. No tombstone stays, as nobody has had them from this database."""
        with sqlite.errors(self._path):
            self._connection.execute("BEGIN")
            self._connection.executemany("DELETE FROM documents WHERE key = ?", [(fold(id),) for id in ids])
            self._connection.execute("COMMIT")

    def finish(self) -> int:
        """The file is whole, and on the disk. Returns how many documents it has."""
        with sqlite.errors(self._path):
            run = self._connection.execute
            run("BEGIN")
            run("INSERT INTO log SELECT etag, doc FROM documents")
            for name, count in self._counted():
                run("INSERT INTO counts VALUES (?, ?)", (f"collection {name}", count))
            run("UPDATE state SET last_etag = ?, own_etag = ?", (self._etag, self._etag))
            run("COMMIT")
            [(documents,)] = run("SELECT count(*) FROM documents").fetchall()
            self._connection.close()
            sync_file(self._path)
            sqlite.sync_directories(self._path.parent)
        return int(documents)

    def abandon(self) -> None:
        """Away with it."""
        self._connection.close()
        self._path.unlink(missing_ok=True)

    def _row(self, document: BuiltRow) -> tuple[object, ...]:
        id, collection, body, last_modified = document
        self._etag += 1
        origin = cv.dot(self._tag, self._etag, self._id)
        return fold(id), id, collection, body, self._etag, origin, last_modified, origin, len(body)

    def _counted(self) -> list[tuple[str, int]]:
        counts: dict[str, int] = {}
        found = self._connection.execute("SELECT collection, count(*) FROM documents GROUP BY collection")
        for name, count in found:
            counts[fold(name)] = counts.get(fold(name), 0) + count
        return sorted(counts.items())
