"""A task of a kind that stays with its last holder leaves it when that has been in Rehab for the grace."""

import msgspec

from observer.rules.facts import Facts
from raftnode.record.commands.observer import GraceEnd
from raftnode.record.grace import grace_min
from raftnode.record.model import Claim, Database, Record, ResourceFlag, Task
from raftnode.record.ownership import PlacementGroup, last_claim

MS_PER_MIN = 60_000
SHORT: tuple[ResourceFlag, ...] = ("OutOfCpuCredits", "EarlyOutOfMemory", "HighDirtyMemory")


class TaskGrace(msgspec.Struct, frozen=True):
    """A task whose holder is in Rehab: the end of its grace, None while it lasts, and a sentence."""

    database: str
    why: str
    key: str
    end: GraceEnd | None


def graces(record: Record, facts: Facts) -> tuple[TaskGrace, ...]:
    """Every task that waits for its holder, by database and id. A holder that is only short of a resource keeps it."""
    found = []
    waiting = {folded: d for folded, d in record.databases.items() if d.topology.rehabs and not d.disabled}
    for _, database in sorted(waiting.items()):
        group = PlacementGroup(record, database)
        for id in sorted(database.tasks):
            task = database.tasks[id]
            if not task.traits.sticky or task.disabled or group.place(task)[1] != "StickyHolder":
                continue
            claim = last_claim(record, database, task)
            if claim is not None and _waits(database, claim.tag):
                found.append(_grace(record, facts, database, task, claim))
    return tuple(found)


def _waits(database: Database, tag: str) -> bool:
    topology = database.topology
    return tag in topology.rehabs and topology.promotables_status.get(tag) not in SHORT


def _grace(record: Record, facts: Facts, database: Database, task: Task, claim: Claim) -> TaskGrace:
    since_ms = record.observer.in_rehab_since(database.name, claim.tag) or facts.now_ms
    minutes = grace_min(database, task, facts.limits.grace_min)
    away_ms, grace_ms = facts.now_ms - since_ms, minutes * MS_PER_MIN
    ended = away_ms >= grace_ms
    what = f"{task.kind} '{task.name}'"
    return TaskGrace(
        database=database.name,
        why=f"{what} leaves {claim.tag}, which has been in Rehab for {away_ms} ms (grace {grace_ms} ms)."
        if ended
        else f"{what} stays with {claim.tag} in Rehab for {minutes} min before another node takes it.",
        key=f"grace {task.id} {claim.epoch}",
        end=GraceEnd(database.claim_key(task), claim.epoch) if ended else None,
    )
