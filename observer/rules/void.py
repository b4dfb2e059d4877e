"""Claims of silent nodes end, whoever they are: Members, Rehabs, watchers, nodes of no group, removed nodes."""

import msgspec

from observer.rules.case import silence
from observer.rules.facts import NS_PER_MS, Facts
from raftnode.record.commands.observer import VoidClaim
from raftnode.record.model import Claim, Record

NAMED_MAX = 10


class Voided(msgspec.Struct, frozen=True):
    """The voids of one node in one database, and the sentence that says why."""

    database: str
    why: str
    voids: tuple[VoidClaim, ...]


def void_silent(record: Record, facts: Facts) -> tuple[Voided, ...]:
    """Every held claim whose holder's lease has certainly ended, by epoch.

    Also in databases that are disabled, being deleted or gone: a claim outlives what it claims.
    """
    found: dict[tuple[str, str], list[VoidClaim]] = {}
    for key, claim in record.claims.items():
        if claim.state != "Held":
            continue
        why = _silent(claim, facts)
        if why is not None:
            end = VoidClaim(key=key, epoch=claim.epoch, reason=why)
            found.setdefault((key.partition("/")[0], why), []).append(end)
    return tuple(_voided(record, folded, why, voids) for (folded, why), voids in sorted(found.items()))


def _silent(claim: Claim, facts: Facts) -> str | None:
    node = facts.nodes.get(claim.tag)
    if node is None:
        return None
    if node.silent:
        return silence(node, facts)
    # A node that came back without its disk has another id: the old one cannot come back, and counts as silent from
    # the moment at which the new one was first heard.
    other_id = node.node_id not in ("", claim.node_id)
    since_ms = (facts.now_ns - node.node_id_since_ns) // NS_PER_MS
    if other_id and facts.void_allowed and since_ms >= facts.silence_ms:
        return f"{claim.tag} now has another node id, {node.node_id}, and its former one has not been heard since"
    return None


def _voided(record: Record, folded: str, why: str, voids: list[VoidClaim]) -> Voided:
    database = record.databases.get(folded)
    voids.sort(key=lambda end: end.key)
    named = [f"{end.key.partition('/')[2]} (epoch {end.epoch})" for end in voids[:NAMED_MAX]]
    more = f" and {len(voids) - NAMED_MAX} more" if len(voids) > NAMED_MAX else ""
    return Voided(
        database=database.name if database else folded,
        why=f"Claims void: {', '.join(named)}{more}; {why}.",
        voids=tuple(voids),
    )
