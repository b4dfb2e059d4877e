"""Without highly available tasks a task waits for its last holder. That is said once a task."""

import msgspec

from raftnode.record.model import Claim, Database, Record, Task
from raftnode.record.ownership import PlacementGroup, last_claim


class Waiting(msgspec.Struct, frozen=True):
    """A task that would run elsewhere with another licence, and a sentence that is to be said once."""

    database: str
    why: str
    key: str


def waiting(record: Record) -> tuple[Waiting, ...]:
    """Every enabled task that nobody runs, as it waits for a holder which is no Member, by database and id."""
    if record.highly_available_tasks:
        return ()
    found = []
    for _, database in sorted(record.databases.items()):
        topology = database.topology
        if database.disabled or not topology.members or not (topology.rehabs or topology.promotables):
            continue
        group = PlacementGroup(record, database)
        for id in sorted(database.tasks):
            task = database.tasks[id]
            claim = None if task.disabled else last_claim(record, database, task)
            if claim is not None and _waits(database, group, task, claim):
                found.append(_said(database, task, claim))
    return tuple(found)


def _waits(database: Database, group: PlacementGroup, task: Task, claim: Claim) -> bool:
    away = claim.state != "Held" and claim.tag not in database.topology.members
    return away and group.place(task) == (claim.tag, "LicenceKeepsLast")


def _said(database: Database, task: Task, claim: Claim) -> Waiting:
    state = database.topology.state_of(claim.tag)
    return Waiting(
        database=database.name,
        why=f"{task.kind} '{task.name}' (epoch {claim.epoch}) waits for {claim.tag}, which is a {state}, as the "
        "licence has no highly available tasks. Another mentor node would run it.",
        key=f"licence {task.id} {claim.epoch}",
    )
