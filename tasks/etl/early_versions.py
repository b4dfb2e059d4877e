"""Versions of documents that a transform has had and that its progress vector does not count: it met them before their
place, where an earlier version stood, or in a part of the order of which only the newest places are left.

In a table that is only inserted into they must not come again, on whatever node. A version is known by its origin, the
write that made it; those of neighbouring writes are kept as one range, so that a million documents that were written
one after the other take no more room than one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from raftnode.documents import change_vector

Ranges = tuple[tuple[int, int], ...]
Early = Mapping[str, Ranges]
"""By database id the etags of writes: ranges, first and last, in order."""
RANGES_MAX = 10_000
"""A database. Beyond it the oldest are forgotten, and what they stood for may come twice."""


def has(early: Early, origin: str) -> bool:
    """Whether the version with that origin is among them."""
    if not early:
        return False
    ((id, (etag, _)),) = change_vector.parse(origin).items()
    ranges = early.get(id, ())
    place = bisect_right(ranges, (etag, change_vector.ETAG_MAX)) - 1
    return place >= 0 and etag <= ranges[place][1]


def after(early: Early, origins: Iterable[str]) -> dict[str, Ranges]:
    """Those and the versions with these origins."""
    added: dict[str, list[tuple[int, int]]] = {}
    for origin in origins:
        for id, (etag, _) in change_vector.parse(origin).items():
            added.setdefault(id, []).append((etag, etag))
    return dict(early) | {id: _joined(sorted([*early.get(id, ()), *ranges])) for id, ranges in added.items()}


def _joined(ranges: list[tuple[int, int]]) -> Ranges:
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found[-RANGES_MAX:])
