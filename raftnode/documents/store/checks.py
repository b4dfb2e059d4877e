"""What a transaction refuses of a single document."""

from raftnode.documents import change_vector as cv
from raftnode.documents.errors import ConcurrencyViolation, DocumentInvalid, ReplicationRefused
from raftnode.documents.store import fencing
from raftnode.documents.store.body import DOCUMENT_BYTES_MAX
from raftnode.documents.store.model import Document
from raftnode.foundation import timestamps

PLACES_PER_DOCUMENT_MAX = 64


def check_expected(id: str, live: Document | None, expected: str | None) -> None:
    """Refuses a document that is not at the change vector that the writer expected. Raises ConcurrencyViolation."""
    if expected is None:
        return
    actual = live.change_vector if live is not None else ""
    try:
        same = expected == actual or cv.equal(expected, actual)
    except cv.ChangeVectorInvalid:
        same = False
    if not same:
        raise ConcurrencyViolation(id, expected, actual)


def check_places(document: Document) -> None:
    """Refuses one place too many to remember. Raises DocumentInvalid."""
    if len(document.formerly) > PLACES_PER_DOCUMENT_MAX and not document.deleted:
        raise DocumentInvalid(
            f"document {document.id!r} has stood in more than {PLACES_PER_DOCUMENT_MAX} other collections or spellings "
            "of its id, and tasks must see that it left each: use another id"
        )


def check_tokens(document: Document) -> None:
    """Refuses one ETL task too many. Raises DocumentInvalid."""
    if len(document.fences) > fencing.TOKENS_PER_DOCUMENT_MAX and not document.deleted:
        raise DocumentInvalid(
            f"document {document.id!r} is written by more than {fencing.TOKENS_PER_DOCUMENT_MAX} ETL tasks: let each "
            "write documents of its own"
        )


def check_item(item: Document) -> None:
    """Refuses what no store sends. Raises ReplicationRefused."""
    try:
        timestamps.to_ticks(item.last_modified)
        sound = len(cv.parse(item.origin)) == 1 and cv.dominates(item.change_vector, item.origin)
        if not sound or not item.id or len(item.body) > DOCUMENT_BYTES_MAX:
            raise ValueError("its origin, id or size is out of bounds")
    except ValueError as error:
        raise ReplicationRefused(
            f"incoming document {item.id[:80]!r} is malformed ({error}): check the source's version"
        ) from error
