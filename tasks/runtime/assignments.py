"""Remembers which tasks are this node's, so that a change of one database, or of one task, costs the others nothing."""

from collections.abc import Mapping
from typing import NamedTuple

from immutables import Map

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.foundation.names import fold
from raftnode.record.model import Claim, ConnectionString, Database, Record, Task, claim_key
from raftnode.record.ownership import PlacementGroup
from tasks.runtime.plan import Assignment, assignment_of_task, assignments_of_database

_NO_CLAIMS: Map[str, Claim] = Map()


class _KnownDatabase(NamedTuple):
    """What was worked out for a database. `shared` is what the placement of all its tasks reads; each reads besides
    itself, its connection string, and its claim where the history decides (`claims` is empty where it does for none).
    """

    shared: tuple[object, ...]
    tasks: Map[int, Task]
    strings: Map[str, ConnectionString]
    claims: Map[str, Claim]
    sticky: bool
    assigned: dict[str, Assignment]


class Assignments:
    """`plan.assignments_of_node`, worked out again only for tasks for which what placement reads has changed."""

    def __init__(self, own: NodeIncarnation) -> None:
        self._own = own
        self._seen: Record | None = None
        self._known: dict[str, _KnownDatabase] = {}
        self._all: dict[str, Assignment] = {}

    def __call__(self, record: Record) -> Mapping[str, Assignment]:
        """The very same mapping as the last time if nothing has changed in it."""
        seen, self._seen = self._seen, record
        if seen is not None and _same(_read(seen), _read(record)):
            return self._all
        known, changed = self._known, False
        for folded, database in self._to_evaluate(record, seen):
            before = known.get(folded)
            known[folded] = after = self._evaluated(record, database, before)
            changed = changed or before is None or before.assigned is not after.assigned
        if len(known) != len(record.databases):
            changed = True
            for folded in [folded for folded in known if folded not in record.databases]:
                del known[folded]
        if changed and len(known) == 1:
            (self._all,) = (one.assigned for one in known.values())
        elif changed:
            self._all = {
                key: assignment for folded in record.databases for key, assignment in known[folded].assigned.items()
            }
        return self._all

    def _to_evaluate(self, record: Record, seen: Record | None) -> list[tuple[str, Database]]:
        """The databases of which anything has changed since. A look at thousands, most of which are the same."""
        if seen is None or not _same(_read_by_all(seen), _read_by_all(record)):
            return list(record.databases.items())
        databases, before = record.databases, seen.databases
        names = {folded for folded, database in databases.items() if before.get(folded) is not database}
        if record.claims is not seen.claims:
            names |= {folded for folded, known in self._known.items() if known.claims is not _NO_CLAIMS}
        return [(folded, databases[folded]) for folded in names if folded in databases]

    def _evaluated(self, record: Record, database: Database, before: _KnownDatabase | None) -> _KnownDatabase:
        tasks, strings = database.tasks, database.connection_strings
        if before is not None and before.tasks is tasks:
            sticky = before.sticky
        else:
            sticky = any(task.traits.sticky for task in tasks.values())
        claims = record.claims if sticky or not record.highly_available_tasks else _NO_CLAIMS
        shared = _shared(record, database)
        if before is None or not _same(before.shared, shared):
            return _KnownDatabase(
                shared, tasks, strings, claims, sticky, assignments_of_database(record, database, self._own)
            )
        if before.tasks is tasks and before.strings is strings and before.claims is claims:
            return before
        after = _KnownDatabase(shared, tasks, strings, claims, sticky, before.assigned)
        ids = _changed(database.name, before, after)
        return after._replace(assigned=self._edited(record, database, before, ids)) if ids else after

    def _edited(
        self, record: Record, database: Database, before: _KnownDatabase, ids: list[int]
    ) -> dict[str, Assignment]:
        """The tasks of these ids were added, edited or deleted."""
        if database.disabled or self._own.tag not in database.topology.all_nodes:
            return before.assigned
        group = PlacementGroup(record, database)
        assigned = before.assigned.copy()
        for id in ids:
            was = before.tasks.get(id)
            if was is not None:
                assigned.pop(database.claim_key(was), None)
        for id in ids:
            task = database.tasks.get(id)
            assignment = assignment_of_task(group, database, task, self._own) if task is not None else None
            if task is not None and assignment is not None:
                assigned[database.claim_key(task)] = assignment
        return before.assigned if assigned == before.assigned else assigned


def _read(record: Record) -> tuple[object, ...]:
    """All that placement reads of the record."""
    return (record.databases, record.claims, *_read_by_all(record))


def _read_by_all(record: Record) -> tuple[object, ...]:
    """What the placement of each task of every database reads."""
    return (record.nodes, record.highly_available_tasks)


def _shared(record: Record, database: Database) -> tuple[object, ...]:
    """What the placement of every task reads, not the progress, which changes all the time."""
    return (
        database.name,
        database.topology,
        database.disabled,
        database.deletion_in_progress,
        *_read_by_all(record),
    )


def _changed(database: str, before: _KnownDatabase, after: _KnownDatabase) -> list[int]:
    """The ids of the tasks of which something has changed that only their own placement reads. A look at thousands,
    most of which are the same: it allocates nothing for those."""
    ids = [id for id, task in after.tasks.items() if before.tasks.get(id) is not task]
    if before.tasks is not after.tasks:
        ids += [id for id in before.tasks if id not in after.tasks]
    if before.strings is not after.strings:
        names = {name for name, string in after.strings.items() if before.strings.get(name) is not string}
        names |= {name for name in before.strings if name not in after.strings}
        ids += [id for id, task in after.tasks.items() if fold(task.connection_string or "") in names]
    if before.claims is not after.claims:
        keys = ((id, claim_key(database, task.kind, task.name)) for id, task in after.tasks.items())
        ids += [id for id, key in keys if before.claims.get(key) is not after.claims.get(key)]
    return ids


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return all(x is y for x, y in zip(a, b, strict=True))
