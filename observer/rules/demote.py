"""Members that are lost, or short of a resource, move to Rehab, so that their tasks run elsewhere."""

from collections.abc import Mapping

from msgspec.structs import replace

from observer.rules.database_view import DatabaseView, TopologyChange
from raftnode.record.model import PromotionStatus, Topology


def demote(view: DatabaseView) -> TopologyChange | None:
    """All lost Members at once, as long as another one is alive; with none, the dead stay where they are. Those that
    are short of a resource, too, as long as another one is alive that is not.

    A drained node is not demoted: placement passes it over already, and it is expected to go away. Stabilization
    bounds promotions only, so it plays no part here.
    """
    members = view.topology.members
    lost = {tag: why for tag in members if (why := view.lost(tag)) is not None}
    alive = [tag for tag in members if tag not in lost]
    if not alive:
        return None
    short = {tag: flags for tag in alive if (flags := view.flags(tag))}
    if all(tag in short or view.draining(tag) for tag in alive):
        short = {}
    reasons = lost | {tag: f"{tag} is short of a resource: {', '.join(flags)}" for tag, flags in short.items()}
    statuses: dict[str, PromotionStatus] = {tag: flags[0] for tag, flags in short.items()}
    leaving = {tag: reasons[tag] for tag in members if tag in reasons and not view.draining(tag)}
    return to_rehab(view.topology, leaving, statuses) if leaving else None


def to_rehab(topology: Topology, leaving: Mapping[str, str], statuses: Mapping[str, PromotionStatus]) -> TopologyChange:
    """The Members that leave, each with its reason, become Rehabs. A status that is not given is NotResponding."""
    written = {tag: statuses.get(tag, "NotResponding") for tag in leaving}
    return TopologyChange(
        topology=replace(
            topology,
            members=tuple(tag for tag in topology.members if tag not in leaving),
            rehabs=(*topology.rehabs, *leaving),
            demotion_reasons=topology.demotion_reasons.update(leaving),
            promotables_status=topology.promotables_status.update(written),
        ),
        demoted=tuple(leaving),
        why=f"{', '.join(leaving)} {'was' if len(leaving) == 1 else 'were'} moved to Rehab: "
        f"{'; '.join(leaving.values())}.",
    )
