"""Settled databases: an iteration has found nothing to do about them, and none will until something that it has read
changes. So a thousand idle databases cost the leader nothing.

Time alone changes nothing about a settled database: all Members are well and in full number, nothing is waited for,
and both samples of each copy are one. Whatever is not so is looked at in each iteration. So is everything while any
node of the cluster is not well: `calm`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from observer.rules.facts import NS_PER_MS, DatabaseReport, Facts, NodeFacts, started_again
from raftnode.record.model import Claim, ClusterNode, Database, Record

Reports = tuple[DatabaseReport, ...]


class DecisionInputs(msgspec.Struct, frozen=True):
    """All that the decisions about the databases depend on, besides time; compared by identity."""

    databases: Mapping[str, Database]
    samples: tuple[object, ...]


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What need not be looked at again while the nodes are these, and these processes: each database with the reports
    of its Members; the claims, if no previous process holds any; and what was read, if all of that is settled."""

    nodes: Mapping[str, ClusterNode] | None = None
    databases: Mapping[str, tuple[Database, Reports]] = {}
    claims: Mapping[str, Claim] | None = None
    read: DecisionInputs | None = None


NOTHING_SETTLED = Settled()


def still_settled(record: Record, facts: Facts, before: Settled) -> Settled:
    """What of `before` still holds."""
    return before if before.nodes is record.nodes and calm(record, facts) else NOTHING_SETTLED


def is_settled(settled: Settled, facts: Facts, folded: str, database: Database) -> bool:
    """Whether the database is as it was when it settled."""
    kept = settled.databases.get(folded)
    if kept is None or kept[0] is not database:
        return False
    # Asked about a thousand databases whenever one changes.
    for tag, report in zip(database.topology.members, kept[1], strict=False):
        seen = facts.nodes[tag]
        if seen.current.get(folded) is not report or seen.previous.get(folded) is not report:
            return False
        if not _copy_is_well(seen, folded):
            return False
    return True


def all_settled(settled: Settled, record: Record, facts: Facts) -> bool:
    """Whether every database is, as nothing at all that was read has changed."""
    read = settled.read
    if read is None or read.databases is not record.databases:
        return False
    return all(a is b for a, b in zip(read.samples, _samples(facts), strict=True))


def settled_after(record: Record, facts: Facts, concerned: Iterable[str], before: Settled) -> Settled:
    """What is settled after an iteration that began with `before` and had to do with the `concerned` databases."""
    if not calm(record, facts):
        return NOTHING_SETTLED
    before = still_settled(record, facts, before)
    if all_settled(before, record, facts) and before.claims is record.claims:
        return before
    busy = frozenset(concerned)
    databases = {
        folded: kept
        for folded, database in record.databases.items()
        if database.name not in busy and (kept := _kept(before, facts, folded, database)) is not None
    }
    whole = len(databases) == len(record.databases)
    return Settled(
        nodes=record.nodes,
        databases=databases,
        claims=record.claims if not any(started_again(record, holder) for holder in facts.holders) else None,
        read=DecisionInputs(record.databases, _samples(facts)) if whole else None,
    )


def _kept(before: Settled, facts: Facts, folded: str, database: Database) -> tuple[Database, Reports] | None:
    """What is remembered of a settled database; None of one that is not. One stays so while it is the same."""
    if is_settled(before, facts, folded, database):
        return before.databases[folded]
    reports = _reports(facts, folded, database)
    return None if reports is None else (database, reports)


def calm(record: Record, facts: Facts) -> bool:
    """Whether every node is well, and this leader may judge and looks at everything."""
    return (
        facts.void_allowed
        and not record.observer.suspended
        and set(facts.nodes) == set(record.nodes)
        and all(_well(facts, facts.nodes[tag], node) for tag, node in record.nodes.items())
    )


def _well(facts: Facts, seen: NodeFacts, node: ClusterNode) -> bool:
    heard = facts.now_ns - seen.heard_ns < facts.limits.rotate_ms * NS_PER_MS
    return heard and seen.fresh and not (seen.flags or node.flags or node.draining)


def _reports(facts: Facts, folded: str, database: Database) -> Reports | None:
    """The reports of the Members' copies, none of a database that the rules leave alone; None if it is not settled."""
    topology, reports = database.topology, []
    if database.disabled or not topology.all_nodes:
        return ()
    waits = topology.rehabs or topology.promotables or topology.demotion_reasons or topology.promotables_status
    age_ms = facts.now_ms - topology.stamp.leader_wall_ms
    young = age_ms < max(facts.silence_ms, facts.limits.stabilization_ms)
    full = len(topology.members) == topology.replication_factor
    if waits or young or not full or database.deletion_in_progress:
        return None
    for tag in topology.members:
        seen = facts.nodes.get(tag)
        report = _both(seen, folded) if seen is not None else None
        if seen is None or report is None or not report.well or not _copy_is_well(seen, folded):
            return None
        reports.append(report)
    return tuple(reports)


def _both(seen: NodeFacts, folded: str) -> DatabaseReport | None:
    """The node's report of its copy, if both samples are that one."""
    report = seen.current.get(folded)
    return report if seen.previous.get(folded) is report else None


def _copy_is_well(seen: NodeFacts, folded: str) -> bool:
    state = seen.copies.get(folded)
    return state is not None and state.well


def _samples(facts: Facts) -> tuple[object, ...]:
    return tuple(part for _, node in sorted(facts.nodes.items()) for part in (node.current, node.previous, node.copies))
