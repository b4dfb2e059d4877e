"""JSON patches: each operation by itself, and random ones against the same in plain Python."""

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.documents import json_patch
from raftnode.documents.errors import DocumentInvalid
from raftnode.documents.json_patch import PatchFailed, PatchOperation, modifies, patched
from raftnode.documents.store.body import Prepared
from raftnode.documents.store.model import Document, PatchDocument
from raftnode.documents.store.patching import patched_body

DOCUMENT = {"a": {"b": [1, {"c": 2}]}, "d": None, "e/f": 1, "g~h": 2, "": 3}


def operations(*given: dict[str, Any]) -> list[PatchOperation]:
    return msgspec.json.decode(json.dumps(given), type=list[PatchOperation])


def after(*given: dict[str, Any], document: Any = DOCUMENT) -> Any:
    return json.loads(patched(json.dumps(document).encode(), operations(*given)))


@pytest.mark.parametrize(
    ("operation", "path", "becomes"),
    [
        ({"op": "add", "path": "/x", "value": [1]}, ("x",), [1]),
        ({"op": "ADD", "path": "/d", "value": "over it"}, ("d",), "over it"),
        ({"op": "add", "path": "/a/b/-", "value": None}, ("a", "b"), [1, {"c": 2}, None]),
        ({"op": "add", "path": "/a/b/0", "value": 0}, ("a", "b"), [0, 1, {"c": 2}]),
        ({"op": "add", "path": "/a/b/1/c", "value": 3}, ("a", "b", 1), {"c": 3}),
        ({"op": "replace", "path": "/a/b/1", "value": {}}, ("a", "b"), [1, {}]),
        ({"op": "replace", "path": "/e~1f", "value": 5}, ("e/f",), 5),
        ({"op": "replace", "path": "/g~0h", "value": 5}, ("g~h",), 5),
        ({"op": "replace", "path": "/", "value": 5}, ("",), 5),
        ({"op": "remove", "path": "/a/b/0"}, ("a", "b"), [{"c": 2}]),
        ({"op": "copy", "from": "/a/b", "path": "/d"}, ("d",), [1, {"c": 2}]),
        ({"op": "move", "from": "/a/b/1", "path": "/d"}, ("a", "b"), [1]),
        ({"op": "move", "from": "/a", "path": "/a"}, ("a", "b", 0), 1),
    ],
)
def test_each_operation_changes_its_place(operation: dict[str, Any], path: tuple[Any, ...], becomes: Any) -> None:
    found = after(operation)
    for step in path:
        found = found[step]
    assert found == becomes


def test_each_operation_sees_what_the_one_before_has_done() -> None:
    done = after(
        {"op": "add", "path": "/x", "value": {}},
        {"op": "add", "path": "/x/y", "value": 1},
        {"op": "test", "path": "/x", "value": {"y": 1}},
        {"op": "move", "from": "/x/y", "path": "/z"},
        {"op": "remove", "path": "/x"},
    )
    assert done == DOCUMENT | {"z": 1}


def test_only_tests_modify_nothing_and_numbers_keep_their_digits() -> None:
    text = b'{"n":1.00000000000000000010,"big":12345678901234567890123,"s":"\\u00e9"}'
    test = operations({"op": "test", "path": "/s", "value": "é"})
    assert not modifies(test)
    assert patched(text, test) == text
    added = patched(text, operations({"op": "add", "path": "/x", "value": 1}))
    assert b"1.00000000000000000010" in added
    assert b"12345678901234567890123" in added


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        ({"op": "fly", "path": "/d"}, "must be add, remove"),
        ({"op": "add", "path": "d", "value": 1}, "must begin with a slash"),
        ({"op": "add", "path": "", "value": 1}, "must begin with a slash"),
        ({"op": "add", "path": "/d"}, "'value' is missing"),
        ({"op": "copy", "path": "/d"}, "'from' is missing"),
        ({"op": "remove", "path": "/none"}, "there is no 'none'"),
        ({"op": "replace", "path": "/none", "value": 1}, "there is no 'none'"),
        ({"op": "test", "path": "/none", "value": 1}, "there is no 'none'"),
        ({"op": "test", "path": "/d", "value": 1}, "another value"),
        ({"op": "add", "path": "/none/x", "value": 1}, "there is no 'none'"),
        ({"op": "add", "path": "/d/x", "value": 1}, "neither an object nor an array"),
        ({"op": "remove", "path": "/d/x"}, "neither an object nor an array"),
        ({"op": "add", "path": "/a/b/2", "value": 1}, "no index of an array of 2"),
        ({"op": "remove", "path": "/a/b/-"}, "no index"),
        ({"op": "remove", "path": "/a/b/-1"}, "no index"),
        ({"op": "remove", "path": "/a/b/01x"}, "no index"),
        ({"op": "move", "from": "/a", "path": "/a/b/0"}, "into itself"),
        ({"op": "add", "path": "/x" * 2000, "value": 1}, "at most 2048 characters"),
    ],
)
def test_what_does_not_fit_is_named_with_its_operation(operation: dict[str, Any], says: str) -> None:
    with pytest.raises(PatchFailed, match=r"^Operations\[1\]") as failed:
        after({"op": "test", "path": "/d", "value": None}, operation)
    assert says in str(failed.value)


