"""Members that are too far behind the others move to Rehab: a task that moved there would go far back."""

from collections.abc import Mapping

from observer.rules.database_view import DatabaseView, TopologyChange
from observer.rules.demote import to_rehab
from observer.rules.facts import DatabaseReport
from observer.rules.last_resort import most_up_to_date
from raftnode.record.model import PromotionStatus

_BEHIND: PromotionStatus = "ChangeVectorNotMerged"


def lag(view: DatabaseView) -> TopologyChange | None:
    """Whoever was behind another Member in both samples, by what that one has sent to it and by both change vectors.
    The most up-to-date of all stays, whatever it lacks.

    Nothing is judged before the leader and the topology have stood for R: replication needs that long to get going.
    """
    changed_ms = view.facts.now_ms - view.topology.stamp.leader_wall_ms
    if not view.facts.void_allowed or 0 <= changed_ms < view.facts.silence_ms:
        return None
    now, before = {}, {}
    for tag in view.topology.members:
        both = _samples(view, tag)
        if both is not None:
            now[tag], before[tag] = both
    if not now:
        return None
    best = most_up_to_date(now)
    behind = {}
    for tag in now:
        why = _behind(tag, now, before, view.facts.limits.distance_max)
        if why is not None and tag != best:
            behind[tag] = why
    return to_rehab(view.topology, behind, dict.fromkeys(behind, _BEHIND)) if behind else None


def _samples(view: DatabaseView, tag: str) -> tuple[DatabaseReport, DatabaseReport] | None:
    facts, now, before = view.facts_of(tag), view.report(tag), view.previous_report(tag)
    if facts is None or not facts.fresh or now is None or before is None:
        return None
    return (now, before) if now.status == before.status == "Loaded" else None


def _behind(
    tag: str, now: Mapping[str, DatabaseReport], before: Mapping[str, DatabaseReport], distance_max: int
) -> str | None:
    for other in now:
        far = _distance(now[other], now[tag], tag)
        if min(far, _distance(before[other], before[tag], tag)) > distance_max:
            return f"{tag} is {far} changes behind {other} (limit {distance_max})"
    return None


def _distance(source: DatabaseReport, report: DatabaseReport, tag: str) -> int:
    """By how many changes the node `tag` is behind the source: the lesser of what it was not sent and what it lacks."""
    unsent = source.last_etag - source.sent[tag] if tag in source.sent else 0
    lacks = sum(max(0, etag - report.vector.get(id, 0)) for id, etag in source.vector.items())
    return min(unsent, lacks)
