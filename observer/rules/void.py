"""Claims of processes without a lease end, whoever they are: of Members, Rehabs, watchers, nodes of no group, removed
nodes, and nodes that have been started again since.

The claim of a partition-tolerant task is the exception: its body may go on without a lease, so the claim stands until
the task is another node's, and the body need not stop when its node is heard again.
"""

import msgspec

from observer.rules.database_view import silence
from observer.rules.facts import Facts, holder_of, started_again
from raftnode.record.commands.observer import VoidClaim
from raftnode.record.model import Claim, Record
from raftnode.record.ownership import PlacementGroup, task_of

NAMED_MAX = 10


class NodeVoids(msgspec.Struct, frozen=True):
    """The voids of one node in one database, and the sentence that says why."""

    database: str
    why: str
    voids: tuple[VoidClaim, ...]


def void_over(record: Record, facts: Facts) -> tuple[NodeVoids, ...]:
    """Every held claim whose holder's lease has certainly ended, by epoch.

    Also in databases that are disabled, being deleted or gone: a claim outlives what it claims. While the observer is
    suspended only for nodes that have been started again: that moves nothing, and they wait for it.
    """
    ended = {one for one in facts.over if not record.observer.suspended or started_again(record, one)}
    # Nearly always there is none, and then ten thousand claims need not be looked through.
    if not ended:
        return ()
    found: dict[tuple[str, str], list[VoidClaim]] = {}
    groups: dict[str, PlacementGroup] = {}
    for key, claim in record.claims.items():
        if claim.state != "Held" or holder_of(claim) not in ended:
            continue
        why = _why_over(record, claim, facts)
        tolerant = _tolerant(record, key, claim)
        if tolerant and _still_its_own(record, key, claim, groups):
            continue
        why += f"; {claim.tag} may go on with it until it is heard again, as its kind needs no lease" * tolerant
        end = VoidClaim(key=key, epoch=claim.epoch, reason=why)
        found.setdefault((key.partition("/")[0], why), []).append(end)
    return tuple(_voided(record, folded, why, voids) for (folded, why), voids in sorted(found.items()))


def _tolerant(record: Record, key: str, claim: Claim) -> bool:
    """Whether a body may run under the claim though its node has no lease: the process must not be known to be gone."""
    found = task_of(record, key)
    return found is not None and found[1].traits.partition_tolerant and not started_again(record, holder_of(claim))


def _still_its_own(record: Record, key: str, claim: Claim, groups: dict[str, PlacementGroup]) -> bool:
    """Whether the task is enabled and belongs to the node that holds it."""
    found = task_of(record, key)
    if found is None or found[0].disabled or found[1].disabled:
        return False
    database, task = found
    if database.name not in groups:
        groups[database.name] = PlacementGroup(record, database)
    return groups[database.name].place(task)[0] == claim.tag


def _why_over(record: Record, claim: Claim, facts: Facts) -> str:
    node, present = facts.nodes.get(claim.tag), record.nodes.get(claim.tag)
    if node is not None and node.silent:
        return silence(node, facts)
    if present is not None and present.node_id not in ("", claim.node_id):
        return f"{claim.tag} is another node now, {present.node_id}, and its previous one has had no lease since"
    started = f" (it is in start {present.boot} now)" if present is not None else ""
    return f"start {claim.boot} of {claim.tag} has had no lease for {facts.silence_ms} ms{started}"


def _voided(record: Record, folded: str, why: str, voids: list[VoidClaim]) -> NodeVoids:
    database = record.databases.get(folded)
    voids.sort(key=lambda end: end.key)
    named = [f"{end.key.partition('/')[2]} (epoch {end.epoch})" for end in voids[:NAMED_MAX]]
    more = f" and {len(voids) - NAMED_MAX} more" if len(voids) > NAMED_MAX else ""
    return NodeVoids(
        database=database.name if database else folded,
        why=f"Claims void: {', '.join(named)}{more}; {why}.",
        voids=tuple(voids),
    )
