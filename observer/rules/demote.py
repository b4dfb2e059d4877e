"""Members that are lost move to Rehab, so that their tasks run elsewhere."""

from msgspec.structs import replace

from observer.rules.case import Case, Change
from raftnode.record.model import PromotionStatus, Topology

_NOT_RESPONDING: PromotionStatus = "NotResponding"


def demote(case: Case) -> Change | None:
    """All lost Members at once, as long as another one is alive; with none, the dead stay where they are.

    A drained node is not demoted: placement passes it over already, and it is expected to go away. Stabilization
    bounds promotions only, so it plays no part here.
    """
    lost = {tag: case.lost(tag) for tag in case.topology.members}
    leaving = {tag: why for tag, why in lost.items() if why is not None and not case.draining(tag)}
    if not leaving or all(why is not None for why in lost.values()):
        return None
    return Change(
        topology=_without_members(case.topology, leaving),
        demoted=tuple(leaving),
        why=f"{_named(leaving)} moved to Rehab: {'; '.join(leaving.values())}.",
    )


def _named(tags: dict[str, str]) -> str:
    return f"{', '.join(tags)} {'was' if len(tags) == 1 else 'were'}"


def _without_members(topology: Topology, leaving: dict[str, str]) -> Topology:
    return replace(
        topology,
        members=tuple(tag for tag in topology.members if tag not in leaving),
        rehabs=(*topology.rehabs, *leaving),
        demotion_reasons=topology.demotion_reasons.update(leaving),
        promotables_status=topology.promotables_status.update(dict.fromkeys(leaving, _NOT_RESPONDING)),
    )