@pytest.mark.parametrize(
    ("stands", "tested"), [(True, 1), (False, 0), ([True], [1]), ({"x": 1}, {"x": True}), ("1", 1)]
)
def test_a_test_tells_kinds_of_values_apart(stands: Any, tested: Any) -> None:
    with pytest.raises(PatchFailed):
        after({"op": "test", "path": "/x", "value": tested}, document={"x": stands})
    assert after({"op": "test", "path": "/x", "value": 1.0}, document={"x": 1}) == {"x": 1}


def test_a_patch_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_patch, "WORK_BYTES_MAX", 1 << 20)
    many = operations(*[{"op": "test", "path": "/d", "value": None}] * 1001)
    with pytest.raises(PatchFailed, match="1001 operations"):
        patched(b'{"d":null}', many)
    doubled = operations(*({"op": "copy", "from": "/d", "path": f"/d/{n}"} for n in range(40)))
    with pytest.raises(PatchFailed, match="gone through"):
        patched(b'{"d":{"x":"' + b"x" * (1 << 12) + b'"}}', doubled)


def test_a_document_may_not_become_larger_than_the_limit() -> None:
    document = Document("x", "Orders", b'{"d":1}', 1, "A:1-AAAAAAAAAAAAAAAAAAAAAA", "2026-01-01T00:00:00.0000000Z")
    more = operations({"op": "add", "path": "/e", "value": "xxxxx"})
    grown = patched_body(document, PatchDocument(id="x", operations=tuple(more), bytes_max=19))
    assert grown == Prepared(b'{"d":1,"e":"xxxxx"}', "Orders")
    with pytest.raises(DocumentInvalid, match="would have 19 bytes after the patch; the limit is 18"):
        patched_body(document, PatchDocument(id="x", operations=tuple(more), bytes_max=18))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
PATH = st.lists(st.sampled_from(["a", "b", "", "0", "1", "-", "~1", "~0", "ab"]), min_size=1, max_size=3)
OPERATION = st.tuples(st.sampled_from(["add", "remove", "replace", "copy", "move", "test"]), PATH, PATH, JSON)


@given(st.dictionaries(st.text("ab/~", max_size=2), JSON, max_size=4), st.lists(OPERATION, max_size=4))
def test_random_patches_do_what_plain_python_does(document: dict[str, Any], steps: list[Any]) -> None:
    made = [
        {"op": op, "path": "/" + "/".join(path), "from": "/" + "/".join(source), "value": value}
        for op, path, source, value in steps
    ]
    try:
        expected = plain(document, made)
    except (KeyError, IndexError, ValueError, TypeError):
        with pytest.raises(PatchFailed):
            after(*made, document=document)
        return
    assert after(*made, document=document) == expected


def plain(document: Any, steps: list[dict[str, Any]]) -> Any:
    """The same on Python's own values."""
    root = copy.deepcopy(document)
    for step in steps:
        path, source = split(step["path"]), split(step["from"])
        match step["op"]:
            case "add":
                put(root, path, step["value"], insert=True)
            case "replace":
                put(root, path, step["value"], insert=False)
            case "remove":
                take(root, path)
            case "copy":
                put(root, path, copy.deepcopy(reach(root, source)), insert=True)
            case "move":
                if path[: len(source)] == source and path != source:
                    raise ValueError
                put(root, path, take(root, source), insert=True)
            case _:
                if json.dumps(reach(root, path), sort_keys=True) != json.dumps(step["value"], sort_keys=True):
                    raise ValueError
    return root


def split(path: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def index(items: list[Any], token: str) -> int:
    if not token.isdigit() or int(token) >= len(items):
        raise IndexError
    return int(token)


def reach(value: Any, path: list[str]) -> Any:
    for token in path:
        value = value[index(value, token)] if isinstance(value, list) else {**value}[token]
    return value


def put(root: Any, path: list[str], value: Any, *, insert: bool) -> None:
    parent, last = reach(root, path[:-1]), path[-1]
    if isinstance(parent, list):
        if insert:
            parent.insert(len(parent) if last == "-" else index(parent, last), value)
        else:
            parent[index(parent, last)] = value
        return
    if not isinstance(parent, dict) or (not insert and last not in parent):
        raise KeyError
    parent[last] = value


def take(root: Any, path: list[str]) -> Any:
    parent, last = reach(root, path[:-1]), path[-1]
    return parent.pop(index(parent, last)) if isinstance(parent, list) else {**parent} and parent.pop(last)
