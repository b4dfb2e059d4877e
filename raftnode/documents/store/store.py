"""The document store of one database on one node: SQLite behind an asyncio face.

Writes that arrive together share one transaction and one fsync (group commit); each has its own savepoint, so
that one that fails harms no other. A write is answered only after the fsync. Reads see the last commit and
wait for no writer.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog

from raftnode.documents import change_vector
from raftnode.documents.errors import DocumentInvalid, StoreClosed, StoreDamaged, StoreFailed
from raftnode.documents.store import reads, rows, sqlite
from raftnode.documents.store.body import check_id, prepare
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.commit import GroupCommit
from raftnode.documents.store.fencing import FencedRequest, FenceState, FenceToken
from raftnode.documents.store.file_guard import FileGuard, check_made, note_made
from raftnode.documents.store.model import (
    Batch,
    CheckDocument,
    DeleteDocument,
    Document,
    PatchDocument,
    PutDocument,
    ReplicationBatch,
    StoreOperation,
    StoreStatistics,
    new_database_id,
)
from raftnode.documents.store.readers import IdleReaders
from raftnode.documents.store.snapshot import SnapshotMoment, StoreSnapshot
from raftnode.documents.store.writes import Writer
from raftnode.foundation.broadcast import Broadcast

log = structlog.get_logger(__name__)
T = TypeVar("T")

READERS_PER_STORE = 2
CHECKED_ON_LOOP_BYTES_MAX = 64 * 1024
"""Documents that are larger, together, are checked in a thread."""
READ_THREADS_MAX = 4
SOURCES_REMEMBERED_MAX = 1_000
READERS_IDLE_MAX = 64
_reading = ThreadPoolExecutor(READ_THREADS_MAX, thread_name_prefix="documents-read")
_idle_readers = IdleReaders(READERS_IDLE_MAX)
"""Of all stores of the process."""


class DocumentStore:
    """See the module. Made with `open`; every method raises StoreClosed after `close`, StoreFailed when the
    disk refuses, StoreDamaged when the file is corrupt."""

    def __init__(self, path: Path, tag: str, database: str, writer: Writer, commits: GroupCommit) -> None:
        """Not for callers: use `open`."""
        self.path, self.tag, self.database = path, tag, database
        self.database_id = writer.database_id
        self._writer, self._commits = writer, commits
        self._readers = asyncio.Semaphore(READERS_PER_STORE)
        self._snapshots: list[StoreSnapshot] = []
        self._snapshot_closed = asyncio.Event()
        self._closed = False
        self._damage = ""
        self._heard: dict[str, str] = {}
        commits.on_commit = self._committed
        self.on_moved: Callable[[], None] = lambda: None
        """Called after every commit."""
        self._changed = Broadcast()
        self.last_etag = writer.state.last_etag
        self.change_vector = writer.database_change_vector
        self.documents = writer.documents

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        tag: str,
        database: str,
        clock: Callable[[], int] = time.time_ns,
        mark: Path | None = None,
    ) -> "DocumentStore":
        """Open a database's file, or make it with a new database id. Raises StoreDamaged,
        StoreFailed.

        `tag` is this node's, `database` the database's name, `clock` the wall clock in ns since 1970. `mark` is a file
        elsewhere that remembers that this one was made: with it, a missing file is damage and not a new database.
        """

        def connect() -> tuple[sqlite3.Connection, Writer, FileGuard]:
            with sqlite.errors(path):
                if mark is not None:
                    check_made(path, mark)
                path.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite.connect(path)
                try:
                    sqlite.create_or_check(connection, path, database, new_database_id())
                    if mark is not None:
                        note_made(mark)
                    [(kept,)] = connection.execute("SELECT database_id FROM state").fetchall()
                    writer = Writer(connection, tag, kept, clock)
                    sqlite.free_memory(connection)
                    return connection, writer, FileGuard(path)
                except BaseException:
                    connection.close()
                    raise

        connection, writer, presence = await asyncio.get_running_loop().run_in_executor(_reading, connect)
        store = cls(path, tag, database, writer, GroupCommit(path, connection, writer, presence))
        log.info("A database was opened.", database=database, database_id=writer.database_id, last_etag=store.last_etag)
        return store

    async def close(self) -> None:
        """Finish what was begun, write everything into the one file, and let go of it."""
        if self._closed:
            return
        self._closed = True
        for snapshot in self._snapshots:
            snapshot.closing = True
        await self._commits.close()
        for _ in range(READERS_PER_STORE):
            await self._readers.acquire()
        while self._snapshots:
            self._snapshot_closed.clear()
            await self._snapshot_closed.wait()
        _idle_readers.close(self)
        self._changed.notify_all()

    async def put(
        self,
        id: str,
        document: dict[str, Any] | bytes,
        *,
        collection: str | None = None,
        expected: str | None = None,
    ) -> Document:
        """Write a document and return it as it now stands, synced to the disk.

        An `id` ending with "/" gets a unique end, the empty one becomes a GUID. The collection is the given
        one, or `@metadata.@collection`, or "@empty". `expected`: None for no check, "" for "must not exist",
        else the change vector it must have. Raises DocumentInvalid, ConcurrencyViolation, StoreBusy.
        """
        [stored] = await self.batch([PutDocument(id=id, document=document, collection=collection, expected=expected)])
        assert stored is not None
        return stored

    async def delete(self, id: str, *, expected: str | None = None) -> Document | None:
        """Delete a document and return its tombstone; None if there was none. Raises as `put`."""
        [tombstone] = await self.batch([DeleteDocument(id=id, expected=expected)])
        return tombstone

    async def batch(
        self, operations: Sequence[StoreOperation], fenced: FencedRequest | None = None
    ) -> list[Document | None]:
        """All of these in their order, or none: one transaction. Returns, and raises, what `put` and `delete` would; of
        a deletion by prefix the last tombstone. With a request of an ETL task also FenceStale."""
        given = sum(
            len(one.document) for one in operations if isinstance(one, PutDocument) and isinstance(one.document, bytes)
        )
        if given <= CHECKED_ON_LOOP_BYTES_MAX:
            steps, size = _steps(operations)
        else:
            steps, size = await asyncio.to_thread(_steps, operations)

        token = None if fenced is None else fenced.token

        def write(writer: Writer) -> list[Document | None]:
            if fenced is not None:
                writer.pass_fence(fenced)
            writer.look_for([one.id for one in operations])
            done = []
            for place, step in enumerate(steps):
                with _at(place):
                    done.append(step(writer, token))
            return done

        return await self._write(write, size)

    async def pass_fence(self, request: FencedRequest) -> FenceState:
        """Note a request of an ETL task of another database, which is refused if a newer one has been heard of. Returns
        what is known of the task then. Raises FenceStale."""
        return await self._write(lambda writer: writer.pass_fence(request), len(request.progress or b""))

    async def merge(self, batch: ReplicationBatch) -> int:
        """Take in a stretch of another store's order, replication's receiving end; `writes` has the rules. Idempotent.
        Returns up to which etag the source has been taken in now: with a gap before the stretch nothing is. Raises
        ReplicationRefused."""
        # Noted first: whoever sees the documents here must not send them back to where they came from.
        if len(self._heard) >= SOURCES_REMEMBERED_MAX:
            self._heard.clear()
        self._heard[batch.source] = change_vector.merge(self.heard_of(batch.source), batch.knowledge)
        size = sum(len(item.body) for item in batch.documents)
        return await self._write(lambda writer: writer.merge(batch), size)

    def heard_of(self, database_id: str) -> str:
        """What another database, which sends here, is known to hold since this store was opened."""
        return self._heard.get(database_id, "")

    async def purge_tombstones(self, passed: ConsumedUpTo) -> int:
        """Forget tombstones and old places that every node of the group and every task has passed. Returns how many
        tombstones went; call again while it is not 0."""
        return await self._write(lambda writer: writer.purge(passed), 0)

    async def get(self, ids: Sequence[str]) -> list[Document | None]:
        """The documents under these ids (in any case), None for each that is missing."""
        return await self._read(lambda connection: reads.get(connection, ids))

    async def page(
        self, *, start: int = 0, size: int = 25, prefix: str | None = None, collection: str | None = None
    ) -> list[Document]:
        """Some live documents: by id where a prefix is given, else the newest first."""
        return await self._read(lambda connection: reads.page(connection, start, size, prefix, collection))

    async def revisions(self, id: str) -> list[Document]:
        """The versions that lost a conflict over this document, newest first."""
        return await self._read(lambda connection: reads.revisions(connection, id))

    async def after(self, etag: int, *, limit: int, bytes_max: int, collections: frozenset[str] | None = None) -> Batch:
        """The stretch of this store's order after a place, tombstones included: at most `limit` documents
        and, beyond the first, `bytes_max` bytes of bodies. Go on from `Batch.last_etag`. Of some `collections` come
        also the documents that have left them: see `Document.formerly`."""
        own = (self.tag, self.database_id)
        return await self._read(lambda connection: reads.after(connection, own, etag, limit, bytes_max, collections))

    async def known_at(self, etag: int) -> str:
        """What this database knew when its order went up to that place: whoever has read so far holds all of it."""
        own = (self.tag, self.database_id)
        return await self._read(lambda connection: reads.known_at(connection, own, etag))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[tuple[SnapshotMoment, StoreSnapshot]]:
        """The store as of now, to be read in slices while writes go on. `close` waits for the end of the block."""
        self._check_open()
        snapshot = StoreSnapshot(self.path, (self.tag, self.database_id), _reading)
        self._snapshots.append(snapshot)
        try:
            yield await snapshot.open(), snapshot
        finally:
            try:
                await snapshot.close()
            finally:
                self._snapshots.remove(snapshot)
                self._snapshot_closed.set()

    async def accepted_from(self, source_database_id: str) -> int:
        """How far another store's order has been taken in; 0 if not at all."""
        return await self._read(lambda connection: rows.accepted(connection, source_database_id))

    async def stats(self) -> StoreStatistics:
        """The store's counts, as of one moment."""
        own = (self.tag, self.database_id)
        return await self._read(lambda connection: reads.stats(connection, own))

    async def metadata(self, key: str) -> str | None:
        """A value kept beside the documents on this node only."""
        return await self._read(lambda connection: rows.metadata(connection, key))

    async def set_metadata(self, key: str, value: str) -> None:
        """Keep a small value beside the documents, on this node only."""
        await self._write(lambda writer: writer.set_metadata(key, value), len(value))

    async def wait_changed(self, after_etag: int, timeout_s: float | None) -> int:
        """Wait until something stands after a place, or the time is over. Returns the last etag."""
        await self._wait(lambda: self.last_etag > after_etag, timeout_s)
        return self.last_etag

    async def wait_known(self, after_etag: int, change_vector: str, timeout_s: float | None) -> None:
        """Wait until something stands after a place, or the database change vector is another, or the time is over."""
        await self._wait(lambda: self.last_etag > after_etag or self.change_vector != change_vector, timeout_s)

    async def _wait(self, condition: Callable[[], bool], timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._check_open()
                    await self._changed.wait()
        except TimeoutError:
            return  # whoever waits looks at what there is, and so sees that nothing has come

    def _committed(self) -> None:
        self.last_etag = self._writer.state.last_etag
        self.change_vector = self._writer.database_change_vector
        self.documents = self._writer.documents
        self._changed.notify_all()
        self.on_moved()

    @property
    def all_live(self) -> bool:
        """Whether each place of the order is that of a live document: nothing was ever deleted or overwritten here, so
        there is nothing to forget."""
        return self.last_etag == self.documents

    def look(self) -> StoreDamaged | StoreFailed | None:
        """A look at the disk, for a thread: what is wrong with the file, if anything. `damage` takes it."""
        try:
            self._commits.check_present()
        except (StoreDamaged, StoreFailed) as error:
            return error
        return None

    def damage(self, seen: StoreDamaged | StoreFailed | None) -> str:
        """Why this file can serve no longer: a read or write met damage, or the file is gone, as a look at the disk has
        `seen`. Empty while it can."""
        if isinstance(seen, StoreDamaged):
            # Closing takes the write-ahead log away.
            if not self._closed:
                self._damage = self._damage or str(seen)
        elif seen is not None:
            log.warning("A database file could not be checked.", database=self.database, reason=str(seen))
        return self._damage

    async def _write(self, run: Callable[[Writer], T], size: int) -> T:
        self._check_open()
        try:
            return await self._commits.submit(run, size)
        except StoreDamaged as error:
            self._damage = self._damage or str(error)
            raise

    async def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()

        def job() -> T:
            with sqlite.errors(self.path):
                connection = _idle_readers.take(self) or sqlite.connect(self.path)
                try:
                    return run(connection)
                finally:
                    _idle_readers.give_back(self, connection)

        # The place is given back when the thread is done, which may be after the caller was cancelled.
        await self._readers.acquire()
        future = asyncio.get_running_loop().run_in_executor(_reading, job)
        future.add_done_callback(self._read_done)
        return await asyncio.shield(future)

    def _read_done(self, future: asyncio.Future[Any]) -> None:
        self._readers.release()
        error = None if future.cancelled() else future.exception()
        if isinstance(error, StoreDamaged):
            self._damage = self._damage or str(error)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"database {self.database!r} is closed on this node")


