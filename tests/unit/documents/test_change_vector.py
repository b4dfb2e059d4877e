import pytest

from raftnode.documents import change_vector as cv

X, Y, Z = ("x" * 22, "y" * 22, "z" * 22)


@pytest.mark.parametrize(
    ("vector", "other", "dominates", "is_dominated"),
    [
        ("", "", True, True),
        (f"A:1-{X}", "", True, False),
        ("", f"A:1-{X}", False, True),
        (f"A:2-{X}", f"A:1-{X}", True, False),
        (f"A:2-{X}, B:1-{Y}", f"B:1-{Y},A:2-{X}", True, True),
        (f"A:2-{X}, B:1-{Y}", f"A:2-{X}, B:2-{Y}", False, True),
        (f"A:2-{X}, B:1-{Y}", f"A:1-{X}, B:2-{Y}", False, False),
        (f"A:2-{X}", f"B:2-{Y}", False, False),
    ],
)
def test_vectors_are_compared_entry_by_entry(vector: str, other: str, dominates: bool, is_dominated: bool) -> None:
    assert (cv.dominates(vector, other), cv.dominates(other, vector)) == (dominates, is_dominated)
    assert cv.equal(vector, other) == (dominates and is_dominated)


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "A:1",
        f"a:1-{X}",
        f"ABCDE:1-{X}",
        f"A:-1-{X}",
        "A:1-short",
        f"A:1-{X}x",
        f"A:1-{X},",
        f"A:9999999999999999999-{X}",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(cv.ChangeVectorInvalid):
        cv.parse(text)


def test_lengths_are_limited() -> None:
    with pytest.raises(cv.ChangeVectorInvalid, match="the limit is 16384"):
        cv.parse("A" * (16 * 1024 + 1))
    with pytest.raises(cv.ChangeVectorInvalid, match="the limit is 256"):
        cv.format_entries({f"{n:022d}": (1, "A") for n in range(257)})
    full = cv.format_entries({f"{n:022d}": (cv.ETAG_MAX, "ABCD") for n in range(256)})
    assert cv.merge(full, full) == full


def test_the_meet_counts_what_all_count() -> None:
    assert cv.meet(f"A:5-{X}, B:1-{Y}", f"A:1-{X}, B:6-{Y}, C:3-{Z}") == f"A:1-{X}, B:1-{Y}"
    assert cv.meet(f"A:5-{X}", "") == cv.meet() == ""


def test_entries_are_told_and_taken_out() -> None:
    vector = f"A:10-{X}, B:3-{Y}"
    assert cv.etag_of(vector, Y) == 3
    assert cv.etag_of(vector, Z) == 0
    assert cv.without(vector, X) == f"B:3-{Y}"
    assert cv.dot("B", 3, Y) == f"B:3-{Y}"
