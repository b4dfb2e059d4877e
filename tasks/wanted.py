"""Remembers which tasks are this node's, so that a change of one database costs the others nothing."""

from raftnode.record.model import Database, Record
from tasks.plan import Own, Wanted, wanted_of


class WantedHere:
    """`plan.wanted_here`, evaluated again only for databases of which something that placement reads has changed."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._known: dict[str, tuple[tuple[object, ...], dict[str, Wanted]]] = {}
        self._all: dict[str, Wanted] = {}

    def __call__(self, record: Record) -> dict[str, Wanted]:
        """The very same mapping as the last time if nothing has changed in it."""
        known = {}
        changed = len(record.databases) != len(self._known)
        for folded, database in record.databases.items():
            inputs = _inputs(record, database)
            before = self._known.get(folded)
            if before is None or not all(a is b for a, b in zip(before[0], inputs, strict=True)):
                wanted = wanted_of(record, database, self._own)
                changed = changed or before is None or before[1] != wanted
                before = (inputs, wanted)
            known[folded] = before
        self._known = known
        if changed:
            self._all = {key: want for _, wanted in known.values() for key, want in wanted.items()}
        return self._all


def _inputs(record: Record, database: Database) -> tuple[object, ...]:
    """What placement reads; not the progress, which changes all the time."""
    by_history = not record.highly_available_tasks or any(t.traits.sticky for t in database.tasks.values())
    return (
        database.name,
        database.topology,
        database.tasks,
        database.connection_strings,
        database.disabled,
        database.deletion_in_progress,
        record.nodes,
        record.highly_available_tasks,
        record.claims if by_history else None,
    )
