"""What a node says of its copy of a database, and of writes to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import field

from raftnode.web.views.base import Json, View


class DocumentsPage(View, frozen=True, kw_only=True):
    """Documents in the order they were asked for, null for those that are not there, and others by id that paths in
    them lead to. Their own shapes are their writers'."""

    results: Sequence[Any]
    includes: Json


class SingleAnswer(View, frozen=True, kw_only=True):
    """The answer to one of several requests: its body, null for none."""

    result: Any
    status_code: int
    headers: Mapping[str, str]


class SeveralAnswers(View, frozen=True, kw_only=True):
    """The answers to several requests, in their order."""

    results: Sequence[SingleAnswer]


class Written(View, frozen=True, kw_only=True):
    """A document after a write."""

    id: str
    change_vector: str


class BatchPut(View, frozen=True, kw_only=True):
    """A document that a batch put."""

    type: str = "PUT"
    id: str = field(name="@id")
    collection: str = field(name="@collection")
    change_vector: str = field(name="@change-vector")
    last_modified: str = field(name="@last-modified")


class BatchPatch(View, frozen=True, kw_only=True):
    """A document that a batch patched, or only tested (`NotModified`); with its text if that was asked for."""

    type: str = "JsonPatch"
    id: str
    change_vector: str
    last_modified: str
    patch_status: str
    modified_document: Any = None


class JsonPatched(View, frozen=True, kw_only=True):
    """A document after a JSON patch."""

    status: str
    modified_document: Any


class BatchDelete(View, frozen=True, kw_only=True):
    """A document that a batch deleted; `deleted` is false, without a change vector, if it was not there."""

    type: str = "DELETE"
    id: str
    deleted: bool
    change_vector: str | None


class BatchChecked(View, frozen=True, kw_only=True):
    """The documents that a session has read, and did not write, were still as it had read them."""

    type: str = "BatchTrackChanges"


BatchResult = BatchPut | BatchPatch | BatchDelete | BatchChecked


class BatchDone(View, frozen=True, kw_only=True):
    """What became of each command of a batch."""

    results: Sequence[BatchResult]


class FenceView(View, frozen=True, kw_only=True):
    """What a copy knows of an ETL task that writes to it, and which copy of which database it is. `progress` is the
    newest that is whole here, null for none."""

    cluster_id: str
    database: str
    database_id: str
    node_tag: str
    epoch: int
    sequence: int
    progress: msgspec.Raw | None


class Size(View, frozen=True, kw_only=True):
    """A size, for programs and for people."""

    size_in_bytes: int
    humane_size: str


class DatabaseStatistics(View, frozen=True, kw_only=True):
    """RavenDB's statistics of a copy. Counters of features that this database lacks are zero."""

    last_doc_etag: int
    last_database_etag: int
    count_of_indexes: int
    count_of_documents: int
    count_of_revision_documents: int
    count_of_documents_conflicts: int = 0
    count_of_conflicts: int = 0
    count_of_resolved_conflicts: int
    count_of_tombstones: int
    count_of_attachments: int = 0
    count_of_counter_entries: int = 0
    count_of_time_series_segments: int = 0
    indexes: tuple[()] = ()
    database_change_vector: str
    database_id: str
    node_tag: str
    is_64_bit: bool = True
    size_on_disk: Size
    temp_buffers_size_on_disk: Size


class CollectionStats(View, frozen=True, kw_only=True):
    """How many documents there are, by collection."""

    count_of_documents: int
    count_of_conflicts: int = 0
    collections: Mapping[str, int]


class OperationId(View, frozen=True, kw_only=True):
    """A number for an operation of a client."""

    id: int
    node_tag: str


def size(size_bytes: int) -> Size:
    """The size in both forms."""
    return Size(size_in_bytes=size_bytes, humane_size=f"{size_bytes / 2**20:.2f} MBytes")
