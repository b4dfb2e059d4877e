"""The SQL of a store's tables, each statement as a small function. All take the connection, within its transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from raftnode.documents import change_vector as cv
from raftnode.documents.store.fencing import FenceState, FenceToken, TaskName, Tokens
from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import JsonDecoder
from raftnode.foundation.names import fold

COLUMNS = "id, collection, body, etag, change_vector, last_modified, deleted, origin, resolved, formerly, fences"

VALUES_PER_LOOK = 256
_VALUES = ", ".join("?" * VALUES_PER_LOOK)
_PRESENT = f"SELECT key FROM documents WHERE key IN ({_VALUES})"
_NUMBERED = f"SELECT doc, {COLUMNS} FROM documents WHERE doc IN ({_VALUES})"
_TOMBSTONES = "tombstones"
_COLLECTION = "collection "
_places: JsonDecoder[tuple[tuple[str, str], ...]] = JsonDecoder(tuple[tuple[str, str], ...])
_tokens: JsonDecoder[Tokens] = JsonDecoder(tuple[FenceToken, ...])


class StoreCounters(msgspec.Struct, frozen=True):
    """The store's counters: the last place given out, the last write made here, how far the log is compacted, and a
    time that no purged tombstone, here or at a source, was later than (empty: none was purged)."""

    last_etag: int
    own_etag: int
    compacted_etag: int
    purged_last_modified: str


def document(row: Sequence[object]) -> Document:
    """A document from a row of COLUMNS."""
    id, collection, body, etag, vector, modified, deleted, origin, resolved, formerly, fences = row
    flags = bool(deleted), origin, bool(resolved)
    history = places(formerly), tokens(fences)
    return Document(id, collection, body, etag, vector, modified, *flags, *history)  # type: ignore[arg-type]


def places(formerly: object) -> tuple[tuple[str, str], ...]:
    """`Document.formerly` from its column: JSON, empty for none."""
    return _places.decode(str(formerly)) if formerly else ()


@lru_cache(maxsize=1024)
def tokens(fences: object) -> Tokens:
    """`Document.fences` from its column: JSON, empty for none. All versions of a request have the same."""
    return _tokens.decode(str(fences)) if fences else ()


@lru_cache(maxsize=1024)
def _fences(tokens: Tokens) -> str:
    return msgspec.json.encode(tokens).decode() if tokens else ""


def _values(version: Document) -> tuple[object, ...]:
    """The values of COLUMNS."""
    formerly = msgspec.json.encode(version.formerly).decode() if version.formerly else ""
    return (*msgspec.structs.astuple(version)[:-2], formerly, _fences(version.fences))


def state(connection: sqlite3.Connection) -> StoreCounters:
    [row] = connection.execute("SELECT last_etag, own_etag, compacted_etag, purged_last_modified FROM state")
    return StoreCounters(*row)


def find(connection: sqlite3.Connection, key: str) -> Document | None:
    """The document or tombstone under a folded id."""
    row = connection.execute(f"SELECT {COLUMNS} FROM documents WHERE key = ?", (key,)).fetchone()
    return None if row is None else document(row)


def numbered(connection: sqlite3.Connection, docs: Sequence[int]) -> list[Document]:
    """The documents and tombstones of these rows, in their order."""
    found: dict[int, Document] = {}
    for doc, *row in _looked_up(connection, _NUMBERED, docs):
        found[doc] = document(row)
    return [found[doc] for doc in docs]


def below(connection: sqlite3.Connection, prefix: str) -> list[Document]:
    """The live documents whose folded ids begin with that prefix, in order of id."""
    found = connection.execute(
        f"SELECT {COLUMNS} FROM documents WHERE key >= ? AND key < ? AND deleted = 0 ORDER BY key",
        (prefix, prefix + "\U0010ffff"),
    )
    return [document(row) for row in found]


def fences(connection: sqlite3.Connection) -> dict[TaskName, FenceState]:
    """What is known of ETL tasks that write here."""
    found = connection.execute(
        "SELECT source, task, epoch, sequence, progress, progress_epoch, progress_sequence FROM fences"
    )
    states = (FenceState(*row) for row in found)
    return {state.name: state for state in states}


def set_fence(connection: sqlite3.Connection, state: FenceState) -> None:
    connection.execute("INSERT OR REPLACE INTO fences VALUES (?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(state))


_INSERT = """INSERT INTO documents
    (key, id, collection, body, etag, change_vector, last_modified, deleted, origin, resolved, formerly, fences, size)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_REPLACE = """UPDATE documents SET id = ?2, collection = ?3, body = ?4, etag = ?5, change_vector = ?6,
    last_modified = ?7, deleted = ?8, origin = ?9, resolved = ?10, formerly = ?11, fences = ?12, size = ?13
WHERE key = ?1 RETURNING doc"""


def present(connection: sqlite3.Connection, keys: Sequence[str]) -> set[str]:
    """Those of the folded ids under which there is a document or tombstone."""
    return {key for (key,) in _looked_up(connection, _PRESENT, keys)}


