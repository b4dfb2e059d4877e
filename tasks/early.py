"""Versions of documents that a transform has had and that its progress vector does not count: it met them before their
place, where an earlier version stood, or in a part of the order of which only the newest places are left.

In a table that is only inserted into they must not come again, on whatever node. A version is known by its origin, the
write that made it; those of neighbouring writes are kept as one range, so that a million documents that were written
one after the other take no more room than one.
"""

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
    return any(first <= etag <= last for first, last in early.get(id, ()))


def after(early: Early, origins: Iterable[str], counted: str) -> dict[str, Ranges]:
    """Those and the versions with these origins, without what the vector counts."""
    added: dict[str, list[tuple[int, int]]] = {}
    for origin in origins:
        for id, (etag, _) in change_vector.parse(origin).items():
            added.setdefault(id, []).append((etag, etag))
    done = {id: etag for id, (etag, _) in change_vector.parse(counted).items()}
    joined = {id: _joined(sorted([*early.get(id, ()), *added.get(id, ())]), done.get(id, 0)) for id in {*early, *added}}
    return {id: ranges for id, ranges in joined.items() if ranges}


def _joined(ranges: list[tuple[int, int]], done: int) -> Ranges:
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if last <= done:
            continue
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found[-RANGES_MAX:])
