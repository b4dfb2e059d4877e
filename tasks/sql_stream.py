"""One transform of a running SQL ETL: its place in the documents, and how they fare."""

from collections.abc import Sequence
from typing import Any

import msgspec

from raftnode.documents import change_vector
from raftnode.documents.model import Batch
from tasks.kinds import TaskFailed
from tasks.sql_configuration import TransformConfiguration
from tasks.sql_rows import Refusal
from tasks.transform import Transform, targets

FAILURES_TOLERATED = 100
"""More failures than this, and more than successes, are the script's or the target's fault and not the documents'."""


class TransformProgress(msgspec.Struct, frozen=True, rename="pascal"):
    """How far one transform has come; see `record.model.Progress`."""

    change_vector: str = ""
    last_etags: dict[str, int] = {}
    processed: int = 0
    failed: int = 0


class Stream:
    """One transform of a run: its script, its place, and how its documents fare."""

    def __init__(self, configuration: TransformConfiguration, progress: TransformProgress, database_id: str) -> None:
        self.transform = Transform(configuration.name, configuration.script)
        self.collections = None if configuration.apply_to_all_documents else frozenset(configuration.collections)
        self.tables = [table.lower() for table in targets(configuration.script)]
        self.progress = progress
        self.accepted = self.failed = 0
        self.batch_documents_max: int | None = None
        self._database_id = database_id

    @property
    def etag(self) -> int:
        """How far this node's documents have been seen."""
        return self.progress.last_etags.get(self._database_id, 0)

    def advanced(self, batch: Batch, processed: int = 0, failed: int = 0) -> TransformProgress:
        """The progress after the batch."""
        return TransformProgress(
            change_vector=change_vector.merge(self.progress.change_vector, batch.change_vector),
            last_etags=self.progress.last_etags | {self._database_id: batch.last_etag},
            processed=self.progress.processed + processed,
            failed=self.progress.failed + failed,
        )

    def misplaced(self, rows: Sequence[tuple[str, Any]]) -> str | None:
        """Why a document's rows, by folded table, cannot be taken: rows of a table that the script's text does not name
        would stay behind when the document changes."""
        for table, _ in rows:
            if table not in self.tables:
                known = ", ".join(self.tables)
                return f"the script loads to '{table}', which its text does not name; name it there (it names: {known})"
        return None

    def verdict(self, accepted: int, failures: Sequence[Refusal], *, final: bool) -> None:
        """Raises TaskFailed unless the failures of this batch, with those of the run before, are single documents'."""
        if not failures:
            return
        successes, total = self.accepted + accepted, self.failed + len(failures)
        hopeless = successes == 0 and (final or len(failures) > FAILURES_TOLERATED)
        if hopeless or (total > FAILURES_TOLERATED and total > successes):
            last = failures[-1]
            raise TaskFailed(
                f"transform '{self.transform.name}': {len(failures)} documents failed and {accepted} did not, so none "
                f"is passed over; '{last.id}': {last.reason}"
            )
