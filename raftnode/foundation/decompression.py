"""Decompression of a stream that arrives in pieces: gzip, deflate and Zstandard.

A few bytes can decompress to gigabytes. So a step gives at most PIECE_BYTES_MAX bytes, and whoever reads the pieces
counts them; and a frame that asks for a window above WINDOW_LOG_MAX, which is memory, is refused. A stream that was cut
off raises at its end: an import would lose its last documents without a word otherwise.
"""

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

PIECE_BYTES_MAX = 64 * 1024
WINDOW_LOG_MAX = 23
"""8 MiB, what RFC 9659 allows in HTTP."""
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How compressed files begin. No text does, so that they can be told from JSON."""
MAGIC_BYTES_MAX = 4


class NotCompressed(Exception):
    """The bytes are not what they are said to be, or end too early; the message says which."""


class _Frame(Protocol):
    """One frame (gzip: member) being decompressed."""

    @property
    def ended(self) -> bool:
        """Whether the frame is complete."""

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """A piece, the input that is left, and whether there is more to get, even without input."""


class _Zlib:
    def __init__(self, encoding: str, wbits: int) -> None:
        self._encoding = encoding
        self._zlib = zlib.decompressobj(wbits)

    @property
    def ended(self) -> bool:
        return self._zlib.eof

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        try:
            piece = self._zlib.decompress(data, PIECE_BYTES_MAX)
        except zlib.error as error:
            raise NotCompressed(f"it is not valid {self._encoding}: {error}") from None
        return piece, self._zlib.unconsumed_tail or self._zlib.unused_data, len(piece) == PIECE_BYTES_MAX


class _Zstd:
    def __init__(self) -> None:
        # Imported at the first use.
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        self._error = zstd.ZstdError
        self._zstd = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})

    @property
    def ended(self) -> bool:
        return self._zstd.eof

    def step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        try:
            piece = self._zstd.decompress(data, PIECE_BYTES_MAX)
        except self._error as error:
            raise NotCompressed(f"it is not valid zstd: {error}") from None
        ended = self._zstd.eof
        return piece, self._zstd.unused_data if ended else b"", not (ended or self._zstd.needs_input)


def _deflate(data: bytes) -> _Frame:
    # HTTP's "deflate" is zlib's format; some clients send the bare one.
    return _Zlib("deflate", zlib.MAX_WBITS if data[0] & 0xF == 8 else -zlib.MAX_WBITS)


_FRAMES: Mapping[str, Callable[[bytes], _Frame]] = {
    "gzip": lambda data: _Zlib("gzip", zlib.MAX_WBITS | 16),
    "deflate": _deflate,
    "zstd": lambda data: _Zstd(),
}
ENCODINGS = tuple(_FRAMES)


class Decompressor:
    """A stream in one of ENCODINGS, of one frame or of several, one after the other."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._frame: _Frame | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces that these bytes give. Raises NotCompressed."""
        rest, more = data, False
        while rest or more:
            if self._frame is None:
                self._frame = _FRAMES[self._encoding](rest)
            piece, rest, more = self._frame.step(rest)
            if piece:
                yield piece
            if self._frame.ended:
                self._frame, more = None, False

    def end(self) -> None:
        """No more bytes come. Raises NotCompressed if some are missing."""
        if self._frame is not None:
            raise NotCompressed(f"it was cut off: its {self._encoding} stream does not end")


def encoding_of(beginning: bytes) -> str | None:
    """The encoding of a file that begins like this, None for one that is not compressed."""
    return next((encoding for magic, encoding in MAGIC.items() if beginning.startswith(magic)), None)