@contextmanager
def _at(place: int) -> Iterator[None]:
    """Says which operation of a batch is refused."""
    try:
        yield
    except DocumentInvalid as error:
        error.place = place
        raise


Step = Callable[[Writer, FenceToken | None], Document | None]


def _steps(operations: Sequence[StoreOperation]) -> tuple[list[Step], int]:
    steps: list[Step] = []
    size = 0
    for place, operation in enumerate(operations):
        with _at(place):
            step, bytes_ = _step(operation)
        steps.append(step)
        size += bytes_
    return steps, size


def _step(operation: StoreOperation) -> tuple[Step, int]:
    """What an operation does within a transaction, and its size. The document is checked here, before it waits."""
    expected = operation.expected
    if isinstance(operation, DeleteDocument):
        id = operation.id
        if operation.prefixed:
            return (lambda writer, token: writer.delete_prefix(id, token)), 0
        return (lambda writer, token: writer.delete(id, expected, token)), 0
    if isinstance(operation, CheckDocument):
        tracked = operation
        return (lambda writer, token: writer.check(tracked.id, tracked.expected)), 0
    if isinstance(operation, PatchDocument):
        patch = operation
        size = sum(len(bytes(one.value)) for one in patch.operations)
        return (lambda writer, token: writer.patch(patch)), size
    id = check_id(operation.id)
    prepared = prepare(id, operation.document, operation.collection)
    return (lambda writer, token: writer.put(id, prepared, expected, token)), len(prepared.body)
