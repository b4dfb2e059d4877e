"""The state of each node of the group, written where a user looks for it, when no other rule has anything to change."""

from typing import TypeVar

from immutables import Map
from msgspec.structs import replace

from observer.rules.database_view import DatabaseView, TopologyChange
from observer.rules.promote import readiness_of
from raftnode.record.model import PromotionStatus, Topology

T = TypeVar("T")

_NOT_RESPONDING: PromotionStatus = "NotResponding"


def statuses(view: DatabaseView) -> TopologyChange | None:
    """Statuses and reasons that have changed: of a Member that is lost but cannot be moved, of one that is back, and
    of what a Promotable or Rehab still misses. Written at most once in `stabilization_ms`, and not of a node that will
    be promoted within that time. What a leader before has written of a node that is lost stands until this one has
    heard the node or found it lost: else the time for which it is lost would start from zero with each leader."""
    topology = view.topology
    if 0 <= view.facts.now_ms - topology.stamp.leader_wall_ms < view.facts.limits.stabilization_ms:
        return None
    statuses, reasons, sentences = topology.promotables_status, topology.demotion_reasons, []
    for tag in topology.all_nodes:
        now = None if view.leaving(tag) or _stands(view, tag) else _now(view, tag)
        if now is None or _written(topology, tag, now[0]):
            continue
        status, why = now
        statuses, reasons = _with(statuses, tag, status), _with(reasons, tag, why if status else None)
        sentences.append(why)
    if not sentences:
        return None
    return TopologyChange(
        topology=replace(topology, promotables_status=statuses, demotion_reasons=reasons),
        why=f"{'; '.join(sentences)}.",
    )


def _stands(view: DatabaseView, tag: str) -> bool:
    facts = view.facts_of(tag)
    unheard = facts is None or not facts.current
    return view.topology.promotables_status.get(tag) == _NOT_RESPONDING and unheard


def _written(topology: Topology, tag: str, status: PromotionStatus | None) -> bool:
    no_leftover = status is not None or tag not in topology.demotion_reasons
    return status == topology.promotables_status.get(tag) and no_leftover


def _now(view: DatabaseView, tag: str) -> tuple[PromotionStatus | None, str] | None:
    if tag in view.topology.members:
        lost = view.lost(tag)
        if lost is None:
            return None, f"Member {tag} is online"
        because = "it is drained" if view.draining(tag) else "no other is alive"
        return _NOT_RESPONDING, f"Member {tag} stays, as {because}: {lost}"
    readiness = readiness_of(view, tag)
    if readiness.wait_ms is not None and readiness.wait_ms <= view.facts.limits.stabilization_ms:
        return None
    return readiness.status, f"{tag} is not promoted yet ({readiness.status}): {readiness.why}"


def _with(mapping: Map[str, T], tag: str, value: T | None) -> Map[str, T]:
    if value is not None:
        return mapping.set(tag, value)
    return mapping.delete(tag) if tag in mapping else mapping
