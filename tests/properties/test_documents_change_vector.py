from hypothesis import given
from hypothesis import strategies as st

from raftnode.documents import change_vector as cv

_entry = st.tuples(st.integers(1, 6), st.sampled_from(["A", "B", "AB"]))
_vectors = st.dictionaries(st.sampled_from([letter * 22 for letter in "wxyz"]), _entry).map(cv.format_entries)


@given(_vectors)
def test_the_text_of_a_vector_reads_back_as_itself(vector: str) -> None:
    assert cv.format_entries(cv.parse(vector)) == vector
    assert cv.equal(vector, vector)


@given(_vectors, _vectors, _vectors)
def test_merging_is_a_least_upper_bound(a: str, b: str, c: str) -> None:
    merged = cv.merge(a, b)
    assert merged == cv.merge(b, a)
    assert cv.merge(merged, c) == cv.merge(a, cv.merge(b, c))
    assert cv.merge(merged, merged) == merged
    assert cv.dominates(merged, a)
    assert cv.dominates(merged, b)
    assert not (cv.dominates(c, a) and cv.dominates(c, b)) or cv.dominates(c, merged)


@given(_vectors, _vectors)
def test_vectors_are_equal_that_have_the_same_entries(a: str, b: str) -> None:
    etags = [{id: etag for id, (etag, _) in cv.parse(vector).items()} for vector in (a, b)]
    assert cv.equal(a, b) == cv.equal(b, a) == (etags[0] == etags[1])


@given(_vectors, _vectors, _vectors)
def test_dominance_is_transitive(a: str, b: str, c: str) -> None:
    if cv.dominates(a, b) and cv.dominates(b, c):
        assert cv.dominates(a, c)


@given(_vectors, st.sampled_from([letter * 22 for letter in "wxyz"]))
def test_a_vector_is_its_parts(vector: str, database_id: str) -> None:
    rest = cv.without(vector, database_id)
    assert cv.etag_of(rest, database_id) == 0
    etag = cv.etag_of(vector, database_id)
    if etag:
        tag = cv.parse(vector)[database_id][1]
        assert cv.merge(rest, cv.dot(tag, etag, database_id)) == vector
