"""Compressed streams: whatever they hold and wherever the network cuts them, in small pieces, or a clear refusal."""

import gzip
import sys
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.foundation.decompression import (
    ENCODINGS,
    PIECE_BYTES_MAX,
    WINDOW_LOG_MAX,
    Decompressor,
    NotCompressed,
    encoding_of,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOMB_BYTES = 50 * 1024 * 1024


def compressed(encoding: str, data: bytes) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(data)
        case "deflate":
            return zlib.compress(data)
        case "zstd":
            return zstd.compress(data)
    raise AssertionError(encoding)


def bare(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


@given(
    frames=st.lists(st.binary(max_size=2000).map(lambda data: data * 100), min_size=1, max_size=4),
    encoding=st.sampled_from(ENCODINGS),
    cuts=st.lists(st.integers(0, 100_000), max_size=10),
)
def test_the_same_bytes_come_out_of_any_number_of_frames_however_they_are_cut(
    frames: list[bytes], encoding: str, cuts: list[int]
) -> None:
    whole = b"".join(compressed(encoding, frame) for frame in frames)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    inflater = Decompressor(encoding)
    pieces = [piece for a, b in pairwise(places) for piece in inflater.feed(whole[a:b])]
    inflater.end()
    assert b"".join(pieces) == b"".join(frames)
    assert all(0 < len(piece) <= PIECE_BYTES_MAX for piece in pieces)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_comes_in_small_pieces(encoding: str) -> None:
    bomb = compressed(encoding, b"0" * BOMB_BYTES)
    assert len(bomb) < BOMB_BYTES / 900
    pieces = Decompressor(encoding).feed(bomb)
    assert [len(next(pieces)) for _ in range(10)] == [PIECE_BYTES_MAX] * 10
    assert 10 * PIECE_BYTES_MAX + sum(map(len, pieces)) == BOMB_BYTES


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_that_is_cut_off_is_noticed(encoding: str) -> None:
    whole = compressed(encoding, b"one\n" * 10_000)
    for length in (1, len(whole) // 2, len(whole) - 1):
        inflater = Decompressor(encoding)
        list(inflater.feed(whole[:length]))
        with pytest.raises(NotCompressed, match="cut off"):
            inflater.end()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_not_compressed_is_refused(encoding: str) -> None:
    with pytest.raises(NotCompressed, match=f"not valid {encoding}"):
        list(Decompressor(encoding).feed(b'{"a": 1}' * 10))


def test_deflate_without_a_header_is_taken() -> None:
    inflater = Decompressor("deflate")
    assert b"".join(inflater.feed(bare(b"abc" * 100))) == b"abc" * 100
    inflater.end()


def test_a_frame_that_wants_much_memory_is_refused() -> None:
    made = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: WINDOW_LOG_MAX + 1})
    with pytest.raises(NotCompressed, match="memory"):
        list(Decompressor("zstd").feed(made.compress(b"x") + made.flush()))


def test_a_skippable_frame_is_skipped() -> None:
    inflater = Decompressor("zstd")
    skippable = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    assert b"".join(inflater.feed(skippable + zstd.compress(b"x"))) == b"x"
    inflater.end()


def test_compressed_files_are_known_by_their_beginning() -> None:
    assert encoding_of(gzip.compress(b"x")) == "gzip"
    assert encoding_of(zstd.compress(b"x")) == "zstd"
    assert encoding_of(b'[{"a": 1}]') is None
    assert encoding_of(b"") is None
