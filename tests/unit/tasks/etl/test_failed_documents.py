"""The list of the documents that a task has skipped."""

from raftnode.record.model import FailedDocument
from raftnode.record.progress import FAILURE_LENGTH_MAX
from tasks.etl.failed_documents import KNOWN_MAX, LISTED_MAX, FailedDocumentList


def failure(id: str, error: str = "no") -> FailedDocument:
    return FailedDocument(document_id=id, error=error, at="now")


def test_a_document_is_listed_once_with_its_newest_reason_whatever_its_spelling() -> None:
    failed = FailedDocumentList().after(["a", "b"], [failure("a"), failure("b")]).after(["A"], [failure("A", "still")])
    assert [(one.document_id, one.error) for one in failed.listed] == [("b", "no"), ("A", "still")]
    assert failed.after(["B", "c"], []).listed == failed.listed[1:]
    assert failed.after(["c"], []) is failed


def test_beyond_the_limit_the_ids_of_the_oldest_are_known_and_none_is_counted_twice() -> None:
    failed = FailedDocumentList().after([], [failure(f"D{n}") for n in range(LISTED_MAX + 3)])
    assert (failed.count, failed.known) == (LISTED_MAX + 3, ("d0", "d1", "d2"))
    assert failed.listed[0].document_id == "D3"
    failed = failed.after(["D7"], [failure("new")])
    assert (failed.count, failed.listed[-1].document_id) == (LISTED_MAX + 3, "new")
    failed = failed.after(["D1"], [failure("D1")])
    assert (failed.count, failed.listed[-1].document_id) == (LISTED_MAX + 3, "D1")
    failed = failed.after(["d0", "d2", "d9"], [])
    assert (failed.count, failed.counted) == (LISTED_MAX, 0)
    assert failed.after(["d0"], []) is failed


def test_beyond_the_second_limit_the_oldest_are_only_counted() -> None:
    failed = FailedDocumentList().after([], [failure(f"{n}") for n in range(LISTED_MAX + KNOWN_MAX + 3)])
    assert (failed.count, failed.counted) == (LISTED_MAX + KNOWN_MAX + 3, 3)
    assert failed.known[0] == "3"
    assert failed.after(["0"], []).count == failed.count
    assert failed.after(["3"], []).count == failed.count - 1


def test_a_long_reason_is_cut() -> None:
    (one,) = FailedDocumentList().after([], [failure("a", "x" * 10_000)]).listed
    assert one.error == "x" * FAILURE_LENGTH_MAX
