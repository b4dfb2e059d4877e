"""Splits a stream of bytes into the JSON objects that it is made of, without parsing them and without holding more than
one of them in memory.

For imports of any length. The objects stand one a line or in one array, with or without a byte order mark.
"""

import re
from collections.abc import Iterator

_MARK = re.compile(rb'["{}]')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_BETWEEN = re.compile(rb"(?:[\s,\[\]]++|\xef\xbb\xbf)*+\Z")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class NoListOfObjects(Exception):
    """The stream is no list of objects; the message says where."""


class ItemTooLarge(Exception):
    """An object is larger than the limit; the message names it."""


class JsonSplitter:
    """Feed it chunks of any size, and call `end` after the last one. It follows braces outside of strings, so that what
    it gives need not be valid JSON; each byte is looked at once.

    `items` is how many objects have begun up to now, `line` the line on which the newest one does, from 1.
    """

    def __init__(self, item_bytes_max: int) -> None:
        self._item_bytes_max = item_bytes_max
        self._buffer = bytearray()
        self._place = 0
        self._start = 0
        self._depth = 0
        self._in_string = False
        self.items = 0
        self.line = 1
        self._counted = 0
        self._array = False
        self._closed = False
        self._blank = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The objects that this chunk completes. Raises NoListOfObjects, ItemTooLarge."""
        self._buffer += chunk
        done = 0
        while (mark := self._next_mark()) is not None:
            if mark == b"{":
                if self._depth == 0:
                    self._start = self._place - 1
                    self.line += self._buffer.count(b"\n", self._counted, self._start)
                    self._counted = self._start
                    self._check_between(bytes(self._buffer[done : self._start]))
                    self.items += 1
                    self._blank = 0
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth < 0:
                    raise NoListOfObjects(f"After item {self.items} stands a '}}' too many.")
                if self._depth == 0:
                    done = self._place
                    yield bytes(self._buffer[self._start : done])
        if self._depth == 0 and not self._in_string and _BETWEEN.match(self._buffer, done):
            # Of what may stand between items nothing is kept, as looking at much of it again takes long.
            self._check_between(bytes(self._buffer[done:]))
            self._blank += len(self._buffer) - done
            done = len(self._buffer)
        self._forget(self._start if self._depth else done)
        if len(self._buffer) + self._blank > self._item_bytes_max:
            where = f"Item {self.items} (line {self.line})" if self._depth else f"What stands after item {self.items}"
            raise ItemTooLarge(f"{where} is larger than {self._item_bytes_max} bytes. Make it smaller.")

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
        """Checks that nothing is left over. Raises NoListOfObjects."""
        if self._depth:
            raise NoListOfObjects(
                f"The import ends within item {self.items} (line {self.line}). Send it again from there."
            )
        self._check_between(bytes(self._buffer))
        if self._array and not self._closed:
            raise NoListOfObjects(f"The import ends without the closing ']' after item {self.items}.")

    def _check_between(self, gap: bytes) -> None:
        if _BETWEEN.match(gap) is None:
            if self.items == 0 and gap.startswith(_UTF_16):
                raise NoListOfObjects("The import is in UTF-16. Convert it to UTF-8.")
            shown = gap.strip()[:40].decode(errors="replace")
            raise NoListOfObjects(f"Before item {self.items + 1} stands {shown!r}; only objects may stand there.")
        self._array = self._array or b"[" in gap
        self._closed = self._closed or b"]" in gap

    def _forget(self, count: int) -> None:
        if count > self._counted:
            self.line += self._buffer.count(b"\n", self._counted, count)
            self._counted = count
        del self._buffer[:count]
        self._counted -= count
        self._start = 0
        self._place -= count
