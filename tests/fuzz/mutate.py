"""Bytes and values bent at random: what a fuzzer makes of a good message."""

from random import Random
from typing import Any

import msgspec

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), float("nan"), float("inf"), "", "A", "\x00", "x" * 300,
    b"", b"\xff" * 40, [], [[[[]]]], {}, {"a": {"b": None}}, {"": 1}, ["A", 1, None], msgspec.msgpack.Ext(5, b"\x00"),
)  # fmt: skip
"""Values of the wrong type, out of range or nested, to stand in a good one's place."""
TYPE_BYTES = bytes(
    (0xC0, 0xC1, 0xC3, 0xC4, 0xC6, 0xC7, 0xCB, 0xCF, 0xD3, 0xD7, 0xD9, 0xDB, 0xDC, 0xDD, 0xDF, 0x9F, 0x8F)
)
"""msgpack's first bytes of every family; the four-byte lengths among them promise thousands of millions."""


def flipped(random: Random, data: bytes) -> bytes:
    """One to eight bits the other way round."""
    bent = bytearray(data)
    for _ in range(random.randint(1, 8)):
        bent[random.randrange(len(bent))] ^= 1 << random.randrange(8)
    return bytes(bent)


def cut(random: Random, data: bytes) -> bytes:
    """The end or a part from the middle is missing."""
    begin = random.randrange(len(data))
    return data[:begin] + (data[random.randrange(begin, len(data)) + 1 :] if random.random() < 0.5 else b"")


def swapped(random: Random, data: bytes) -> bytes:
    """Two parts in each other's place."""
    a, b = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    return data[b:] + data[a:b] + data[:a]


def repeated(random: Random, data: bytes) -> bytes:
    """A part that stands there several times."""
    a, b = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    return data[:b] + data[a:b] * random.randint(1, 4) + data[b:]


def retyped(random: Random, data: bytes) -> bytes:
    """A byte that makes msgpack read another type there."""
    at = random.randrange(len(data))
    return data[:at] + bytes((random.choice(TYPE_BYTES),)) + data[at + 1 :]


def filled(random: Random, data: bytes) -> bytes:
    """Random bytes in the middle, or nothing else."""
    noise = random.randbytes(random.randint(1, 64))
    at = random.randrange(len(data) + 1)
    return noise if random.random() < 0.2 else data[:at] + noise + data[at:]


WAYS = (flipped, cut, swapped, repeated, retyped, filled)


def bent(random: Random, data: bytes) -> bytes:
    """The bytes after one or two of these ways."""
    for _ in range(random.randint(1, 2)):
        if data:
            data = random.choice(WAYS)(random, data)
    return data


def strange(random: Random, value: Any) -> Any:
    """The value with something else in one of its places, at any depth."""
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        how = random.random()
        if how < 0.1:
            return value[:at] + value[at + 1 :]
        if how < 0.2:
            return [*value, random.choice(STRANGE)]
        return [*value[:at], strange(random, value[at]), *value[at + 1 :]]
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(sorted(value, key=str))
        return value | {name: strange(random, value[name])}
    return random.choice(STRANGE)


def strange_message(random: Random, data: bytes) -> bytes:
    """A msgpack message with a wrong type somewhere."""
    return msgspec.msgpack.encode(strange(random, msgspec.msgpack.decode(data)))
