"""What a transaction does to a store: the rules of etags, change vectors, conflicts and knowledge.

**Knowledge.** A store's database change vector is a promise: every write it counts is held here, itself or a
successor. Three rules keep it true when documents are overwritten and nodes are lost.

1. Every version gets a place, its etag, in the store's order; the log remembers the places of overwritten
   versions too. A scan hands a document out, in its newest version, at the first place it had after the point
   where the scan began. So whoever has read up to etag e holds, for every version placed at or before e, that
   version or a successor.
2. What is known of other databases' writes changes only when a batch from a source was taken in whole, and
   then by what the source knew at the batch's last place, never by the vectors of the documents in it: these
   may run ahead of the order. The knowledge is noted with the etag at which it came to be true, so that it
   can be told "as of e" and handed on.
3. A batch is taken only if it begins where the last one from its source ended, or before.

**Conflicts.** A document is a last-writer-wins register: its content is that of the write with the greatest
(fences, last_modified, origin) among all writes its vector counts. Fences never become less along a chain of versions,
and last_modified grows, so a successor always beats what it replaced, and equal vectors mean equal contents on every
node, in whatever order the writes arrived. Joining different contents also counts as a write of the node that does it,
so that a task which carried both over, the loser last, meets the winner again. Joining equal contents does not, so that
nodes which resolve the same conflict come to rest.

**Fences.** A version that an ETL task of another database writes has the token of its request in its `fences`
(`fencing`), and who writes over it keeps them. So of two versions that rest on writes of one task, the one with the
newer write wins, whatever the clocks say; the time decides between versions that rest on the same one. A request whose
place is not above all that have been heard of here, from the task or from other nodes, is refused as a whole. What a
task deletes leaves a tombstone even where nothing stands, as an earlier request may have written there on another
node. A deletion by prefix leaves one for the prefix: versions below it with lower tokens are deleted wherever both
meet. Before a tombstone is purged every node has had it, and refuses earlier requests from then on.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from raftnode.documents import change_vector as cv
from raftnode.documents.errors import DocumentInvalid, FenceStale, ReplicationRefused
from raftnode.documents.store import fencing, rows, sqlite
from raftnode.documents.store.body import Prepared, may_be_id
from raftnode.documents.store.checks import check_expected, check_item, check_places, check_tokens
from raftnode.documents.store.cleaning import ConsumedUpTo
from raftnode.documents.store.fencing import FencedRequest, FenceState, FenceToken, TaskName, Tokens
from raftnode.documents.store.model import EMPTY_COLLECTION, Document, PatchDocument, ReplicationBatch
from raftnode.documents.store.patching import patched_body
from raftnode.foundation import timestamps
from raftnode.foundation.names import fold

REVISIONS_PER_DOCUMENT_MAX = 100
KNOWLEDGE_ROWS_MAX = 10_000
PURGE_MAX = 10_000
FENCES_MAX = 10_000
PROGRESS_BYTES_MAX = 64 * 1024 * 1024
"""Of all ETL tasks that write here. A batch of replication with it stays well below its limit."""
PREFIX_COLLECTION = "@prefix"
OLD_PLACES_MIN = 1_000
"""A log with fewer places of overwritten versions than this is not worth compacting."""


WriterMarks = tuple[rows.StoreCounters, str, Mapping[TaskName, FenceState], dict[str, int]]


class Writer:
    """The operations within a transaction. The caller begins, commits and rolls back; what is remembered is reset with
    `load` after a rollback, or with `back_to` after a partial one. `documents` counts the live ones as of the last
    `load` or `save`."""

    def __init__(
        self, connection: sqlite3.Connection, tag: str, database_id: str, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.tag, self.database_id = tag, database_id
        self._connection, self._clock = connection, clock
        self.load()

    def load(self) -> None:
        """Read the counters back from the file."""
        self.state = self._saved = rows.state(self._connection)
        self._counted: dict[str, int] = {}
        self._absent: set[str] = set()
        self.knowledge = rows.knowledge_as_of(self._connection, self.state.last_etag)
        self.fences: Mapping[TaskName, FenceState] = rows.fences(self._connection)
        self.documents = rows.live(self._connection)

    @property
    def marks(self) -> WriterMarks:
        """What is remembered, for `back_to`."""
        return self.state, self.knowledge, self.fences, dict(self._counted)

    def back_to(self, marks: WriterMarks) -> None:
        """Forget what came after, as the file has."""
        self.state, self.knowledge, self.fences, self._counted = marks
        self._absent.clear()

    def save(self) -> None:
        """Write the counters, before the commit. What has changed nothing stays so, and is not synced."""
        if self.state != self._saved:
            self._connection.execute(
                "UPDATE state SET last_etag = ?, own_etag = ?, compacted_etag = ?, purged_last_modified = ?",
                msgspec.structs.astuple(self.state),
            )
            self._saved = self.state
        # Once a transaction, as a thousand documents of it are mostly of one collection.
        for name, change in self._counted.items():
            if change:
                rows.count(self._connection, name, change)
        self._counted = {}
        self._absent.clear()
        self.documents = rows.live(self._connection)

    @property
    def database_change_vector(self) -> str:
        """Every write held here."""
        return rows.with_own(self.knowledge, self.tag, self.state.own_etag, self.database_id)

    def look_for(self, ids: Sequence[str]) -> None:
        """Look at once under which of these ids nothing stands, as one look for a thousand costs less than a look for
        each. It holds for this transaction, in which only this writer writes."""
        keys = [fold(id) for id in ids]
        self._absent.update(set(keys) - rows.present(self._connection, keys))

    def pass_fence(self, request: FencedRequest) -> FenceState:
        """The first step of every request of an ETL task: what is known of the task then. Raises FenceStale."""
        token = request.token
        known = self.fences.get(token.name, FenceState(token.source, token.task, 0, 0))
        if token.place <= known.place:
            raise FenceStale(token.source, token.task, token.place, known.place)
        after = known.heard(token.place)
        if request.progress is not None:
            self._check_progress(token.name, request.progress)
            progress = request.progress, token.epoch, token.sequence
            after = FenceState(token.source, token.task, token.epoch, token.sequence, *progress)
        if len(self.fences) >= FENCES_MAX and token.name not in self.fences:
            raise DocumentInvalid(f"{FENCES_MAX} ETL tasks have written here, which is the limit")
        self._remember([after])
        return after

    def _check_progress(self, name: TaskName, progress: bytes) -> None:
        """All tasks' progress is in memory, and goes along with each batch that is replicated."""
        others = sum(len(state.progress) for state in self.fences.values() if state.name != name)
        if others + len(progress) > PROGRESS_BYTES_MAX:
            raise DocumentInvalid(
                f"the progress of an ETL task has {len(progress)} bytes, and that of others which have written here "
                f"{others}; the limit is {PROGRESS_BYTES_MAX} bytes together"
            )

    def put(self, id: str, prepared: Prepared, expected: str | None, token: FenceToken | None = None) -> Document:
        """Write a document. Raises ConcurrencyViolation; DocumentInvalid if it would change its collection, which only
        ETL tasks may do."""
        etag = self.state.last_etag + 1
        if id.endswith("/"):
            id, etag = self._server_side_id(id, etag)
        row = self._find(id)
        live = row if row is not None and not row.deleted else None
        check_expected(id, live, expected)
        collection = prepared.collection
        if live is not None and fold(live.collection) == fold(collection):
            collection = live.collection
        elif live is not None and token is None:
            raise DocumentInvalid(
                f"document {id!r} is in collection {live.collection!r} and cannot become one of "
                f"{prepared.collection!r}: delete it first"
            )
        return self._write(live.id if live else id, collection, prepared.body, row, etag, token, deleted=False)

    def check(self, id: str, expected: str) -> Document | None:
        """The live document. Raises ConcurrencyViolation if it is not at that change vector."""
        row = self._find(id)
        live = row if row is not None and not row.deleted else None
        check_expected(id, live, expected)
        return live

    def patch(self, patch: PatchDocument) -> Document:
        """Change a document by a JSON patch; it stays as it is if that only tests. Raises ConcurrencyViolation;
        DocumentInvalid, also if there is none."""
        row = self._find(patch.id)
        live = row if row is not None and not row.deleted else None
        check_expected(patch.id, live, patch.expected)
        body = patched_body(live, patch)
        assert live is not None, "else that was refused"
        return live if body is None else self.put(live.id, body, None)

    def delete(self, id: str, expected: str | None, token: FenceToken | None = None) -> Document | None:
        """Leave a tombstone; None if there is nothing to delete. Raises ConcurrencyViolation."""
        row = self._find(id)
        if row is not None and not row.deleted:
            check_expected(id, row, expected)
            return self._bury(row, token)
        check_expected(id, None, expected)
        # What ends with a slash would stand for all below it.
        if token is not None and may_be_id(id) and not id.endswith("/"):
            self._bury(row or _nothing(id, EMPTY_COLLECTION), token)
        return None

    def delete_prefix(self, prefix: str, token: FenceToken | None = None) -> Document | None:
        """Delete all documents whose ids begin so. Returns the last tombstone, None if there was nothing to delete.
        Raises DocumentInvalid."""
        if token is not None and not prefix.endswith("/"):
            raise DocumentInvalid(f"an ETL task deletes by a prefix that ends with a slash, not by {prefix!r}")
        gone = [self._bury(document, token) for document in rows.below(self._connection, fold(prefix))]
        if token is not None and may_be_id(prefix):
            row = self._find(prefix)
            self._bury(row or _nothing(prefix, PREFIX_COLLECTION), token)
        return gone[-1] if gone else None

    def merge(self, batch: ReplicationBatch) -> int:
        """Take in a stretch of another store's order; see the module's rules. Returns up to which etag the source has
        been taken in now. Nothing happens if there is a gap before the stretch. Raises ReplicationRefused."""
        accepted = rows.accepted(self._connection, batch.source)
        if batch.after_etag > accepted:
            return accepted
        if batch.source == self.database_id:
            raise ReplicationRefused("a database cannot replicate to itself: check the destination's address")
        self._check_counted(batch.knowledge)
        # Once for all of them, as merging a document adds nothing to what is known of others' writes.
        held = self.database_change_vector
        self.look_for([item.id for item in batch.documents])
        for item in batch.documents:
            self._merge_one(item, held)
        self._hear(batch)
        # Last, so that the knowledge is noted with an etag at which all of the stretch has its place (rule 2).
        self._learn(batch.knowledge)
        self._purged_until(batch.purged_last_modified)
        if batch.last_etag > accepted:
            accepted = batch.last_etag
            rows.accept(self._connection, batch.source, accepted)
        return accepted

    def purge(self, passed: ConsumedUpTo) -> int:
        """Forget tombstones that everybody has passed, and thin the log there. Returns how many tombstones went.

        A tombstone whose writes are not all counted in the database change vector stays, as only that vector keeps an
        old version from coming back.
        """
        held = self.database_change_vector
        gone = [
            tombstone
            for tombstone in rows.tombstones(self._connection, passed.etag)
            if cv.dominates(held, tombstone.change_vector) and passed.frees(tombstone)
        ][:PURGE_MAX]
        if gone:
            rows.forget(self._connection, gone)
            self._purged_until(max(tombstone.last_modified for tombstone in gone))
        self._compact(min(passed.etag, self.state.last_etag))
        sqlite.free_memory(self._connection)
        return len(gone)

    def set_metadata(self, key: str, value: str) -> None:
        """Keep a small value beside the documents."""
        rows.set_metadata(self._connection, key, value)

    def _compact(self, up_to_etag: int) -> None:
        """Keep each document's last place up to there only. Worth it, and done, once most of the log is old places."""
        old, documents = rows.log_weight(self._connection)
        if up_to_etag <= self.state.compacted_etag or old < 2 * documents + OLD_PLACES_MIN:
            return
        rows.compact(self._connection, up_to_etag)
        self.state = msgspec.structs.replace(self.state, compacted_etag=up_to_etag)

    def _find(self, id: str) -> Document | None:
        key = fold(id)
        return None if key in self._absent else rows.find(self._connection, key)

    def _store(self, version: Document, before: Document | None) -> None:
        self._absent.discard(fold(version.id))
        rows.store(self._connection, version, before, self._counted)

    def _server_side_id(self, prefix: str, etag: int) -> tuple[str, int]:
        while self._find(id := f"{prefix}{etag:019d}-{self.tag}") is not None:
            etag += 1
        return id, etag

    def _bury(self, version: Document, token: FenceToken | None) -> Document:
        """Leave a tombstone in the place of the version."""
        row, etag = version if version.etag else None, self.state.last_etag + 1
        return self._write(version.id, version.collection, b"", row, etag, token, deleted=True)

    def _write(
        self,
        id: str,
        collection: str,
        body: bytes,
        row: Document | None,
        etag: int,
        token: FenceToken | None,
        *,
        deleted: bool,
    ) -> Document:
        origin = cv.dot(self.tag, etag, self.database_id)
        replaced, last_modified = self._replaced(row)
        now = self._clock() // 100
        if last_modified:
            now = max(now, timestamps.to_ticks(last_modified) + 1)
        fences = row.fences if row is not None else ()
        document = Document(
            id=id, collection=collection, body=body, etag=etag, deleted=deleted, origin=origin,
            change_vector=cv.merge(replaced, origin) if replaced else origin,
            last_modified=timestamps.from_ticks(now),
            fences=fences if token is None else fencing.raised(fences, token),
        )  # fmt: skip
        check_tokens(document)
        if row is not None:
            document = document.after(row)
            check_places(document)
        self._store(document, row)
        self.state = msgspec.structs.replace(self.state, last_etag=etag, own_etag=etag)
        return document

    def _replaced(self, row: Document | None) -> tuple[str, str]:
        """The change vector and time that a new version must go beyond.

        Where there is no row there may have been a tombstone, purged here or at a source. Other nodes may still have
        it, and the new version must beat it there: by what is known, as that counts every tombstone purged.
        """
        if row is not None:
            return row.change_vector, row.last_modified
        purged = self.state.purged_last_modified
        return (self.database_change_vector if purged else ""), purged

    def _purged_until(self, last_modified: str) -> None:
        latest = max(self.state.purged_last_modified, last_modified)
        self.state = msgspec.structs.replace(self.state, purged_last_modified=latest)

    def _check_counted(self, vector: str) -> None:
        counted = cv.etag_of(vector, self.database_id)
        if counted > self.state.own_etag:
            raise ReplicationRefused(
                f"others hold our own writes up to etag {counted}, but our last is {self.state.own_etag}: this node's "
                "file was replaced by an older copy. Remove this node from the database group and add it again"
            )

    def _merge_one(self, item: Document, held: str) -> None:
        check_item(item)
        self._check_counted(item.change_vector)
        # What is counted but not here was deleted and its tombstone purged: it must not come back.
        if cv.dominates(held, item.change_vector):
            return
        row = self._find(item.id)
        # The row may count writes that the store as a whole does not know yet: those of this document are
        # here. The merge of both vectors decides, as the vector of a resolved conflict counts writes of either kind.
        if row is not None and cv.dominates(cv.merge(held, row.change_vector), item.change_vector):
            return
        # A place in this store's order, as for a write of its own: others read it here, too (rule 1).
        etag = self.state.last_etag + 1
        self.state = msgspec.structs.replace(self.state, last_etag=etag)
        if row is None or cv.dominates(item.change_vector, row.change_vector):
            taken = msgspec.structs.replace(item, etag=etag)
            taken = taken if row is None else taken.after(row)
            self._store(taken, row)
            self._bury_outdone(taken)
            if row is not None and item.resolved and row.origin != item.origin:
                # Another node resolved the conflict; what stood here may be the loser.
                rows.keep_revision(self._connection, row, REVISIONS_PER_DOCUMENT_MAX)
            return
        winner, loser = sorted((row, item), key=_precedence, reverse=True)
        vector = cv.merge(row.change_vector, item.change_vector)
        if loser.origin != winner.origin:
            # The resolution is a write of its own: a task may have carried both versions over, the loser last. Where
            # both are the same content it is none, or two nodes would answer each other's resolutions for ever.
            vector = cv.merge(vector, cv.dot(self.tag, etag, self.database_id))
            self.state = msgspec.structs.replace(self.state, own_etag=etag)
            rows.keep_revision(self._connection, loser, REVISIONS_PER_DOCUMENT_MAX)
        joined = msgspec.structs.replace(winner, etag=etag, resolved=True, change_vector=vector).after(loser)
        self._store(joined, row)
        self._bury_outdone(joined)

    def _bury_outdone(self, version: Document) -> None:
        """A version and the tombstone of a prefix of its id have met: if the same task deleted the prefix later than it
        wrote what the version rests on, the version goes."""
        if not version.fences:
            return
        if version.of_prefix:
            for below in rows.below(self._connection, fold(version.id)):
                self._bury_under(version, below)
        elif not version.deleted:
            for prefix in fencing.prefixes(fold(version.id)):
                tombstone = self._find(prefix)
                if tombstone is not None and self._bury_under(tombstone, version):
                    return

    def _bury_under(self, tombstone: Document, version: Document) -> bool:
        outdone = fencing.outdone(version.fences, by=tombstone.fences)
        if outdone:
            rows.keep_revision(self._connection, version, REVISIONS_PER_DOCUMENT_MAX)
            self._bury(version, outdone[0])
        return bool(outdone)

    def _hear(self, replication_batch: ReplicationBatch) -> None:
        """Remember the places of ETL tasks that the batch tells of."""
        states = {state.name: state for state in replication_batch.fences}
        for token in {token for item in replication_batch.documents for token in item.fences}:
            known = states.get(token.name, FenceState(token.source, token.task, 0, 0))
            states[token.name] = known.heard(token.place)
        self._remember([self.fences[name].joined(s) if name in self.fences else s for name, s in states.items()])

    def _remember(self, states: Sequence[FenceState]) -> None:
        changed = {state.name: state for state in states if self.fences.get(state.name) != state}
        for state in changed.values():
            rows.set_fence(self._connection, state)
        if changed:
            self.fences = {**self.fences, **changed}

    def _learn(self, knowledge: str) -> None:
        merged = cv.merge(self.knowledge, cv.without(knowledge, self.database_id))
        if merged == self.knowledge:
            return
        self.knowledge = merged
        rows.note_knowledge(self._connection, self.state.last_etag, merged, KNOWLEDGE_ROWS_MAX)


def _nothing(id: str, collection: str) -> Document:
    """What an ETL task deletes where nothing stands."""
    return Document(id=id, collection=collection, body=b"", etag=0, change_vector="", last_modified="", deleted=True)


def _precedence(document: Document) -> tuple[Tokens, str, str, int]:
    [(database_id, (etag, _))] = cv.parse(document.origin).items()
    return document.fences, document.last_modified, database_id, etag
