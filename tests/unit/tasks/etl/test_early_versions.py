"""The versions that a transform has met before their place."""

import random

from raftnode.documents.change_vector import dot
from tasks.etl import early_versions

A, B = "a" * 22, "b" * 22


def test_versions_are_known_by_their_origins() -> None:
    known = early_versions.after({}, [dot("A", 5, A), dot("B", 5, B), dot("A", 6, A), dot("A", 9, A)])
    assert known == {A: ((5, 6), (9, 9)), B: ((5, 5),)}
    assert [n for n in range(12) if early_versions.has(known, dot("A", n, A))] == [5, 6, 9]
    assert not early_versions.has({}, dot("A", 5, A))
    assert not early_versions.has(known, dot("C", 5, "c" * 22))
    assert early_versions.after(known, []) == known
    assert early_versions.after(known, [dot("A", 8, A), dot("A", 5, A)]) == {A: ((5, 6), (8, 9)), B: ((5, 5),)}


def test_writes_one_after_the_other_take_one_range_in_whatever_order_they_are_met() -> None:
    etags = list(range(1, 1_001))
    random.Random(1).shuffle(etags)
    known: early_versions.Early = {}
    for start in range(0, len(etags), 50):
        known = early_versions.after(known, [dot("A", etag, A) for etag in etags[start : start + 50]])
    assert known == {A: ((1, 1_000),)}


def test_beyond_the_limit_the_oldest_are_forgotten() -> None:
    known = early_versions.after({}, [dot("A", 2 * n, A) for n in range(1, early_versions.RANGES_MAX + 2)])
    assert not early_versions.has(known, dot("A", 2, A))
    assert early_versions.has(known, dot("A", 4, A))
