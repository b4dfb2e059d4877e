"""The documents that a task has passed over, until they are carried over or gone: a list with a limit, that lasts.

It is part of a transform's progress and so stands in the target, in the transaction that passed the document over. The
record has only the newest few, so that every node can tell of them: see `record.model.Progress`.
"""

from collections.abc import Iterable, Sequence

import msgspec

from raftnode.documents.body import fold
from raftnode.record.model import FailedDocument
from raftnode.record.progress import FAILURE_LENGTH_MAX

LISTED_MAX = 500


class Failed(msgspec.Struct, frozen=True):
    """`listed` are the newest LISTED_MAX, oldest first; `unlisted` counts those for which there was no place."""

    listed: tuple[FailedDocument, ...] = ()
    unlisted: int = 0

    @property
    def count(self) -> int:
        """How many documents are passed over."""
        return len(self.listed) + self.unlisted

    def after(self, done: Iterable[str], failures: Sequence[FailedDocument]) -> "Failed":
        """The list once these documents, by id, were looked at again, and of them those failed."""
        gone = {fold(id) for id in done} | {fold(failure.document_id) for failure in failures}
        if not failures and not any(fold(one.document_id) in gone for one in self.listed):
            return self
        kept = [one for one in self.listed if fold(one.document_id) not in gone]
        newest = {fold(failure.document_id): _cut(failure) for failure in failures}
        listed = [*kept, *newest.values()]
        return Failed(tuple(listed[-LISTED_MAX:]), self.unlisted + max(0, len(listed) - LISTED_MAX))


def _cut(failure: FailedDocument) -> FailedDocument:
    return msgspec.structs.replace(failure, error=failure.error[:FAILURE_LENGTH_MAX])
