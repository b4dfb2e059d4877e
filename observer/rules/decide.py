"""One iteration of the observer as a function: the record and the facts in, decisions with their reasons out."""

from collections.abc import Callable, Set

import msgspec
from msgspec.structs import replace

from observer.rules.database_view import Alert, DatabaseView, TopologyChange
from observer.rules.demote import demote
from observer.rules.facts import Facts, NodeFacts, ObserverLimits
from observer.rules.grace import graces
from observer.rules.lag import lag
from observer.rules.last_resort import last_resort
from observer.rules.licence import waiting
from observer.rules.order import prioritize, rotate
from observer.rules.promote import promote
from observer.rules.replace import remove_surplus, replace_lost
from observer.rules.settled import NOTHING_SETTLED, Settled, all_settled, is_settled, still_settled
from observer.rules.statuses import statuses
from observer.rules.void import void_over
from raftnode.record.commands.observer import GraceEnd, NewTopology, VoidClaim, grace_ended
from raftnode.record.model import Database, Record

Rule = Callable[[DatabaseView], TopologyChange | Alert | None]

RULES: tuple[Rule, ...] = (
    demote, rotate, last_resort, lag, prioritize, promote, replace_lost, remove_surplus, statuses,
)  # fmt: skip
"""In the order of evaluation. The first that changes the topology ends the database's iteration."""


class Sentence(msgspec.Struct, frozen=True):
    """A sentence about a database. One with a key is to be said once, until it was absent in between."""

    database: str
    message: str
    key: str | None = None


class IterationDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """All that one iteration decided."""

    topologies: tuple[NewTopology, ...] = ()
    voids: tuple[VoidClaim, ...] = ()
    graces: tuple[GraceEnd, ...] = ()
    sentences: tuple[Sentence, ...] = ()


def decide(record: Record, facts: Facts, before: Settled = NOTHING_SETTLED) -> IterationDecisions:
    """What is to be changed now, and why. Total, and the same for the same input. What was settled `before`, and still
    is, is skipped: the decisions are the same as without that.

    A suspended observer changes no topology and moves no task, as the maintenance for which it is suspended expects
    things to stay put: it only ends the claims of previous processes, so that a node that was restarted works again.
    """
    suspended = record.observer.suspended
    topologies, sentences = [], []
    settled = still_settled(record, facts, before)
    quiet = all_settled(settled, record, facts)
    busy = (item for item in record.databases.items() if not is_settled(settled, facts, *item))
    for _, database in () if quiet or suspended else sorted(busy):
        change, alerts = _topology(DatabaseView(record=record, database=database, facts=facts))
        sentences += [Sentence(database.name, alert.why, alert.key) for alert in alerts]
        if change is not None:
            topologies.append(_new(database, change))
            sentences.append(Sentence(database.name, change.why))
    voided = () if settled.claims is record.claims else void_over(record, facts)
    stay = () if quiet or suspended else graces(record, facts)
    unlicensed = () if quiet or suspended else waiting(record)
    return IterationDecisions(
        topologies=tuple(topologies),
        voids=tuple(end for group in voided for end in group.voids),
        graces=tuple(grace.end for grace in stay if grace.end is not None),
        sentences=(
            *sentences,
            *(Sentence(group.database, group.why) for group in voided),
            *(Sentence(grace.database, grace.why, None if grace.end else grace.key) for grace in stay),
            *(Sentence(task.database, task.why, task.key) for task in unlicensed),
        ),
    )


def _topology(view: DatabaseView) -> tuple[TopologyChange | None, list[Alert]]:
    """At most one change of topology. A database that is disabled or being deleted keeps the one it has."""
    alerts: list[Alert] = []
    if _stays(view.database):
        return None, alerts
    for rule in RULES:
        answer = rule(view)
        if isinstance(answer, TopologyChange):
            return answer, alerts
        if answer is not None:
            alerts.append(answer)
    return None, alerts


def _stays(database: Database) -> bool:
    return database.disabled or not database.topology.all_nodes


def after_loss(record: Record, lost: Set[str], cluster_grace_min: int) -> Record:
    """The record as the observer leaves it once these nodes are silent and nothing else has happened: with the
    topologies that `demote` gives, the first of the rules, and without the graces that are 0. What only reports tell
    is not known here."""
    if record.observer.suspended:
        return record
    nodes = {tag: NodeFacts(tag=tag, silent=tag in lost, fresh=False, heard_ns=0) for tag in record.nodes}
    limits = ObserverLimits(stabilization_ms=0, rotate_ms=0, replace_ms=0, distance_max=0, grace_min=cluster_grace_min)
    facts = Facts(leader="", term=0, now_ns=0, now_ms=0, void_allowed=False, silence_ms=0, limits=limits, nodes=nodes)
    left = {}
    for folded, database in record.databases.items():
        if lost.isdisjoint(database.topology.members) or _stays(database):
            continue
        change = demote(DatabaseView(record=record, database=database, facts=facts))
        if change is not None:
            left[folded] = replace(database, topology=change.topology)
    record = replace(record, databases=record.databases.update(left))
    for grace in graces(record, facts):
        if grace.end is not None:
            key = grace.end.key
            record = record.with_claim(key, grace_ended(record, key, record.claims[key], record.index))
    return record


def _new(database: Database, change: TopologyChange) -> NewTopology:
    return NewTopology(
        database=database.name,
        etag=database.etag,
        topology=change.topology,
        demoted=change.demoted,
        removed=change.removed,
    )
