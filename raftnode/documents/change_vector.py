"""Change vectors: which writes a document version, or a whole database, has behind it.

The text is `A:12-<database id>, B:3-<database id>`: of the database with that id, opened on the node with
that tag, every write up to that etag is counted in. Entries are keyed by database id; the tag is for people.
The form is canonical (sorted by tag, then id), so that equal vectors are equal texts. The idea is that of
version vectors (Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", 1983). Everything
here is pure.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

DATABASE_ID_LENGTH = 22
ENTRIES_MAX = 256
LENGTH_MAX = 16 * 1024
PARSED_KEPT = 256
"""What is compared is mostly the same few texts: those of a database, and of a document in several places."""
ETAG_MAX = (1 << 63) - 1

Entries = Mapping[str, tuple[int, str]]
"""database id -> (etag, tag)."""

_ENTRY = re.compile(r"([A-Z]{1,4}):(\d{1,19})-([A-Za-z0-9+/_-]{22})\Z")


class ChangeVectorInvalid(ValueError):
    """The text is not a change vector, or it exceeds a limit; the message says which."""


@lru_cache(PARSED_KEPT)
def parse(text: str) -> Entries:
    """The entries of a vector's text; the empty text has none. Raises ChangeVectorInvalid."""
    if not text:
        return {}
    if len(text) > LENGTH_MAX:
        raise ChangeVectorInvalid(f"a change vector has {len(text)} characters, the limit is {LENGTH_MAX}")
    entries: dict[str, tuple[int, str]] = {}
    for part in text.split(","):
        match = _ENTRY.match(part.strip())
        if match is None:
            raise ChangeVectorInvalid(f"{part.strip()[:80]!r} is not a change vector entry like A:12-<database id>")
        tag, etag, database_id = match[1], int(match[2]), match[3]
        if etag > ETAG_MAX:
            raise ChangeVectorInvalid(f"etag {etag} in a change vector exceeds {ETAG_MAX}")
        entries[database_id] = max(entries.get(database_id, (0, "")), (etag, tag))
    return entries


def format_entries(entries: Entries) -> str:
    """The canonical text of entries. Raises ChangeVectorInvalid beyond ENTRIES_MAX."""
    if len(entries) > ENTRIES_MAX:
        raise ChangeVectorInvalid(
            f"a change vector would have {len(entries)} entries, the limit is {ENTRIES_MAX}: too many databases have "
            "written here in turn; export the documents and import them into a new database"
        )
    ordered = sorted((tag, database_id, etag) for database_id, (etag, tag) in entries.items())
    return ", ".join(f"{tag}:{etag}-{database_id}" for tag, database_id, etag in ordered)


def dot(tag: str, etag: int, database_id: str) -> str:
    """The vector of a single write."""
    return f"{tag}:{etag}-{database_id}"


def merge(*vectors: str) -> str:
    """The least vector that dominates all of them."""
    merged: dict[str, tuple[int, str]] = {}
    for vector in vectors:
        for database_id, entry in parse(vector).items():
            merged[database_id] = max(merged.get(database_id, (0, "")), entry)
    return format_entries(merged)


def meet(*vectors: str) -> str:
    """The greatest vector that all of them dominate."""
    if not vectors:
        return ""
    first, *others = [parse(vector) for vector in vectors]
    common = set(first).intersection(*others)
    return format_entries({id: min(entries[id] for entries in (first, *others)) for id in common})


def dominates(vector: str, other: str) -> bool:
    """Whether every write counted in `other` is counted in `vector`."""
    if not other or vector == other:
        return True
    entries = parse(vector)
    return all(etag <= entries.get(database_id, (0, ""))[0] for database_id, (etag, _) in parse(other).items())


def equal(vector: str, other: str) -> bool:
    """Whether they count the same writes, however they are written."""
    return dominates(vector, other) and dominates(other, vector)


def etag_of(vector: str, database_id: str) -> int:
    """How far the vector counts the writes of one database; 0 if not at all."""
    return parse(vector).get(database_id, (0, ""))[0]


def without(vector: str, database_id: str) -> str:
    """The vector without one database's entry."""
    return format_entries({key: entry for key, entry in parse(vector).items() if key != database_id})
