"""This node's copies of databases: opened, closed, deleted and kept in step with the group as the record says.

One loop compares the record with what is open. A change that does not concern a database costs it nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from raftnode.documents.database_copies import DatabaseCopies, DatabaseCopy
from raftnode.documents.errors import StoreClosed, StoreDamaged, StoreError
from raftnode.documents.replication.sender import Destination, DocumentSender, SenderStatus
from raftnode.documents.store.cleaning import ConsumedUpTo, passed
from raftnode.documents.store.folders import MADE, away, file, folder, move, remove
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.background import set_or_after
from raftnode.foundation.http_client import HttpClient
from raftnode.foundation.names import fold
from raftnode.record.commands import Changes
from raftnode.record.model import Database, Record, Topology

log = structlog.get_logger(__name__)

RETRY_S = 2.0
CLEAN_S = 60.0
WATCH_S = 1.0
WATCHED_MAX = 100
"""So many files are looked at in one go: of a thousand databases each has its turn within ten seconds."""


@dataclass
class _OpenDatabase:
    """A database on this node: its store once it is open, and the senders to the rest of the group. One that is `lost`
    was damaged or deleted while it was open, and is not opened again by this process: what is in the place of its file
    may be anything. `cleaned` is what all had passed, and where the store was, when nothing was left to forget."""

    name: str
    path: Path
    mark: Path
    store: DocumentStore | None = None
    error: str = ""
    lost: bool = False
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False
    cleaned: tuple[ConsumedUpTo | None, int, str] | None = None
    senders: dict[Destination, tuple[DocumentSender, asyncio.Task[None]]] = field(default_factory=dict)


class Databases:
    """The copies of one node. `run` must be running; `record` gives the newest record.

    `deleted` is called with a database's name once this node's copy is gone, until the record no longer waits for it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tag: str,
        record: Callable[[], Record],
        http: HttpClient,
        deleted: Callable[[str], Awaitable[None]],
        batch_documents_max: int = 1024,
        batch_bytes_max: int = 8 * 1024 * 1024,
        clean_s: float = CLEAN_S,
    ) -> None:
        self.directory, self._tag, self._record, self._http = directory, tag, record, http
        self._deleted = deleted
        self._batch = (batch_documents_max, batch_bytes_max)
        self._clean_s = clean_s
        self._open: dict[str, _OpenDatabase] = {}
        self._wake = asyncio.Event()
        self._out_of_step: set[str] = set()
        self._extra: dict[str, DocumentSender] = {}
        self._handed_over: set[str] = set()
        self._copies = DatabaseCopies(self._shown)

    def changed(self, record: Record, changes: Changes) -> None:
        """The record has changed; see `raftnode.cluster.replica.RecordListener`."""
        if changes.cluster:
            self._look_at([*record.databases, *self._open])
        self._look_at(changes.databases)

    def _look_at(self, names: Iterable[str]) -> None:
        """These databases, by folded name, may not be in step with the record any more."""
        self._out_of_step.update(names)
        if self._out_of_step:
            self._wake.set()

    async def run(self) -> None:
        """Keeps the copies in step with the record until cancelled; then closes them."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._clean())
                group.create_task(self._watch())
                self._look_at(self._record().databases)
                while True:
                    self._wake.clear()
                    names, self._out_of_step = self._out_of_step, set()
                    waiting = await self._reconcile(self._record(), names, group)
                    self._copies.moved(*names)
                    await set_or_after(self._wake, RETRY_S if waiting else None)
                    self._out_of_step |= waiting
        finally:
            await asyncio.gather(*(self._close(folded) for folded in list(self._open)))

    async def store(self, name: str) -> DocumentStore:
        """The store of a database that this node holds; opened if it is not yet. Raises StoreError."""
        database = self._record().database(name)
        if database is None or not self._holds(database):
            raise StoreClosed(f"Database '{name}' is not on node {self._tag}.")
        copy = self._copy(database)
        try:
            return await self._opened(copy)
        except StoreClosed:
            if self._open.get(fold(name)) is copy:
                raise
        # It was closed while this waited, say because the database was disabled and enabled again: the record decides.
        return await self.store(name)

    def status(self) -> Mapping[str, DatabaseCopy]:
        """The copies by folded name."""
        return self._copies.told(self._record().databases)

    def sends(self, folded: str, tag: str, sender: DocumentSender | None) -> None:
        """A mentor's filling of a Promotable begins, or has ended (None): its place is shown with the others."""
        key = f"{folded}/{tag}"
        if sender is None:
            self._extra.pop(key, None)
        else:
            sender.on_moved = partial(self._copies.moved, folded)
            self._extra[key] = sender
        self._copies.moved(folded)

    def sent_to(self, folded: str, tag: str) -> SenderStatus | None:
        """How far this node's own sender to a Member or Rehab of the group is; None while there is none."""
        copy = self._open.get(folded)
        senders = copy.senders.items() if copy is not None else ()
        return next((sender.status for destination, (sender, _) in senders if destination.tag == tag), None)

    async def _reconcile(self, record: Record, names: set[str], group: asyncio.TaskGroup) -> set[str]:
        """One pass over these databases. Gives those that failed, or wait, and must be looked at again."""
        waiting: set[str] = set()
        self._copies.moved(*names)
        changed = {folded: record.databases[folded] for folded in names if folded in record.databases}
        self._handed_over -= {f for f in names if f not in changed or not _leaves(changed[f], self._tag)}
        held = {folded: d for folded, d in changed.items() if self._holds(d)}
        for folded in names & self._open.keys():
            if folded not in held or self._open[folded].path != self._path(held[folded]):
                await self._close(folded)
        # At once: a node with many databases serves each as soon as it can, and none waits for all the others.
        opened = await asyncio.gather(*(self._held(record, database, group) for database in held.values()))
        waiting.update(folded for folded, well in zip(held, opened, strict=True) if not well)
        for folded, database in changed.items():
            if self._tag in database.deletion_in_progress:
                stays = _leaves(database, self._tag) and not await self._handed(folded, database)
                if stays or not await self._delete(folded, database):
                    waiting.add(folded)
        return waiting

    async def _held(self, record: Record, database: Database, group: asyncio.TaskGroup) -> bool:
        """Opens this node's copy and aims its replication. False: that failed."""
        try:
            copy = self._copy(database)
            if copy.lost and copy.store is not None:
                await self._shut(copy)
            store = await self._opened(copy)
        except StoreError:
            return False  # the copy has the reason, which is logged and reported, and is tried again
        await self._aim(copy, store, _destinations(record, database, self._tag), group)
        return True

    def _holds(self, database: Database) -> bool:
        return _holds(database, self._tag) and fold(database.name) not in self._handed_over

    async def _handed(self, folded: str, database: Database) -> bool:
        """Whether a copy that was replaced has handed over what it had. It is closed once each Member has it all."""
        if folded in self._handed_over:
            return True
        copy = self._open.get(folded)
        if copy is None or copy.store is None:
            # A copy whose file is gone has nothing to hand over.
            return copy is not None and copy.error != "" and not copy.path.exists()
        store = copy.store
        sent = {destination.tag: sender.status.last_sent_etag for destination, (sender, _) in copy.senders.items()}
        reached = min((sent.get(tag, -1) for tag in database.topology.members), default=-1)
        if reached < store.last_etag:
            return False
        await self._close(folded)
        if reached < store.last_etag:
            # Something was written in the last moment: the copy is opened again and hands that over, too.
            return False
        log.info("A copy that was replaced has handed over all it had.", database=database.name, last_etag=reached)
        self._handed_over.add(folded)
        self._copies.moved(folded)
        return True

    def _copy(self, database: Database) -> _OpenDatabase:
        folded, path = fold(database.name), self._path(database)
        copy = self._open.get(folded)
        if copy is None:
            mark = self.directory / MADE / folder(folded) / path.stem
            copy = self._open[folded] = _OpenDatabase(name=database.name, path=path, mark=mark)
        if copy.path != path:
            raise StoreClosed(
                f"Database '{database.name}' was created again; node {self._tag} still closes the old one."
            )
        return copy

    def _path(self, database: Database) -> Path:
        return file(self.directory, database.name, database.topology.database_topology_id_base64)

    async def _opened(self, copy: _OpenDatabase) -> DocumentStore:
        async with copy.opening:
            if copy.closed:
                raise StoreClosed(f"Database '{copy.name}' was just closed on node {self._tag}.")
            if copy.lost:
                raise StoreDamaged(copy.error)
            if copy.store is None:
                try:
                    copy.store = await DocumentStore.open(copy.path, tag=self._tag, database=copy.name, mark=copy.mark)
                    copy.store.on_moved = partial(self._copies.moved, fold(copy.name))
                    copy.error = ""
                except StoreError as error:
                    if str(error) != copy.error:
                        log.error("A database cannot be opened.", database=copy.name, reason=str(error))
                    copy.error = str(error)
                    raise
                finally:
                    self._copies.moved(fold(copy.name))
            return copy.store

    async def _aim(
        self, copy: _OpenDatabase, store: DocumentStore, wanted: frozenset[Destination], group: asyncio.TaskGroup
    ) -> None:
        for destination in [d for d in copy.senders if d not in wanted]:
            _, task = copy.senders.pop(destination)
            await _ended(task)
        for destination in wanted - copy.senders.keys():
            documents_max, bytes_max = self._batch
            sender = DocumentSender(
                store,
                destination,
                self._http,
                batch_documents_max=documents_max,
                batch_bytes_max=bytes_max,
                heard=store.heard_of,
            )
            sender.on_moved = partial(self._copies.moved, fold(copy.name))
            copy.senders[destination] = (sender, group.create_task(sender.run()))

    async def _close(self, folded: str) -> None:
        # It stays listed until it is closed, so that nobody opens the file a second time meanwhile.
        copy = self._open[folded]
        copy.closed = True
        self._copies.moved(folded)
        await self._shut(copy)
        del self._open[folded]
        self._copies.moved(folded)

    async def _shut(self, copy: _OpenDatabase) -> None:
        async with copy.opening:
            for _, task in copy.senders.values():
                await _ended(task)
            copy.senders.clear()
            if copy.store is not None:
                await copy.store.close()
                copy.store = None
                self._copies.moved(fold(copy.name))

    async def _watch(self) -> None:
        """Finds copies whose file was damaged or deleted under this node; the next pass closes them. Of very many only
        so many are looked at at a time."""
        left: list[str] = []
        while True:
            await asyncio.sleep(WATCH_S)
            turn, left = self._to_watch(left or list(self._open))
            seen = await asyncio.to_thread(lambda stores: [store.look() for store in stores], [s for _, s in turn])
            for (copy, store), found in zip(turn, seen, strict=True):
                if copy.store is not store or copy.lost:
                    continue
                error = store.damage(found)
                if error:
                    log.error("A copy of a database is closed, as its file fails.", database=copy.name, reason=error)
                    copy.error, copy.lost = error, True
                    self._copies.moved(fold(copy.name))
                    self._look_at([fold(copy.name)])

    def _to_watch(self, names: list[str]) -> tuple[list[tuple[_OpenDatabase, DocumentStore]], list[str]]:
        """The copies of a turn, and the names of those that are left for the next ones."""
        copies = [copy for name in names[:WATCHED_MAX] if (copy := self._open.get(name)) is not None]
        turn = [(copy, copy.store) for copy in copies if copy.store is not None and not copy.lost]
        return turn, names[WATCHED_MAX:]

    async def _clean(self) -> None:
        """From time to time, forget what everybody has passed. A database in which nothing has happened since costs
        nothing."""
        while True:
            await asyncio.sleep(self._clean_s)
            for folded, copy in list(self._open.items()):
                database, store = self._record().databases.get(folded), copy.store
                if database is None or store is None or store.all_live:
                    continue
                sent = {d.tag: sender.status.last_sent_etag for d, (sender, _) in copy.senders.items()}
                everybody = passed(database, self._tag, store.database_id, sent)
                state = everybody, store.last_etag, store.change_vector
                if everybody is None or state == copy.cleaned:
                    await asyncio.sleep(0)
                    continue
                try:
                    while gone := await store.purge_tombstones(everybody):
                        log.info(
                            "Tombstones that every copy has passed were forgotten.", database=copy.name, count=gone
                        )
                    copy.cleaned = state
                except StoreError as error:
                    log.warning("Tombstones cannot be forgotten.", database=copy.name, reason=str(error))

    async def _delete(self, folded: str, database: Database) -> bool:
        """Removes the files (a soft delete moves them away) and says so. False: the record still waits for it."""
        hard = database.deletion_in_progress[self._tag] == "HardDelete"
        try:
            files = self.directory / folder(folded)
            if hard:
                await asyncio.to_thread(remove, files)
            else:
                await asyncio.to_thread(move, files, away(self.directory, folded))
            await asyncio.to_thread(remove, self.directory / MADE / folder(folded))
        except OSError as error:
            log.error("A database cannot be deleted.", database=database.name, reason=str(error))
            return False
        await self._deleted(database.name)
        return False

    def _shown(self, folded: str, database: Database) -> DatabaseCopy | None:
        if not self._holds(database):
            return None
        copy = self._open.get(folded)
        if copy is None or copy.store is None or copy.lost or copy.closed:
            error = copy.error if copy else ""
            return DatabaseCopy(status="Faulted" if error else "Loading", error=error)
        senders = [(destination.tag, sender) for destination, (sender, _) in copy.senders.items()]
        prefix = f"{folded}/"
        extra = [(key.removeprefix(prefix), s) for key, s in self._extra.items() if key.startswith(prefix)]
        return DatabaseCopy(
            status="Loaded",
            database_id=copy.store.database_id,
            documents=copy.store.documents,
            last_etag=copy.store.last_etag,
            change_vector=copy.store.change_vector,
            sent={tag: sender.status.last_sent_etag for tag, sender in senders + extra},
            replication_errors={tag: s.status.error for tag, s in senders + extra if s.status.error},
        )


def destinations(topology: Topology, tag: str) -> frozenset[str]:
    """Whom a node of the group sends its documents to: Members and Rehabs send to all Members and Rehabs. A Promotable
    sends to nobody, and receives from its mentor only, whose sender is a task."""
    full = frozenset(topology.members) | frozenset(topology.rehabs)
    return full - {tag} if tag in full else frozenset()


def _destinations(record: Record, database: Database, tag: str) -> frozenset[Destination]:
    tags = destinations(database.topology, tag)
    return frozenset(
        Destination(other, record.nodes[other].url, database.name) for other in tags if other in record.nodes
    )


def _holds(database: Database, tag: str) -> bool:
    return database.topology.state_of(tag) is not None and not database.disabled


def _leaves(database: Database, tag: str) -> bool:
    return tag in database.deletion_in_progress and database.topology.state_of(tag) is not None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
