"""Every decoder of msgpack and JSON. Bytes from outside are either what was asked for or one of `DECODE_ERRORS`.

How deeply values may nest is a limit of our own: an interpreter's differs from version to version and with the depth of
the call, so nodes of one cluster would read the same bytes differently. It is checked before a byte is decoded. Bytes
that are within it never exhaust the stack; a RecursionError says something about this process, never about the bytes.
"""

import json
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

Kind = TypeVar("Kind")

DEPTH_MAX = 128
"""How many arrays and objects may stand inside each other."""


class TooDeep(ValueError):
    """The value nests deeper than the limit."""

    def __init__(self, depth_max: int = DEPTH_MAX) -> None:
        super().__init__(f"it is nested deeper than {depth_max} levels")


DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, TooDeep)
"""What the decoders here raise for bytes they cannot read."""


class MsgpackDecoder(Generic[Kind]):
    """Msgpack as values of one type. A `flat` type names no value of any depth, so it is its own limit: nothing is
    checked, which takes as long as decoding."""

    def __init__(
        self, kind: type[Kind] | Any, *, dec_hook: Callable[[type, Any], Any] | None = None, flat: bool = False
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind, dec_hook=dec_hook)
        self._flat = flat

    def decode(self, data: bytes) -> Kind:
        """The value. Raises one of `DECODE_ERRORS`."""
        if not self._flat:
            check_msgpack_depth(data)
        value: Kind = self._decoder.decode(data)
        return value


class JsonDecoder(Generic[Kind]):
    """JSON as values of one type. `float_hook` makes a value of the text of a number that is no integer, where the
    type says nothing about it."""

    def __init__(
        self,
        kind: type[Kind] | Any = Any,
        float_hook: Callable[[str], Any] | None = None,
        *,
        depth_max: int = DEPTH_MAX,
    ) -> None:
        self._decoder = msgspec.json.Decoder(kind, float_hook=float_hook)
        self._depth_max = depth_max

    def decode(self, data: bytes | str | msgspec.Raw) -> Kind:
        """The value. Raises one of `DECODE_ERRORS`."""
        check_json_depth(data, self._depth_max)
        value: Kind = self._decoder.decode(data)
        return value


def from_msgpack(data: bytes, kind: type[Kind]) -> Kind:
    """The value as that type. Raises one of `DECODE_ERRORS`."""
    check_msgpack_depth(data)
    return msgspec.msgpack.decode(data, type=kind)


@overload
def from_json(data: bytes | str) -> Any: ...
@overload
def from_json(data: bytes | str, kind: type[Kind]) -> Kind: ...
def from_json(data: bytes | str, kind: Any = Any) -> Any:
    """The value as that type. Raises one of `DECODE_ERRORS`."""
    check_json_depth(data)
    return msgspec.json.decode(data, type=kind)


def from_python_json(data: bytes | str) -> Any:
    """The value as Python's own `json` reads it: with integers of any size, NaN and infinity. Raises ValueError."""
    check_json_depth(data)
    return json.loads(data)


# ---- depth

_CONTAINERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_COUNTED_BYTES_MAX = 1 << 16
_FIXED = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9} | {
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18
}  # fmt: skip
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)
}  # fmt: skip
"""Text, bytes and extensions: how many bytes their length takes, and what else stands before their content."""
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Arrays and maps: how many bytes their length takes, and how many values one of it stands for."""


def check_msgpack_depth(data: bytes) -> None:
    """Raises TooDeep. Whether the bytes are msgpack at all is for the decoder to say."""
    if len(data) <= DEPTH_MAX:
        return
    if len(data) <= _COUNTED_BYTES_MAX and len(data) - len(data.translate(None, _CONTAINERS)) <= DEPTH_MAX:
        return  # too few bytes that could begin a container, wherever they stand
    end, at, left = len(data), 0, 1
    above: list[int] = []
    while at < end:
        while left == 0:
            if not above:
                return
            left = above.pop()
        left -= 1
        size, values = _item(data, at)
        at += size
        if values >= 0:
            above.append(left)
            if len(above) > DEPTH_MAX:
                raise TooDeep
            left = values


def _item(data: bytes, at: int) -> tuple[int, int]:
    """The size of what begins there, in bytes, and how many values it holds; -1: it is no container. Of a container
    only the head counts."""
    head = data[at]
    if head < 0x80 or head >= 0xE0:
        return 1, -1
    if head < 0xA0:
        return 1, (head & 15) * (2 if head < 0x90 else 1)
    if head < 0xC0:
        return 1 + (head & 31), -1
    if head in _COUNTED:
        width, each = _COUNTED[head]
        return 1 + width, each * int.from_bytes(data[at + 1 : at + 1 + width], "big")
    if head in _SIZED:
        width, extra = _SIZED[head]
        return 1 + width + extra + int.from_bytes(data[at + 1 : at + 1 + width], "big"), -1
    return _FIXED.get(head, 1), -1


_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


def check_json_depth(data: bytes | str | msgspec.Raw, depth_max: int = DEPTH_MAX) -> None:
    """Raises TooDeep. Whether the text is JSON at all is for the decoder to say.

    Once texts are cut out, taking away all empty brackets lowers the depth by one; each round runs at C's speed. So
    does what comes before: of a document of 64 MiB no step takes more than a few tens of milliseconds.
    """
    text = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
    if text.count(b"[") + text.count(b"{") <= depth_max:
        return
    # Backslashes in pairs first: what is left of a run escapes the next letter.
    marks = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_TO_BRACKETS, _NO_MARKS)
    # Two quotes side by side are a text without brackets, or the end of one and the beginning of the next.
    brackets = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    for _ in range(depth_max):
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    # What is left nests deeper, or does not balance; a decoder refuses that, but one must not have to go deep for it.
    if brackets.count(b"[") > (depth_max if b"[]" not in brackets else 0):
        raise TooDeep(depth_max)
