"""Bytes of another machine that nobody can read: every decoder on the wire fails in one of the ways that are caught."""

from collections.abc import Callable
from typing import Any

import pytest

from raftnode import heartbeat
from raftnode.consensus import connection, hello, messages, proposals
from raftnode.unreadable import UNREADABLE

DEEP = b"\x91" * 3000 + b"\xc0"
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "frame": connection._decoder.decode,
    "greeting": hello.decode,
    "raft": messages.decode,
    "proposal": proposals._decoder.decode,
    "beat": heartbeat._decoder.decode,
}
GARBAGE = {
    "nothing": b"",
    "another type": b"\xc3",
    "cut": b"\x92\xa5",
    "no UTF-8": b"\x92\xa5\xff\xff\xff\xff\xff\x03",
    "no UTF-8 in a map": b"\x81\xa1\xff\xc0",
    "deep": DEEP,
    "deep behind a message": b"\x93\xa5Voted\x03" + DEEP,
    "deep in a map": b"\x81\xa1a" * 1300 + b"\xc0",
    "an array of four thousand million": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("decoder", DECODERS)
def test_garbage_is_unreadable_and_nothing_else(decoder: str, garbage: str) -> None:
    with pytest.raises(UNREADABLE):
        DECODERS[decoder](GARBAGE[garbage])


@pytest.mark.parametrize("garbage", [b"\x81\xa1\xff\xc0", b"\x81\xa1a" + DEEP])
def test_a_reports_unreadable_payload_is_none(garbage: bytes) -> None:
    assert heartbeat._decoded("B", garbage) == {}
