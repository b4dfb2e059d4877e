"""The group keeps its replication factor: a copy that is lost for long is replaced, and one too many goes."""

from msgspec.structs import replace

from observer.rules.database_view import Alert, DatabaseView, TopologyChange
from raftnode.record.fitness import fittest_first
from raftnode.record.model import ClusterNode, PromotionStatus, Topology

_NEW: PromotionStatus = "WaitingForFirstPromotion"
REPLACED = "it has been replaced, and goes once the Members have all that it has"


def replace_lost(view: DatabaseView) -> TopologyChange | Alert | None:
    """Where the distribution is dynamic: a Promotable that is lost for long gives way to the fittest node, which is
    also added where the group lacks copies. A Rehab that is lost for long does not count as one. Without the licence
    for it, that is only said."""
    change = _replacement(view)
    if change is None or view.record.dynamic_nodes_distribution:
        return change
    added = ", ".join(sorted(set(change.topology.promotables) - set(view.topology.promotables)))
    why = f"The licence has no dynamic nodes distribution, so this is not done: {change.why}"
    return Alert(key=f"unlicensed {added}", why=why)


def _replacement(view: DatabaseView) -> TopologyChange | None:
    topology = view.topology
    if not topology.dynamic_nodes_distribution or all(view.lost(tag) is not None for tag in topology.members):
        return None
    fittest = _fittest(view)
    if fittest is None:
        return None
    for tag in topology.promotables:
        why = _bad(view, tag)
        if why is not None:
            return TopologyChange(
                topology=_with_promotable(topology.without(tag), fittest),
                removed=_in_cluster(view, (tag,)),
                why=f"{fittest} takes the place of the Promotable {tag}: {why}.",
            )
    counted = (*topology.promotables, *(tag for tag in topology.rehabs if not view.leaving(tag)))
    bad = {tag: why for tag in counted if (why := _bad(view, tag)) is not None}
    copies = len(topology.members) + len(counted) - len(bad)
    if copies >= topology.replication_factor:
        return None
    because = "; ".join(bad.values()) or "a node has left the group"
    return TopologyChange(
        topology=_with_promotable(topology, fittest),
        why=f"{fittest} was added as a Promotable: the group has {copies} of {topology.replication_factor} copies, as "
        f"{because}.",
    )


def remove_surplus(view: DatabaseView) -> TopologyChange | None:
    """Promotables and Rehabs that nobody needs, as there are Members enough that are alive and stay. A Promotable goes
    at once. A Rehab may have documents that nobody else has, and stays listed until it has handed them over; it frees
    its tasks at once, pinned ones too."""
    topology = view.topology
    alive = [tag for tag in topology.members if view.good(tag) and view.good_since_ns(tag) is not None]
    surplus = tuple(tag for tag in (*topology.promotables, *topology.rehabs) if not view.leaving(tag))
    if not surplus or len(alive) < topology.replication_factor:
        return None
    left, removed = topology, _in_cluster(view, surplus)
    for tag in surplus:
        stays = tag in topology.rehabs and tag in removed
        left = _waiting(left, tag) if stays else left.without(tag)
    return TopologyChange(
        topology=left,
        removed=removed,
        why=f"{', '.join(surplus)} will be removed: the database has its {topology.replication_factor} Members "
        f"({', '.join(alive)}).",
    )


def _bad(view: DatabaseView, tag: str) -> str | None:
    """Why the node is to be replaced, None if it is not."""
    lost, lost_ms, limit_ms = view.lost(tag), view.lost_for_ms(tag), view.facts.limits.replace_ms
    if view.node(tag) is None:
        return lost
    if lost_ms is None or lost_ms < limit_ms:
        return None
    return f"{tag} has been lost for {lost_ms} ms (limit {limit_ms} ms): {lost}"


def _fittest(view: DatabaseView) -> str | None:
    """Of the nodes outside the group that are heard, stay and lack nothing."""
    fit = [node.tag for node in view.record.nodes.values() if _fit(view, node)]
    return next(iter(fittest_first(view.record, fit)), None)


def _fit(view: DatabaseView, node: ClusterNode) -> bool:
    tag = node.tag
    here = tag in view.topology.all_nodes or view.leaving(tag)
    return not (node.kind == "Promotable" or here or view.flags(tag)) and view.good(tag)


def _with_promotable(topology: Topology, tag: str) -> Topology:
    return replace(
        topology,
        promotables=(*topology.promotables, tag),
        promotables_status=topology.promotables_status.set(tag, _NEW),
    )


def _waiting(topology: Topology, tag: str) -> Topology:
    statuses = topology.promotables_status
    return replace(
        topology,
        demotion_reasons=topology.demotion_reasons.set(tag, REPLACED),
        promotables_status=statuses.delete(tag) if tag in statuses else statuses,
    )


def _in_cluster(view: DatabaseView, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Those that can confirm that their copy is gone."""
    return tuple(tag for tag in tags if view.node(tag) is not None)
