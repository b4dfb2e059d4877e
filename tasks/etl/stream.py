"""One transform of a running ETL: its place in the documents, and how they fare."""

import random
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from msgspec.structs import replace

from raftnode.documents import change_vector
from raftnode.documents.store.model import Batch, Document
from raftnode.foundation import timestamps
from raftnode.foundation.backoff import backoff
from raftnode.foundation.names import fold
from raftnode.record.model import FailedDocument
from raftnode.scripting.javascript import ScriptError
from tasks.etl import early_versions as met_early
from tasks.etl.configuration import TransformConfiguration
from tasks.etl.early_versions import Ranges
from tasks.etl.failed_documents import FailedDocumentList
from tasks.etl.refusals import DocumentRefusal, TransformFailed
from tasks.etl.transform import Transform
from tasks.etl.transform import targets as named_targets
from tasks.runtime.context import RunSettings

HILO_COLLECTION = "@hilo"
COLLECTIONS_REMEMBERED_MAX = 1_000
BATCH_MAX = 1 << 20
ERROR_LENGTH_MAX = 4_000
FAILURES_TOLERATED = 100
"""More failures than this, and more than successes, are the script's or the target's fault and not the documents'."""


class TransformProgress(msgspec.Struct, frozen=True, rename="pascal"):
    """How far one transform has come; see `record.model.Progress`. It is stored in the task's target.

    `ahead` counts all that it has had, where that is more than `change_vector` counts (else empty): it met a version
    before the place of a write that the version builds on. `early` has the versions themselves, of a transform that
    writes a table which is only inserted into, see `early_versions`. `failed` counts the documents that are passed
    over, `failures` lists the newest, `unlisted` has the folded ids of those before, see `failed_documents`; `versions`
    has the change vectors of those that are listed, by folded id; `retried` is the newest `Task.retry` that it obeyed,
    `reset` the entry of `Task.resets`.
    """

    change_vector: str = ""
    ahead: str = ""
    early: dict[str, Ranges] = {}
    last_etags: dict[str, int] = {}
    processed: int = 0
    failed: int = 0
    failures: tuple[FailedDocument, ...] = ()
    unlisted: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    retried: int = 0
    reset: int = 0

    @property
    def had(self) -> str:
        """Counts every version that the transform has had, and perhaps others."""
        return change_vector.merge(self.change_vector, self.ahead)

    def after(
        self, done: Iterable[str], failures: Sequence[FailedDocument], versions: Mapping[str, str]
    ) -> "TransformProgress":
        """The progress once these documents were looked at, of which those failed, in these versions."""
        counted = self.failed - len(self.failures) - len(self.unlisted)
        passed_over = FailedDocumentList(self.failures, self.unlisted, counted).after(done, failures)
        known = self.versions | dict(versions)
        listed = [fold(failure.document_id) for failure in passed_over.listed]
        return replace(
            self,
            failed=passed_over.count,
            failures=passed_over.listed,
            unlisted=passed_over.known,
            versions={id: known[id] for id in listed if id in known},
        )


