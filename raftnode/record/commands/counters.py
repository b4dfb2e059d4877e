"""Counters of a database: identities of documents, and the ranges of ids that clients make ids of (HiLo). A value is
given once, whichever nodes are asked, and whatever becomes of their copies."""

from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.commands.base import Changes, Command, Entry, Outcome, check_name, refuse, the_database
from raftnode.record.model import COUNTER_MAX, COUNTERS_MAX, Database, Record


class AdvanceCounter(Command, frozen=True, kw_only=True, tag="AdvanceCounter"):
    """The next `count` values of a counter, which begins at 0, all of them above `above`."""

    database: str
    name: str
    count: int = 1
    above: int = 0

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The value is the last of them. Refuses a name that is none, a counter too many, and one at its end."""
        database = the_database(record, self.database)
        last = max(database.counters.get(fold(self.name), 0), self.above) + self.count
        if self.count < 1 or last > COUNTER_MAX:
            refuse("BadRequestException", f"Counter '{self.name}' cannot give {self.count} values up to {COUNTER_MAX}.")
        return _with_counter(record, database, self.name, last)


class SetCounter(Command, frozen=True, kw_only=True, tag="SetCounter"):
    """A counter goes on after `value`. It goes back only with `back`; with `given`, only if that is its last value."""

    database: str
    name: str
    value: int
    back: bool = False
    given: int | None = None

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The value is the counter's after that. Refuses a name that is none, a counter too many, and a value out of
        range."""
        database = the_database(record, self.database)
        if not 0 <= self.value <= COUNTER_MAX:
            refuse("BadRequestException", f"Counter '{self.name}' may be 0 to {COUNTER_MAX}, not {self.value}.")
        now = database.counters.get(fold(self.name), 0)
        if (self.given is not None and self.given != now) or (self.value < now and not self.back):
            return Outcome(record=record, value=now)
        return _with_counter(record, database, self.name, self.value)


def _with_counter(record: Record, database: Database, name: str, value: int) -> Outcome:
    """The database's etag stays: nothing that its nodes or tasks act on has changed."""
    check_name("Counter name", name)
    folded = fold(name)
    if folded not in database.counters and len(database.counters) >= COUNTERS_MAX:
        refuse("LimitExceededException", f"A database holds at most {COUNTERS_MAX} identities and ranges of ids.")
    counted = replace(database, counters=database.counters.set(folded, value))
    databases = record.databases.set(fold(database.name), counted)
    changes = Changes(databases=frozenset({fold(database.name)}))
    return Outcome(record=replace(record, databases=databases), value=value, changes=changes)
