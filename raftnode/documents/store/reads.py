"""What can be asked of a store. Every function is one read transaction: a consistent moment of the file."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence

from raftnode.documents.store import rows
from raftnode.documents.store.model import Batch, Document, StoreStatistics
from raftnode.foundation.names import fold

SCAN_ROWS_MAX = 50_000
PAGE_SIZE_MAX = 100_000


@contextlib.contextmanager
def moment(connection: sqlite3.Connection) -> Iterator[None]:
    """A read transaction."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def get(connection: sqlite3.Connection, ids: Sequence[str]) -> list[Document | None]:
    """The live documents under these ids, in their order."""
    with moment(connection):
        found = [rows.find(connection, fold(id)) for id in ids]
    return [None if version is None or version.deleted else version for version in found]


def page(
    connection: sqlite3.Connection, start: int, size: int, prefix: str | None, collection: str | None
) -> list[Document]:
    """Live documents: with a prefix by id, else newest first."""
    where, values, order = ["deleted = 0"], [], "etag DESC"
    if prefix is not None:
        where.append("key >= ? AND key < ?")
        values += [fold(prefix), fold(prefix) + "\U0010ffff"]
        order = "key"
    if collection is not None:
        where.append("collection = ? COLLATE NOCASE")
        values.append(collection)
    return [
        rows.document(row)
        for row in connection.execute(
            f"SELECT {rows.COLUMNS} FROM documents WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ? OFFSET ?",
            (*values, min(size, PAGE_SIZE_MAX), start),
        )
    ]


def revisions(connection: sqlite3.Connection, id: str) -> list[Document]:
    """The kept losers of conflicts over a document, newest first."""
    found = connection.execute(
        f"SELECT {rows.COLUMNS} FROM revisions WHERE key = ? ORDER BY revision DESC", (fold(id),)
    )
    return [rows.document(row) for row in found]


def after(
    connection: sqlite3.Connection,
    own: tuple[str, str],
    etag: int,
    limit: int,
    bytes_max: int,
    collections: frozenset[str] | None,
) -> Batch:
    """A stretch of the store's order after a place; see `model.Batch`. `own` is this store's tag and database id. Of
    some collections come also the documents that have left them."""
    wanted = None if collections is None else {fold(name) for name in collections}
    with moment(connection):
        state = rows.state(connection)
        places = connection.execute(
            "SELECT l.etag, l.doc, d.collection, d.size, d.formerly FROM log l JOIN documents d ON d.doc = l.doc "
            "WHERE l.etag > ? ORDER BY l.etag LIMIT ?",
            (etag, SCAN_ROWS_MAX),
        )
        taken: dict[int, int] = {}
        reached, size, scanned, full = etag, 0, 0, False
        for place, doc, collection, bytes_, formerly in places:
            # A document has a place for each of its versions and is handed out once, at the first of them.
            if doc not in taken and _among(wanted, collection, formerly):
                if len(taken) >= limit or (taken and size + bytes_ > bytes_max):
                    full = True  # this place belongs to the next batch: `reached` must stay below it
                    break
                taken[doc] = place
                size += bytes_
            reached, scanned = place, scanned + 1
        # At the end the place is the last etag that was given, even if the log has forgotten it, as it was that of a
        # tombstone which is purged: a reader would never seem to have caught up otherwise.
        end = not full and scanned < SCAN_ROWS_MAX
        reached = max(reached, state.last_etag) if end else reached
        return Batch(
            items=rows.numbered(connection, list(taken)),
            last_etag=reached,
            change_vector=as_of(connection, own, state, reached),
            held=as_of(connection, own, state, state.last_etag),
            end=end,
            purged_last_modified=state.purged_last_modified,
            places=tuple(taken.values()),
            fences=tuple(rows.fences(connection).values()) if end else (),
        )


def known_at(connection: sqlite3.Connection, own: tuple[str, str], etag: int) -> str:
    """What the store knew at a place; `own` is its tag and database id."""
    with moment(connection):
        return as_of(connection, own, rows.state(connection), etag)


def _among(wanted: set[str] | None, collection: str, formerly: str) -> bool:
    if wanted is None or fold(collection) in wanted:
        return True
    return bool(formerly) and any(earlier in wanted for _, earlier in rows.places(formerly))


def as_of(connection: sqlite3.Connection, own: tuple[str, str], state: rows.StoreCounters, etag: int) -> str:
    """The change vector of the writes that stand at or before a place. `own` is this store's tag and database id."""
    # Below the compacted part's end places are missing, so that nothing can be told of them.
    if etag < state.compacted_etag:
        return ""
    tag, database_id = own
    return rows.with_own(rows.knowledge_as_of(connection, etag), tag, min(etag, state.own_etag), database_id)


def stats(connection: sqlite3.Connection, own: tuple[str, str]) -> StoreStatistics:
    """The store's counts."""
    with moment(connection):
        state, counts, collections = (
            rows.state(connection),
            rows.counts(connection),
            rows.collections(connection),
        )
        return StoreStatistics(
            documents=sum(collections.values()),
            tombstones=counts.get("tombstones", 0),
            conflicts=counts.get("conflicts", 0),
            revisions=counts.get("revisions", 0),
            last_etag=state.last_etag,
            database_change_vector=as_of(connection, own, state, state.last_etag),
            collections=collections,
            size_bytes=connection.execute(
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            ).fetchone()[0],
        )
