"""The order of the Members: clients go to the first one, the preferred node."""

import xxhash
from msgspec.structs import replace

from observer.rules.database_view import DatabaseView, TopologyChange
from raftnode.foundation.names import fold
from raftnode.record.model import Topology


def rotate(view: DatabaseView) -> TopologyChange | None:
    """A preferred node that is drained, or has not been good for a while, goes to the end if another one is good."""
    members = view.topology.members
    if not any(view.good(tag) for tag in members):
        return None
    first, rest = members[0], members[1:]
    slow_ms, limit_ms = view.slow_ms(first), view.facts.limits.rotate_ms
    if not view.draining(first) and slow_ms < limit_ms:
        return None
    because = (
        "it is drained" if view.draining(first) else f"it has been unhealthy for {slow_ms} ms (limit {limit_ms} ms)"
    )
    return TopologyChange(
        topology=replace(view.topology, members=(*rest, first)),
        why=f"{first} is no longer the preferred node, {rest[0]} is: {because}.",
    )


def prioritize(view: DatabaseView) -> TopologyChange | None:
    """The order that a user has fixed holds again once every Member is good."""
    topology = view.topology
    members = by_priority(topology)
    if members == topology.members or not all(view.good(tag) for tag in members):
        return None
    return TopologyChange(
        topology=replace(topology, members=members),
        why=f"The Members are in the order {', '.join(members)} again, as a user has fixed it: all are healthy.",
    )


def shuffled(database: str, topology: Topology) -> Topology:
    """The Members in an order of this database's own, so that the preferred nodes of many databases spread over the
    nodes, also after one of them was away. It depends on nothing but names: a member that comes and goes does not
    change the order of the others. What a user has fixed comes first."""
    order = sorted(topology.members, key=lambda tag: xxhash.xxh3_64_intdigest(f"{fold(database)}/{tag}".encode()))
    mixed = replace(topology, members=tuple(order))
    return replace(mixed, members=by_priority(mixed))


def by_priority(topology: Topology) -> tuple[str, ...]:
    """The Members, those of the priority order first."""
    named = tuple(tag for tag in topology.priority_order if tag in topology.members)
    return (*named, *(tag for tag in topology.members if tag not in named))
