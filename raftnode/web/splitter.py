"""Cutting a stream into JSON objects, for imports of any length."""

import re
from collections.abc import Iterator

from raftnode.web.errors import ApiError, bad_request

_MARK = re.compile(rb'["{}]')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_BETWEEN = re.compile(rb"[\s,\[\]]*\Z")


class Splitter:
    """Cuts a stream into its outermost JSON objects without parsing them; every byte is looked at once."""

    def __init__(self, item_bytes_max: int) -> None:
        self._item_bytes_max = item_bytes_max
        self._buffer = bytearray()
        self._place = 0
        self._start = 0
        self._depth = 0
        self._in_string = False
        self._items = 0
        self._array = False
        self._closed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The objects that this chunk completes. Raises ApiError for what is no list of objects."""
        self._buffer += chunk
        done = 0
        while (mark := self._next_mark()) is not None:
            if mark == b"{":
                if self._depth == 0:
                    self._start = self._place - 1
                    self._check_between(bytes(self._buffer[done : self._start]))
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth < 0:
                    raise bad_request(f"Before item {self._items} of the import stands a '}}' too many.")
                if self._depth == 0:
                    done = self._place
                    self._items += 1
                    yield bytes(self._buffer[self._start : done])
        self._forget(self._start if self._depth else done)
        if len(self._buffer) > self._item_bytes_max:
            message = f"Item {self._items} of the import is larger than {self._item_bytes_max} bytes. Make it smaller."
            raise ApiError("TooLargeException", message)

    def _next_mark(self) -> bytes | None:
        """The next brace outside strings, with the place after it; None when the buffer holds no more."""
        while True:
            if self._in_string:
                rest = _REST_OF_STRING.match(self._buffer, self._place)
                assert rest is not None
                self._place = rest.end()
                if not rest[1]:
                    return None
                self._in_string = False
            mark = _MARK.search(self._buffer, self._place)
            if mark is None:
                self._place = len(self._buffer)
                return None
            self._place = mark.end()
            if mark[0] != b'"':
                return bytes(mark[0])
            self._in_string = True

    def end(self) -> None:
        """Checks that nothing is left over. Raises ApiError."""
        if self._depth:
            raise bad_request(f"The import ends within item {self._items}. Send it again from there.")
        self._check_between(bytes(self._buffer))
        if self._array and not self._closed:
            raise bad_request(f"The import ends without the closing ']' after {self._items} items.")

    def _check_between(self, gap: bytes) -> None:
        if _BETWEEN.match(gap) is None:
            raise bad_request(
                f"Before item {self._items} of the import stands {gap[:40]!r}; only objects may stand there."
            )
        self._array = self._array or b"[" in gap
        self._closed = self._closed or b"]" in gap

    def _forget(self, count: int) -> None:
        del self._buffer[:count]
        self._start = 0
        self._place -= count
