"""The records of a journal segment: encoding, and reading back with every kind of damage told apart.

A record is a marker, the command's length, a CRC-32 over the rest of the header and the command, the entry's index
and term, and the command. The marker lets a reader find records behind a damaged one: a record that is torn and has
nothing valid behind it was being written when the power went; one with valid records behind it has rotted. The marker
ends with the version of the format, so that a newer one's records are not taken for a torn tail and cut.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Entry = tuple[bytes, int, int]
"""A log entry as PySyncObj wants it: command, index, term."""

VERSION = 1
FAMILY = b"\xf5rn"
MARKER = FAMILY + bytes((VERSION,))
HEADER = struct.Struct("<4sII QQ")
COVERED = struct.Struct("<IQQ")
RECORD_BYTES_MAX = 4 * 1024 * 1024
HEADER_BYTES = HEADER.size

Damage = Literal["none", "torn", "rotten", "newer"]


@dataclass
class SegmentScan:
    """What a segment holds: its entries, where each begins, where the sound part ends, and what follows that."""

    entries: list[Entry] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    end: int = 0
    damage: Damage = "none"


def _crc(length: int, index: int, term: int, command: bytes) -> int:
    return zlib.crc32(command, zlib.crc32(COVERED.pack(length, index, term)))


def encode(entry: Entry) -> bytes:
    """The entry as a record."""
    command, index, term = entry
    length = len(command)
    return HEADER.pack(MARKER, length, _crc(length, index, term, command), index, term) + command


def _record_at(data: bytes, offset: int) -> tuple[Entry, int] | None:
    if len(data) - offset < HEADER_BYTES:
        return None
    marker, length, crc, index, term = HEADER.unpack_from(data, offset)
    begin = offset + HEADER_BYTES
    if marker != MARKER or length > RECORD_BYTES_MAX or begin + length > len(data):
        return None
    command = data[begin : begin + length]
    if _crc(length, index, term, command) != crc:
        return None
    return (command, index, term), begin + length


def _any_record_behind(data: bytes, offset: int) -> bool:
    position = data.find(MARKER, offset + 1)
    while position >= 0:
        if _record_at(data, position) is not None:
            return True
        position = data.find(MARKER, position + 1)
    return False


def _damage_at(data: bytes, offset: int) -> Damage:
    if _any_record_behind(data, offset):
        return "rotten"
    marker = data[offset : offset + len(MARKER)]
    return "newer" if marker.startswith(FAMILY) and marker > MARKER else "torn"


def scan(data: bytes) -> SegmentScan:
    """Reads a whole segment, up to its end or to the first record that is not sound."""
    result = SegmentScan()
    while result.end < len(data):
        found = _record_at(data, result.end)
        if found is None:
            result.damage = _damage_at(data, result.end)
            break
        entry, after = found
        result.entries.append(entry)
        result.offsets.append(result.end)
        result.end = after
    return result


def discontinuity(entries: Iterable[Entry], index: int, term: int) -> int | None:
    """The position of the first entry that does not follow its predecessor, of which `index` and `term` are given:
    indexes rise by one, terms never fall."""
    for position, (_, next_index, next_term) in enumerate(entries):
        if next_index != index + 1 or next_term < term:
            return position
        index, term = next_index, next_term
    return None
