"""Every decoder fails in one of the ways that are caught, whatever the bytes; and depth has one limit, our own, so that
no interpreter reads what another one refuses."""

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from raftnode.consensus import proposals
from raftnode.consensus.engine import messages
from raftnode.consensus.transport import connection
from raftnode.consensus.transport import handshake as handshake
from raftnode.foundation import decoding
from raftnode.foundation.decoding import (
    DECODE_ERRORS,
    DEPTH_MAX,
    JsonDecoder,
    MsgpackDecoder,
    TooDeep,
    check_json_depth,
    check_msgpack_depth,
    from_json,
    from_msgpack,
    from_python_json,
)
from raftnode.liveness import heartbeat
from raftnode.record import commands

DEEP = b"\x91" * 3000 + b"\xc0"
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "frame": connection._decoder.decode,
    "greeting": handshake.decode,
    "raft": messages.decode,
    "proposal": proposals._decoder.decode,
    "beat": heartbeat._decoder.decode,
    "command": commands.decode,
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
    with pytest.raises(DECODE_ERRORS):
        DECODERS[decoder](GARBAGE[garbage])


@pytest.mark.parametrize("decode", [from_json, JsonDecoder().decode, from_python_json], ids=["one", "kept", "python"])
@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}"), ('[{"]\\"[{":', "}]")])
def test_json_is_read_to_its_greatest_depth_and_not_beyond(
    decode: Callable[[str], Any], before: str, after: str
) -> None:
    levels = DEPTH_MAX // len(after)
    decode(before * levels + "1" + after * levels)
    for deeper in (levels + 1, 2 * levels, 1000, 20_000):
        with pytest.raises(TooDeep):
            decode(before * deeper + "1" + after * deeper)


@pytest.mark.parametrize("decode", [lambda data: from_msgpack(data, object), MsgpackDecoder(Any).decode])
@pytest.mark.parametrize(
    "before", [b"\x91", b"\xdc\x00\x01", b"\x81\xa1a", b"\xdf\x00\x00\x00\x01\xa0", b"\x92\xc4\x03\x91\x91\x91"]
)
def test_msgpack_is_read_to_its_greatest_depth_and_not_beyond(decode: Callable[[bytes], Any], before: bytes) -> None:
    decode(before * DEPTH_MAX + b"\xc0")
    for deeper in (DEPTH_MAX + 1, 1000, 20_000):
        with pytest.raises(TooDeep):
            decode(before * deeper + b"\xc0")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 5000 + "}" * 5000, "[" * 400 + "]" * 300])
def test_json_that_does_not_balance_makes_no_decoder_go_deep(text: str) -> None:
    with pytest.raises(DECODE_ERRORS):
        from_json(text)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    return 1 + max((_depth(item) for item in value), default=0) if isinstance(value, list) else 0


def _value(chance: random.Random, depth: int) -> Any:
    texts = ["", '"', "\\", "[[{{", '\\"]', "ü€\x00", "}" * 3]
    many = [chance.choice([1, -1, 2**63, 1.5, None, True, chance.choice(texts)]) for _ in range(chance.randrange(40))]
    if depth == 0:
        return many
    inner = _value(chance, depth - 1)
    return [*many, inner] if chance.random() < 0.5 else {chance.choice(texts): many, "deep": inner}


@pytest.mark.parametrize("seed", range(60))
def test_depth_is_counted_exactly_whatever_stands_between(seed: int) -> None:
    chance = random.Random(seed)
    value = _value(chance, chance.choice([3, DEPTH_MAX - 2, DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1]))
    checks: list[Callable[[], None]] = [
        lambda: check_json_depth(msgspec.json.encode(value)),
        lambda: check_json_depth(json.dumps(value, indent=1)),
        lambda: check_msgpack_depth(msgspec.msgpack.encode(value)),
    ]
    for check in checks:
        with pytest.raises(TooDeep) if _depth(value) > DEPTH_MAX else contextlib.nullcontext():
            check()


def test_every_head_of_msgpack_is_passed_over_with_its_content() -> None:
    values: list[Any] = [0, 127, -1, -33, 200, 70_000, 2**40, -200, -70_000, -(2**40), 1.5, None, True, False]
    values += ["a" * n for n in (0, 31, 32, 300, 70_000)] + [b"\x91" * n for n in (0, 300, 70_000)]
    values += [msgspec.msgpack.Ext(1, b"\x91" * n) for n in (1, 2, 4, 8, 16, 3, 300, 70_000)]
    values += [list(range(n)) for n in (0, 15, 16, 70_000)] + [{str(i): i for i in range(n)} for n in (15, 16, 70_000)]
    for value in values:
        data = msgspec.msgpack.encode(value)
        around = b"\x92" + data
        check_msgpack_depth(around + b"\x91" * (DEPTH_MAX - 1) + b"\xc0")
        with pytest.raises(TooDeep):
            check_msgpack_depth(around + b"\x91" * DEPTH_MAX + b"\xc0")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(1.5)) == 1.5
    assert decoding._item(b"\xca\0\0\0\0", 0) == (5, -1)
