"""The list of the documents that a task has passed over."""

from raftnode.record.model import FailedDocument
from raftnode.record.progress import FAILURE_LENGTH_MAX
from tasks.failed import LISTED_MAX, Failed


def failure(id: str, error: str = "no") -> FailedDocument:
    return FailedDocument(document_id=id, error=error, at="now")


def test_a_document_is_listed_once_with_its_newest_reason_whatever_its_spelling() -> None:
    failed = Failed().after(["a", "b"], [failure("a"), failure("b")]).after(["A"], [failure("A", "still")])
    assert [(one.document_id, one.error) for one in failed.listed] == [("b", "no"), ("A", "still")]
    assert failed.after(["B", "c"], []).listed == failed.listed[1:]
    assert failed.after(["c"], []) is failed


def test_beyond_the_limit_the_oldest_are_only_counted() -> None:
    failed = Failed().after([], [failure(f"{n}") for n in range(LISTED_MAX + 3)])
    assert (failed.count, failed.unlisted) == (LISTED_MAX + 3, 3)
    assert failed.listed[0].document_id == "3"
    failed = failed.after(["7"], [failure("new")])
    assert (failed.count, failed.listed[-1].document_id) == (LISTED_MAX + 3, "new")


def test_a_long_reason_is_cut() -> None:
    (one,) = Failed().after([], [failure("a", "x" * 10_000)]).listed
    assert one.error == "x" * FAILURE_LENGTH_MAX
