"""What a node says of its copies of databases: to the observer, in its reports, and to people."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from raftnode.record.model import Database

CopyStatus = Literal["Loaded", "Loading", "Faulted", "Unloaded"]


class DatabaseCopy(msgspec.Struct, frozen=True, rename="pascal"):
    """What this node says of its copy: whether it serves, how far it is, and what it has sent to whom."""

    status: CopyStatus
    error: str = ""
    database_id: str = ""
    documents: int = 0
    last_etag: int = 0
    change_vector: str = ""
    sent: Mapping[str, int] = {}
    replication_errors: Mapping[str, str] = {}


class DatabaseCopies:
    """What was said last. Only the copies that have moved since, and those whose database has changed, are looked at
    again: a thousand databases of which one is written to cost what one costs.

    `look` gives what is to be said of a database by its folded name, None if this node does not hold it.
    """

    def __init__(self, look: Callable[[str, Database], DatabaseCopy | None]) -> None:
        self._look = look
        self._databases: Mapping[str, Database] = {}
        self._told: dict[str, DatabaseCopy] = {}
        self._moved: set[str] = set()

    def moved(self, *folded: str) -> None:
        """Marks what is said of these databases as stale."""
        self._moved.update(folded)

    def told(self, databases: Mapping[str, Database]) -> Mapping[str, DatabaseCopy]:
        """The copies by folded name. The same answer is the same object, as a whole and for each copy: whoever passes
        it on sees what has changed."""
        before, due = self._databases, self._moved
        if databases is not before:
            due.update(folded for folded, database in databases.items() if before.get(folded) is not database)
            due.update(folded for folded in before if folded not in databases)
        self._databases, self._moved = databases, set()
        changed = {}
        for folded in due:
            database = databases.get(folded)
            copy = None if database is None else self._look(folded, database)
            if copy != self._told.get(folded):
                changed[folded] = copy
        if changed:
            self._told = {folded: copy for folded, copy in (self._told | changed).items() if copy is not None}
        return self._told