class TransformStream:
    """One transform of a run: its script, its place, and how its documents fare.

    `targets` are the names of the places that it writes to; what a document has in one is replaced by what its next
    version has there, but for those in `insert_only`.
    """

    def __init__(
        self,
        configuration: TransformConfiguration,
        transform: Transform,
        targets: Sequence[str],
        progress: TransformProgress,
        database_id: str,
        insert_only: AbstractSet[str] = frozenset(),
    ) -> None:
        self.enabled = not configuration.disabled
        self.transform = transform
        self.collections = None if configuration.apply_to_all_documents else frozenset(configuration.collections)
        self._folded = None if self.collections is None else {fold(name) for name in self.collections}
        self._takes: dict[str, bool] = {}
        self.targets = list(targets)
        self.named = [fold(name) for name in named_targets(configuration.script)]
        self._meets_once = not insert_only.isdisjoint(self.targets)
        self.progress = progress
        self.accepted = self.failed = 0
        self.batch_documents_max: int | None = None
        self._batch_documents_cap: int | None = None
        self.error: str | None = None
        self.retry_at_s = 0.0
        self.tried_while_lagging = 0
        self._failures_in_a_row = 0
        self._database_id = database_id

    @property
    def etag(self) -> int:
        """How far this node's documents have been seen."""
        return self.progress.last_etags.get(self._database_id, 0)

    def takes_fewer_than(self, documents: int) -> None:
        """So many were too large together, and those that follow are likely to be."""
        self.batch_documents_max = self._batch_documents_cap = max(1, documents // 2)

    def takes_more(self) -> None:
        """The last batch went well: the next one may be larger, if batches were made smaller before."""
        if self.batch_documents_max is not None:
            self.batch_documents_max = min(self.batch_documents_max * 2, self._batch_documents_cap or BATCH_MAX)

    def hold_up(self, error: Exception, settings: RunSettings, now_s: float) -> float:
        """The transform failed as a whole: it is tried again after a pause, in s, that grows."""
        self._failures_in_a_row += 1
        wait_s = backoff(self._failures_in_a_row, settings.backoff_min_ms, settings.backoff_max_ms, random) / 1000
        named = "" if isinstance(error, TransformFailed | ScriptError) else f"transform '{self.transform.name}': "
        self.error, self.retry_at_s = f"{named}{error}"[:ERROR_LENGTH_MAX], now_s + wait_s
        return wait_s

    def goes_on(self) -> None:
        """The transform has carried something over, or what it waited for is there."""
        self.error, self._failures_in_a_row = None, 0

    def takes(self, collection: str) -> bool:
        """Whether documents of that collection are this transform's."""
        taken = self._takes.get(collection)
        if taken is None:
            folded = fold(collection)
            taken = folded != HILO_COLLECTION if self._folded is None else folded in self._folded
            if len(self._takes) < COLLECTIONS_REMEMBERED_MAX:
                self._takes[collection] = taken
        return taken

    def pending(self, batch: Batch) -> list[Document]:
        """What the transform has to do with in the batch: documents that are its own, or once were, in a version that
        it has not had. The tombstone of a prefix is no document's: each that was below it has one of its own."""
        return [
            d
            for d in batch.items
            if (self.takes(d.collection) or self.earlier(d)) and not d.of_prefix and not self._had(d)
        ]

    def _had(self, document: Document) -> bool:
        """Whether the transform has had this version. One that came out of a conflict has the origin of another."""
        progress = self.progress
        met = not document.resolved and met_early.has(progress.early, document.origin)
        return met or document.counted_in(progress.change_vector)

    def has(self, document: Document) -> bool:
        """Whether the document stands in the transform's collections now."""
        return not document.deleted and self.takes(document.collection)

    def earlier(self, document: Document) -> list[str]:
        """The spellings of its id under which the document once stood in the transform's collections."""
        if not document.formerly:
            return []
        return list(dict.fromkeys(id for id, collection in document.formerly if self.takes(collection)))

    def advanced(
        self, batch: Batch, documents: Sequence[Document] = (), failures: Sequence[DocumentRefusal] = ()
    ) -> TransformProgress:
        """The progress after the batch, in which these documents were pending and of them those failed."""
        progress = self.tried([document.id for document in documents], failures, documents)
        counted = change_vector.merge(progress.change_vector, batch.change_vector)
        had = change_vector.merge(progress.had, *(document.change_vector for document in documents))
        all_counted = change_vector.dominates(counted, had)
        early: dict[str, Ranges] = {}
        if self._meets_once and not all_counted:
            # Also of a version whose origin is counted: another write that it builds on may not be.
            early = met_early.after(progress.early, [d.origin for d in documents if not d.counted_in(counted)])
        return replace(
            progress,
            change_vector=counted,
            ahead="" if all_counted else had,
            early=early,
            last_etags=progress.last_etags | {self._database_id: batch.last_etag},
            processed=progress.processed + len(documents),
        )

    def set_back(
        self,
        batch: Batch,
        documents: Sequence[Document],
        streams: Sequence["TransformStream"],
        replaced: AbstractSet[str],
    ) -> dict[str, TransformProgress]:
        """The progress, by name, of the transforms that must meet again what they have had and this node lacks.

        The pending documents may be older than that. In the targets that are `replaced` they undo what this transform,
        or one that writes some of the same targets, made of the newer version: it must come again after them, on
        whatever node.
        """
        found = {}
        shared = replaced & set(self.targets)
        for other in streams:
            had = other.progress.had
            if shared.isdisjoint(other.targets) or change_vector.dominates(batch.held, had):
                continue
            if any(document.counted_in(had) for document in documents):
                found[other.transform.name] = replace(
                    other.progress,
                    change_vector=change_vector.meet(other.progress.change_vector, batch.held),
                    ahead=change_vector.meet(had, batch.held),
                    early={},
                    last_etags={self._database_id: other.etag},
                )
        return found

    def tried(
        self, done: Iterable[str], failures: Sequence[DocumentRefusal], documents: Sequence[Document]
    ) -> TransformProgress:
        """The progress once those of these documents that are `done`, by id, were looked at, of which those failed."""
        name, at = self.transform.name, timestamps.now()
        return self.progress.after(
            done,
            [FailedDocument(document_id=f.id, error=f.reason, at=at, transform=name) for f in failures],
            {fold(document.id): document.change_vector for document in documents},
        )

    def retriable(self, ids: Sequence[str], found: Sequence[Document | None], known: str) -> list[str]:
        """Those of the documents that were skipped which may be tried again as they are found here, in a copy that
        knows what `known` counts. One that is newer than what failed has its turn in the order. One that is older, or
        missing, may be so because the copy lags, and would undo what another had; unless the copy has it all."""
        caught_up = change_vector.dominates(known, self.progress.had)
        return [
            id
            for id, document in zip(ids, found, strict=True)
            if (document is None and caught_up)
            or (
                document is not None
                and self.has_seen(document)
                and (caught_up or document.change_vector == self.progress.versions.get(fold(id)))
            )
        ]

    def has_seen(self, document: Document) -> bool:
        """Whether the transform is past this version."""
        return document.etag <= self.etag or self._had(document)

    def misplaced(self, rows: Sequence[tuple[str, Any]]) -> str | None:
        """Why what a document is loaded to, by folded name, cannot be taken: what stands under a name that the script's
        text does not have would stay behind when the document changes."""
        for name, _ in rows:
            if name not in self.named:
                known = ", ".join(self.named)
                remedy = f"name it there (it names: {known})"
                return f"the script loads to '{name[:100]}', which its text does not name; {remedy}"
        return None

    def check_refusals(self, accepted: int, failures: Sequence[DocumentRefusal], *, final: bool) -> None:
        """Raises TransformFailed unless what failed, in this batch and earlier in the run, are single documents."""
        if not failures:
            return
        successes, total = self.accepted + accepted, self.failed + len(failures)
        hopeless = successes == 0 and (final or len(failures) > FAILURES_TOLERATED)
        if hopeless or (total > FAILURES_TOLERATED and total > successes):
            last = failures[-1]
            raise TransformFailed(
                f"transform '{self.transform.name}': {len(failures)} documents failed and {accepted} did not, so none "
                f"is skipped; '{last.id}': {last.reason}"
            )
