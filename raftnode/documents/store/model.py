"""What goes into a document store and what comes out of it."""

import base64
import uuid
from typing import Final

import msgspec

from raftnode.documents import change_vector
from raftnode.documents.json_patch import PatchOperation
from raftnode.documents.store.fencing import FenceState, Tokens
from raftnode.foundation.names import fold

EMPTY_COLLECTION: Final = "@empty"


class Document(msgspec.Struct, frozen=True, array_like=True):
    """One version of a document, or its tombstone (`deleted`, empty body).

    `id` keeps its case. `body` is a JSON object whose `@metadata` holds only what users put there. `etag` is
    the place of the version in this store's order and differs between nodes. `change_vector` is equal on all
    nodes that hold the version. `last_modified` is like 2026-01-31T12:00:00.0000000Z and grows along a
    document's versions. `origin` is the write that made the content (one change vector entry). `resolved`
    tells that the version joins concurrent ones and has the content of one of them. `formerly` are the other places
    that earlier versions had, as (id in its spelling, folded collection): a deleted document may come back in another
    collection or spelling before a task has seen it go, and the task must still see that it left. `fences` are the
    tokens of the ETL tasks of other databases that wrote this version or one before it, see `fencing`. A tombstone
    whose id ends with a slash stands for all ids that begin with it, see `writes`.
    """

    id: str
    collection: str
    body: bytes
    etag: int
    change_vector: str
    last_modified: str
    deleted: bool = False
    origin: str = ""
    resolved: bool = False
    formerly: tuple[tuple[str, str], ...] = ()
    fences: Tokens = ()

    @property
    def of_prefix(self) -> bool:
        """Whether this is the tombstone of all ids that begin with its own. No document has such an id."""
        return self.id.endswith("/")

    @property
    def place(self) -> tuple[str, str]:
        """Under which spelling of its id it stands, in which (folded) collection."""
        return self.id, fold(self.collection)

    def after(self, *before: "Document") -> "Document":
        """This version in the place of those: it remembers where they stood."""
        places = {place for version in before for place in (version.place, *version.formerly)}
        places = (places | set(self.formerly)) - {self.place}
        return msgspec.structs.replace(self, formerly=tuple(sorted(places)))

    @property
    def flags(self) -> str:
        """The value of `@flags` in RavenDB's metadata, empty for none."""
        return "Resolved" if self.resolved else ""

    def counted_in(self, progress: str) -> bool:
        """Whether a consumer with this progress vector has had this version or a successor, and may skip it."""
        return change_vector.dominates(progress, self.change_vector)


class PutDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document to be written; see `DocumentStore.put` for the fields."""

    id: str
    document: dict[str, object] | bytes
    collection: str | None = None
    expected: str | None = None


class DeleteDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document to be deleted; with `prefixed` all whose ids begin with `id`."""

    id: str
    expected: str | None = None
    prefixed: bool = False


class PatchDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document to be changed by a JSON patch. `bytes_max`: the largest that it may become."""

    id: str
    operations: tuple[PatchOperation, ...]
    bytes_max: int
    expected: str | None = None


class CheckDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that must be at that change vector; empty: there must be none."""

    id: str
    expected: str


StoreOperation = PutDocument | PatchDocument | DeleteDocument | CheckDocument


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the store's order. `last_etag` is how far it was scanned: the place to go on from.

    An item's own etag may lie beyond `last_etag`: a document that was overwritten is handed out, in its
    newest version, at the first place it had in the stretch. `change_vector` counts only writes whose
    version, or a successor, stands at or before `last_etag`: a consumer done with everything up to there may
    merge it into its progress. `held` counts every write that was held here at the time: no item is older than what it
    counts. `end` tells that the scan reached the end of the store.
    `purged_last_modified` and `fences` travel with the batch, see `ReplicationBatch`.
    """

    items: list[Document]
    last_etag: int
    change_vector: str
    held: str
    end: bool
    purged_last_modified: str = ""
    places: tuple[int, ...] = ()
    fences: tuple[FenceState, ...] = ()


class ReplicationBatch(msgspec.Struct, frozen=True, array_like=True):
    """A batch on its way to another store: a part of the source's order, from `after_etag` to `last_etag`.

    `source` is the source's database id, `knowledge` its batch's change vector, `purged_last_modified` a time that no
    tombstone purged at the source was later than (empty: none was purged there). `fences` is what the source knows of
    ETL tasks that write there. It comes only with a stretch that reaches the end of the source's order, as who has that
    holds all that their progress counts.
    """

    source: str
    after_etag: int
    last_etag: int
    knowledge: str
    documents: tuple[Document, ...]
    purged_last_modified: str = ""
    fences: tuple[FenceState, ...] = ()


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a store. `conflicts` counts those resolved so far; `collections` holds live documents only."""

    documents: int
    tombstones: int
    conflicts: int
    revisions: int
    last_etag: int
    database_change_vector: str
    collections: dict[str, int]
    size_bytes: int


def new_database_id() -> str:
    """A random id: the 22 characters of a UUID in base64, letters and digits only (it is part of file names)."""
    while True:
        text = base64.b64encode(uuid.uuid4().bytes)[: change_vector.DATABASE_ID_LENGTH].decode()
        if text.isalnum():
            return text
