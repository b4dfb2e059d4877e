"""The documents that a task has skipped, until they are carried over or gone: a list with a limit, that lasts.

It is part of a transform's progress and so stands in the target, in the transaction that passed the document over. The
record has only the newest few, so that every node can tell of them: see `record.model.Progress`.
"""

from collections.abc import Iterable, Sequence

import msgspec

from raftnode.foundation.names import fold
from raftnode.record.model import FailedDocument
from raftnode.record.progress import FAILURE_LENGTH_MAX

LISTED_MAX = 500
KNOWN_MAX = 5_000


class FailedDocumentList(msgspec.Struct, frozen=True):
    """`listed` are the newest LISTED_MAX, oldest first; of the KNOWN_MAX before them `known` has the folded ids, oldest
    first; `counted` is the number of the older ones, of which only the number is kept: one that fails again is counted
    again."""

    listed: tuple[FailedDocument, ...] = ()
    known: tuple[str, ...] = ()
    counted: int = 0

    @property
    def count(self) -> int:
        """How many documents are skipped: at most so many, if some are only counted."""
        return len(self.listed) + len(self.known) + self.counted

    def after(self, done: Iterable[str], failures: Sequence[FailedDocument]) -> "FailedDocumentList":
        """The list once these documents, by id, were looked at again, and of them those failed."""
        gone = {fold(id) for id in done} | {fold(failure.document_id) for failure in failures}
        kept = [one for one in self.listed if fold(one.document_id) not in gone]
        known = self.known if gone.isdisjoint(self.known) else tuple(id for id in self.known if id not in gone)
        if not failures and len(kept) == len(self.listed) and len(known) == len(self.known):
            return self
        newest = {fold(failure.document_id): _cut(failure) for failure in failures}
        listed = [*kept, *newest.values()]
        known = (*known, *(fold(one.document_id) for one in listed[:-LISTED_MAX]))
        return FailedDocumentList(
            tuple(listed[-LISTED_MAX:]), known[-KNOWN_MAX:], self.counted + max(0, len(known) - KNOWN_MAX)
        )


def _cut(failure: FailedDocument) -> FailedDocument:
    return msgspec.structs.replace(failure, error=failure.error[:FAILURE_LENGTH_MAX])
