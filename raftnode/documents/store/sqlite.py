"""One SQLite file a database: how it is opened, what is in it, and what its errors mean."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from raftnode.documents.errors import StoreDamaged, StoreError, StoreFailed
from raftnode.foundation.atomic_files import sync_directory

APPLICATION_ID: Final = 0x52_46_4E_44
SCHEMA_VERSION: Final = 3
CHECK_BYTES_MAX: Final = 256 * 1024 * 1024
"""Files up to this size are checked page by page when opened; in larger ones damage shows when it is met."""
BUSY_TIMEOUT_MS: Final = 10_000
PATH_BYTES_MAX: Final = 512 - len("-journal")
"""Longest path that SQLite opens, with room for the files that it puts beside it."""

# fences: what is known of ETL tasks of other databases that write here, see fencing.FenceState.
# log: every version ever committed here, at its place (etag) in the store's order; compaction thins it.
# knowledge: from this etag on, the change vector of other databases' writes that are held here.
# state: one row, see rows.State.
_SCHEMA: Final = """
CREATE TABLE documents (
    doc INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL, collection TEXT NOT NULL,
    etag INTEGER NOT NULL, change_vector TEXT NOT NULL, last_modified TEXT NOT NULL, deleted INTEGER NOT NULL,
    origin TEXT NOT NULL, resolved INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL,
    formerly TEXT NOT NULL DEFAULT '', fences TEXT NOT NULL DEFAULT '');
CREATE INDEX live ON documents (etag) WHERE deleted = 0;
CREATE INDEX in_collection ON documents (collection COLLATE NOCASE, etag) WHERE deleted = 0;
CREATE INDEX tombstones ON documents (etag) WHERE deleted = 1;
CREATE TABLE log (etag INTEGER PRIMARY KEY, doc INTEGER NOT NULL);
CREATE TABLE knowledge (etag INTEGER PRIMARY KEY, change_vector TEXT NOT NULL);
CREATE TABLE accepted (source TEXT PRIMARY KEY, etag INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE revisions (
    revision INTEGER PRIMARY KEY, key TEXT NOT NULL, id TEXT NOT NULL, collection TEXT NOT NULL, etag INTEGER NOT NULL,
    change_vector TEXT NOT NULL, last_modified TEXT NOT NULL, deleted INTEGER NOT NULL, origin TEXT NOT NULL,
    resolved INTEGER NOT NULL, body BLOB NOT NULL, formerly TEXT NOT NULL DEFAULT '',
    fences TEXT NOT NULL DEFAULT '');
CREATE INDEX revisions_of ON revisions (key, revision);
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), database_id TEXT NOT NULL, database TEXT NOT NULL,
    last_etag INTEGER NOT NULL, own_etag INTEGER NOT NULL, compacted_etag INTEGER NOT NULL,
    purged_last_modified TEXT NOT NULL);
"""
_FENCES: Final = """
CREATE TABLE fences (
    source TEXT NOT NULL, task INTEGER NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    progress BLOB NOT NULL, progress_epoch INTEGER NOT NULL, progress_sequence INTEGER NOT NULL,
    PRIMARY KEY (source, task)) WITHOUT ROWID;
"""

_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


def connect(path: Path) -> sqlite3.Connection:
    """A connection for one thread at a time, with every committed transaction synced to the disk."""
    length = len(os.fsencode(path.absolute()))
    if length > PATH_BYTES_MAX:
        raise StoreFailed(
            f"the path {path} has {length} bytes and SQLite opens up to {PATH_BYTES_MAX}: give node.data_dir a shorter "
            "one"
        )
    with errors(path):
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


def free_memory(connection: sqlite3.Connection) -> None:
    """Let go of the pages that the connection has read: half of the memory of one at rest, of which a node may have a
    thousand."""
    connection.execute("PRAGMA shrink_memory")


def create_or_check(connection: sqlite3.Connection, path: Path, database: str, database_id: str) -> None:
    """Make the tables in a new file, or see that an old one is ours and whole. Raises StoreDamaged."""
    with errors(path):
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application == 0 and tables == 0:
            create_tables(connection, database, database_id)
            sync_directories(path.parent)
            return
        if application != APPLICATION_ID:
            raise StoreDamaged(f"{path} is a SQLite file, but not a document store of this program: move it away")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreDamaged(
                f"{path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION}): upgrade"
            )
        _check(connection, path)
        if version < 2:
            _remember_places(connection)
        if version < 3:
            _remember_fences(connection)


def create_tables(connection: sqlite3.Connection, database: str, database_id: str) -> None:
    """Make an empty store in an empty file."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in (_SCHEMA + _FENCES).split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO state VALUES (1, ?, ?, 0, 0, 0, '')", (database_id, database))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _remember_places(connection: sqlite3.Connection) -> None:
    """From schema 1 to 2: documents remember the other places that they had. What was forgotten stays so."""
    connection.execute("BEGIN IMMEDIATE")
    for table in ("documents", "revisions"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN formerly TEXT NOT NULL DEFAULT ''")
    connection.execute("PRAGMA user_version = 2")
    connection.execute("COMMIT")


def _remember_fences(connection: sqlite3.Connection) -> None:
    """From schema 2 to 3: versions have the tokens of the ETL tasks that wrote them."""
    connection.execute("BEGIN IMMEDIATE")
    for table in ("documents", "revisions"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN fences TEXT NOT NULL DEFAULT ''")
    connection.execute(_FENCES)
    connection.execute("PRAGMA user_version = 3")
    connection.execute("COMMIT")


def sync_directories(folder: Path) -> None:
    """Makes a new file's own entry durable, and those of the folders just made for it."""
    for directory in (folder, *list(folder.parents)[:2]):
        sync_directory(directory)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECK_BYTES_MAX:
        return
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreDamaged(_damaged(path, found))


def _damaged(path: Path, reason: object) -> str:
    return (
        f"the database file {path} is damaged ({' '.join(str(reason).split())}): restore it from a "
        "backup, or remove this node from the database group, delete the file and add the node again, so that it is "
        "filled by the others"
    )


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours."""
    try:
        yield
    except StoreError:
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGE:
            raise StoreDamaged(_damaged(path, error)) from error
        raise StoreFailed(f"the disk refused an operation on {path}: {error}; nothing of it was kept") from error
    except OSError as error:
        raise StoreFailed(f"the disk refused an operation on {path}: {error}; nothing of it was kept") from error
