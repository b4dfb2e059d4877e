"""JSON patches (RFC 6902) as RavenDB applies them. Pure. What a patch does not name keeps its text, so that no number
loses a digit.

Stricter than the RFC where RavenDB is: an index must be that of an item, also for `add`, where only `-` appends.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder
from raftnode.foundation.names import fold

OPERATIONS_MAX = 1_000
PATH_LENGTH_MAX = 2_048
WORK_BYTES_MAX = 1 << 28
"""The document's size, added up over the operations: each reads what leads to its place, and other writes wait."""
APPEND = "-"

_fields: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw])
_items: JsonDecoder[list[msgspec.Raw]] = JsonDecoder(list[msgspec.Raw])
_exact: JsonDecoder[Any] = JsonDecoder(float_hook=Decimal)
Edit = Callable[[bytes, str], bytes]
"""What becomes of an object or array, and its member or item."""


class PatchFailed(ValueError):
    """The patch does not fit the document; the message names the operation and why."""


class PatchOperation(msgspec.Struct, frozen=True):
    """One step: add, remove, replace, move, copy or test."""

    op: str
    path: str
    value: msgspec.Raw = msgspec.Raw()
    source: str | None = msgspec.field(name="from", default=None)


def modifies(operations: Sequence[PatchOperation]) -> bool:
    """Whether any of them is more than a test."""
    return any(fold(one.op) != "test" for one in operations)


def patched(text: bytes, operations: Sequence[PatchOperation]) -> bytes:
    """The JSON object after these operations, each of which sees what the one before has done. Raises PatchFailed."""
    if len(operations) > OPERATIONS_MAX:
        raise PatchFailed(f"it has {len(operations)} operations; the limit is {OPERATIONS_MAX}. Use several patches")
    work = 0
    for place, operation in enumerate(operations):
        work += len(text)
        if work > WORK_BYTES_MAX:
            raise PatchFailed(
                f"Operations[{place}]: the operations up to here have gone through {work} bytes of the document; the "
                f"limit is {WORK_BYTES_MAX}. Use several patches"
            )
        try:
            text = _step(text, operation)
        except PatchFailed as error:
            raise PatchFailed(f"Operations[{place}] ({operation.op[:20]} {operation.path[:80]!r}): {error}") from None
        except DECODE_ERRORS as error:
            raise PatchFailed(f"Operations[{place}]: its value is no JSON: {error}") from None
    return text


def _step(text: bytes, given: PatchOperation) -> bytes:
    path = _tokens("path", given.path)
    match fold(given.op):
        case "add":
            return _edited(text, path, _adding(_value(given)))
        case "remove":
            return _edited(text, path, _removed)
        case "replace":
            return _edited(text, path, _replacing(_value(given)))
        case "copy":
            return _edited(text, path, _adding(_at(text, _source(given))))
        case "move":
            source = _source(given)
            if path[: len(source)] == source and path != source:
                raise PatchFailed("a value cannot be moved into itself")
            return _edited(_edited(text, source, _removed), path, _adding(_at(text, source)))
        case "test":
            if _comparable(_exact.decode(_at(text, path))) != _comparable(_exact.decode(_value(given))):
                raise PatchFailed("another value stands there")
            return text
        case _:
            raise PatchFailed("the operation must be add, remove, replace, move, copy or test")


def _comparable(value: Any) -> Any:
    """The value, in which true is not 1, as it is to Python. Numbers are equal by what they are worth."""
    match value:
        case bool():
            return (value,)
        case list():
            return [_comparable(item) for item in value]
        case dict():
            return {key: _comparable(item) for key, item in value.items()}
    return value


def _tokens(name: str, path: str) -> list[str]:
    if not path.startswith("/") or len(path) > PATH_LENGTH_MAX:
        raise PatchFailed(
            f"'{name}' must begin with a slash, like /lines/0, and have at most {PATH_LENGTH_MAX} characters"
        )
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def _source(given: PatchOperation) -> list[str]:
    if given.source is None:
        raise PatchFailed("'from' is missing")
    return _tokens("from", given.source)


def _value(given: PatchOperation) -> bytes:
    value = bytes(given.value)
    if not value:
        raise PatchFailed("'value' is missing")
    return value


def _edited(text: bytes, path: Sequence[str], edit: Edit) -> bytes:
    """The text with what `edit` makes of the last object or array on the path."""
    above: list[tuple[bytes, str]] = []
    for token in path[:-1]:
        above.append((text, token))
        text = _member(text, token)
    text = edit(text, path[-1])
    for outer, token in reversed(above):
        text = _replacing(text)(outer, token)
    return text


def _at(text: bytes, path: Sequence[str]) -> bytes:
    for token in path:
        text = _member(text, token)
    return text


def _member(text: bytes, token: str) -> bytes:
    if _is_array(text):
        items = _items.decode(text)
        return bytes(items[_index(items, token)])
    fields = _object(text, token)
    if token not in fields:
        raise PatchFailed(f"there is no {token[:80]!r}")
    return bytes(fields[token])


def _adding(value: bytes) -> Edit:
    def add(text: bytes, token: str) -> bytes:
        if _is_array(text):
            items = _items.decode(text)
            items.insert(len(items) if token == APPEND else _index(items, token), msgspec.Raw(value))
            return msgspec.json.encode(items)
        return msgspec.json.encode(_object(text, token) | {token: msgspec.Raw(value)})

    return add


def _replacing(value: bytes) -> Edit:
    def replace(text: bytes, token: str) -> bytes:
        if _is_array(text):
            items = _items.decode(text)
            items[_index(items, token)] = msgspec.Raw(value)
            return msgspec.json.encode(items)
        fields = _object(text, token)
        if token not in fields:
            raise PatchFailed(f"there is no {token[:80]!r}")
        return msgspec.json.encode(fields | {token: msgspec.Raw(value)})

    return replace


def _removed(text: bytes, token: str) -> bytes:
    if _is_array(text):
        items = _items.decode(text)
        del items[_index(items, token)]
        return msgspec.json.encode(items)
    fields = _object(text, token)
    if fields.pop(token, None) is None:
        raise PatchFailed(f"there is no {token[:80]!r}")
    return msgspec.json.encode(fields)


def _is_array(text: bytes) -> bool:
    return text.lstrip()[:1] == b"["


def _object(text: bytes, token: str) -> dict[str, msgspec.Raw]:
    if text.lstrip()[:1] != b"{":
        raise PatchFailed(f"{token[:80]!r} would be in what is neither an object nor an array")
    return _fields.decode(text)


def _index(items: Sequence[object], token: str) -> int:
    if not (token.isascii() and token.isdigit()) or len(token) > 10 or int(token) >= len(items):
        raise PatchFailed(f"{token[:80]!r} is no index of an array of {len(items)}")
    return int(token)