def _looked_up(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
    """What a statement with VALUES_PER_LOOK values finds for any number of them."""
    for first in range(0, len(values), VALUES_PER_LOOK):
        some = values[first : first + VALUES_PER_LOOK]
        # Always the same statement, which is prepared once.
        yield from connection.execute(statement, (*some, *(some[0],) * (VALUES_PER_LOOK - len(some))))


def store(connection: sqlite3.Connection, new: Document, old: Document | None, counted: dict[str, int]) -> None:
    """Put a version in the place of the old one, and note its place in the log. What that changes in the counts is
    added to `counted`, for `count`."""
    values = (fold(new.id), *_values(new), len(new.body))
    if old is None:
        doc = connection.execute(_INSERT, values).lastrowid
    else:
        [(doc,)] = connection.execute(_REPLACE, values).fetchall()
    connection.execute("INSERT INTO log VALUES (?, ?)", (new.etag, doc))
    before, after = _counted_as(old), _counted_as(new)
    if before != after:
        if before is not None:
            counted[before] = counted.get(before, 0) - 1
        if after is not None:
            counted[after] = counted.get(after, 0) + 1


def _counted_as(version: Document | None) -> str | None:
    if version is None:
        return None
    return _TOMBSTONES if version.deleted else _COLLECTION + fold(version.collection)


def count(connection: sqlite3.Connection, name: str, change: int) -> None:
    connection.execute("INSERT INTO counts VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = n + ?2", (name, change))


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, n FROM counts"))


def live(connection: sqlite3.Connection) -> int:
    """How many live documents there are."""
    return sum(n for name, n in counts(connection).items() if name.startswith(_COLLECTION))


def collections(connection: sqlite3.Connection) -> dict[str, int]:
    """How many live documents each collection has, under the name that its newest document gives it."""
    found = {}
    for name, n in counts(connection).items():
        if n and name.startswith(_COLLECTION):
            # NOCASE knows the capitals of ASCII alone; a name with others is given folded.
            [(spelled,)] = connection.execute(
                "SELECT collection FROM documents WHERE collection = ? COLLATE NOCASE AND deleted = 0 "
                "ORDER BY etag DESC LIMIT 1",
                (name.removeprefix(_COLLECTION),),
            ).fetchall() or [(name.removeprefix(_COLLECTION),)]
            found[spelled] = n
    return found


def tombstones(connection: sqlite3.Connection, up_to_etag: int) -> Iterator[Document]:
    """The tombstones up to a place, in their order."""
    found = connection.execute(
        f"SELECT {COLUMNS} FROM documents WHERE deleted = 1 AND etag <= ? ORDER BY etag", (up_to_etag,)
    )
    return map(document, found)


def forget(connection: sqlite3.Connection, gone: Sequence[Document]) -> None:
    """Remove tombstones and their places."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS gone (doc INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM gone")
    connection.executemany(
        "INSERT INTO gone SELECT doc FROM documents WHERE key = ?", [(fold(tombstone.id),) for tombstone in gone]
    )
    connection.execute("DELETE FROM log WHERE doc IN (SELECT doc FROM gone)")
    connection.execute("DELETE FROM documents WHERE doc IN (SELECT doc FROM gone)")
    count(connection, _TOMBSTONES, -len(gone))


def log_weight(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many places of overwritten versions the log holds, and how many of newest ones."""
    [(places, newest)] = connection.execute(
        "SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM documents)"
    ).fetchall()
    return places - newest, newest


def compact(connection: sqlite3.Connection, up_to_etag: int) -> None:
    """Of the places up to there keep each document's last, and of the knowledge the last."""
    connection.execute(
        "DELETE FROM log WHERE etag <= ?1 AND etag NOT IN (SELECT max(etag) FROM log WHERE etag <= ?1 GROUP BY doc)",
        (up_to_etag,),
    )
    connection.execute(
        "DELETE FROM knowledge WHERE etag < (SELECT max(etag) FROM knowledge WHERE etag <= ?)", (up_to_etag,)
    )


def knowledge_as_of(connection: sqlite3.Connection, etag: int) -> str:
    """The change vector of other databases' writes that stand at or before this place."""
    row = connection.execute(
        "SELECT change_vector FROM knowledge WHERE etag <= ? ORDER BY etag DESC LIMIT 1", (etag,)
    ).fetchone()
    return "" if row is None else row[0]


def note_knowledge(connection: sqlite3.Connection, etag: int, vector: str, rows_max: int) -> None:
    """Remember what is known from this place on. Beyond the limit every second older note goes, which only
    makes what can be told "as of" a place between them less."""
    connection.execute("INSERT OR REPLACE INTO knowledge VALUES (?, ?)", (etag, vector))
    [(n,)] = connection.execute("SELECT count(*) FROM knowledge").fetchall()
    if n > rows_max:
        connection.execute(
            "DELETE FROM knowledge WHERE etag IN (SELECT etag FROM "
            "(SELECT etag, row_number() OVER (ORDER BY etag DESC) AS n FROM knowledge) WHERE n % 2 = 0)"
        )


def with_own(knowledge: str, tag: str, own_etag: int, database_id: str) -> str:
    """The knowledge of others' writes and this database's own up to an etag, as one vector."""
    return cv.merge(knowledge, cv.dot(tag, own_etag, database_id)) if own_etag else knowledge


def accepted(connection: sqlite3.Connection, source: str) -> int:
    row = connection.execute("SELECT etag FROM accepted WHERE source = ?", (source,)).fetchone()
    return 0 if row is None else int(row[0])


def accept(connection: sqlite3.Connection, source: str, etag: int) -> None:
    connection.execute("INSERT OR REPLACE INTO accepted VALUES (?, ?)", (source, etag))


def metadata(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM metadata WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_metadata(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO metadata VALUES (?, ?)", (key, value))


def keep_revision(connection: sqlite3.Connection, version: Document, per_document_max: int) -> None:
    """Keep a version that lost a conflict, and of each document the newest so many."""
    key = fold(version.id)
    connection.execute(
        f"INSERT INTO revisions (key, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (key, *_values(version)),
    )
    gone = connection.execute(
        "DELETE FROM revisions WHERE key = ?1 AND revision NOT IN "
        "(SELECT revision FROM revisions WHERE key = ?1 ORDER BY revision DESC LIMIT ?2)",
        (key, per_document_max),
    ).rowcount
    count(connection, "revisions", 1 - gone)
    count(connection, "conflicts", 1)
