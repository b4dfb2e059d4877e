"""Cutting an import into its documents, whatever they hold and wherever the network cuts it."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.foundation.json_splitter import ItemTooLarge, JsonSplitter, NoListOfObjects

TEXT = st.text(alphabet=st.sampled_from('ab"\\{}[],:\n\u00e9\U0001f600'), max_size=8)
OBJECT = st.dictionaries(
    TEXT,
    st.recursive(
        TEXT | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(
    documents=st.lists(OBJECT, max_size=6),
    array=st.booleans(),
    ascii=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_the_same_documents_come_out_however_they_are_cut(
    documents: list[object], array: bool, ascii: bool, cuts: list[int]
) -> None:
    lines = [json.dumps(document, ensure_ascii=ascii) for document in documents]
    data = (f"[{', '.join(lines)}]" if array else "\n".join(lines) + "\n").encode()
    splitter = JsonSplitter(1 << 20)
    items = [json.loads(item) for chunk in chunks(data, cuts) for item in splitter.feed(chunk)]
    splitter.end()
    assert items == documents


@given(documents=st.lists(OBJECT, min_size=1, max_size=4), cut=st.integers(1, 10_000))
def test_an_import_that_is_cut_off_is_noticed(documents: list[object], cut: int) -> None:
    data = json.dumps(documents).encode()
    splitter = JsonSplitter(1 << 20)
    list(splitter.feed(data[: 1 + cut % (len(data) - 1)]))
    with pytest.raises(NoListOfObjects):
        splitter.end()


def test_an_item_over_the_limit_is_refused_before_it_is_kept() -> None:
    splitter = JsonSplitter(1000)
    assert list(splitter.feed(b'{"a": "' + b"x" * 900)) == []
    with pytest.raises(ItemTooLarge, match="larger than 1000 bytes"):
        list(splitter.feed(b"x" * 100))


def test_a_text_of_many_chunks_is_looked_at_once() -> None:
    splitter = JsonSplitter(1 << 30)
    list(splitter.feed(b'{"a": "'))
    for _ in range(4000):
        assert list(splitter.feed(b"\\\\" * 1000)) == []
    [item] = splitter.feed(b'"}')
    assert len(item) == 8_000_009
