"""A Promotable or Rehab that has caught up, and has been good for long enough, becomes a Member."""

import msgspec
from msgspec.structs import replace

from observer.rules.database_view import DatabaseView, TopologyChange
from observer.rules.facts import NS_PER_MS, NodeFacts
from observer.rules.order import shuffled
from raftnode.foundation.names import fold
from raftnode.record.commands.observer import HOUR_MS
from raftnode.record.model import PromotionStatus, Topology
from raftnode.record.ownership import mentor_of

HOLD_DOWN_MS_MAX = 600_000


class Readiness(msgspec.Struct, frozen=True):
    """Whether a node may be promoted now; if not, RavenDB's word for what is missing. `why` says it in a sentence;
    `wait_ms` is how long it has to stay as it is, None if something else is missing."""

    ready: bool
    status: PromotionStatus
    why: str
    wait_ms: int | None = None


def promote(view: DatabaseView) -> TopologyChange | None:
    """The first node that is ready: Promotables before Rehabs, as a Promotable is a copy somebody asked for."""
    for tag in (*view.topology.promotables, *view.topology.rehabs):
        if view.leaving(tag):
            continue
        readiness = readiness_of(view, tag)
        if readiness.ready:
            return TopologyChange(
                topology=shuffled(view.database.name, with_member(view.topology, tag)),
                why=f"{tag} was promoted to Member: {readiness.why}.",
            )
    return None


def with_member(topology: Topology, tag: str) -> Topology:
    """The topology with the node as its last Member. The mentor that was chosen for it is forgotten."""
    left = topology.without(tag)
    return replace(left, members=(*left.members, tag), priority_order=topology.priority_order)


def readiness_of(view: DatabaseView, tag: str) -> Readiness:
    """All that must hold, in the order in which it is asked."""
    missing, since_ns = _reachable(view, tag), view.good_since_ns(tag)
    if missing is not None:
        return missing
    if since_ns is None:
        return Readiness(
            False, "WaitingForResponse", f"{tag} has not reported on the database since it joined the group"
        )
    return _wanted(view, tag) or _caught_up(view, tag, since_ns) or _held_down(view, tag, since_ns)


def hold_down_ms(view: DatabaseView, tag: str) -> tuple[int, int]:
    """How long the node must be good before it is promoted, and how often it was demoted within the last hour.

    It doubles with every demotion, so that a node that comes and goes does not drag its tasks along each time.
    """
    count = sum(view.facts.now_ms - at < HOUR_MS for at in _demotions(view, tag))
    return min(view.facts.limits.stabilization_ms << max(0, count - 1), HOLD_DOWN_MS_MAX), count


def _demotions(view: DatabaseView, tag: str) -> tuple[int, ...]:
    return view.record.observer.demotions.get(f"{fold(view.database.name)}/{tag}", ())


def _reachable(view: DatabaseView, tag: str) -> Readiness | None:
    lost = view.lost(tag)
    if lost is not None:
        return Readiness(False, "NotResponding", lost)
    facts, report = view.facts_of(tag), view.report(tag)
    if facts is None or not facts.fresh or report is None:
        return Readiness(False, "WaitingForResponse", f"{tag} has not reported on the database")
    if not report.well:
        return Readiness(False, "WaitingForResponse", f"the database is {report.status} on {tag}")
    return None


def _wanted(view: DatabaseView, tag: str) -> Readiness | None:
    flags = view.flags(tag)
    if flags:
        return Readiness(False, flags[0], f"{tag} is short of a resource: {', '.join(flags)}")
    if view.draining(tag):
        return Readiness(False, "Ok", f"{tag} is drained")
    if len(view.topology.members) >= view.topology.replication_factor:
        return Readiness(False, "Ok", f"the database has its {view.topology.replication_factor} Members already")
    return None


def _caught_up(view: DatabaseView, tag: str, since_ns: int) -> Readiness | None:
    mentor = mentor_of(view.record, view.database, tag)
    if mentor is None:
        return Readiness(False, "WaitingForResponse", f"no Member can be the mentor of {tag}")
    facts, now, before = view.facts_of(mentor), view.report(mentor), view.previous_report(mentor)
    if facts is None or not facts.fresh or now is None or before is None:
        return Readiness(False, "WaitingForResponse", f"mentor {mentor} has not reported twice on the database")
    if now.status != "Loaded" or before.status != "Loaded":
        return Readiness(False, "WaitingForResponse", f"the database is not loaded on mentor {mentor}")
    if facts.previous_ns < since_ns:
        # Older samples speak of an earlier copy on that node, which may have gone since.
        why = f"mentor {mentor} has not reported twice since {tag} reported its copy"
        return Readiness(False, "WaitingForResponse", why)
    if not _member_in_both(view, facts):
        # What it lacked before it was a Member, it cannot have sent.
        why = f"mentor {mentor} has not reported twice since it became a Member"
        return Readiness(False, "WaitingForResponse", why)
    # What the mentor had one sample ago has arrived: under steady writes the newest etag is never reached.
    if tag not in now.sent or now.sent[tag] < before.last_etag:
        return Readiness(False, "ChangeVectorNotMerged", f"{tag} has not received all that mentor {mentor} has")
    return None


def _member_in_both(view: DatabaseView, mentor: NodeFacts) -> bool:
    state = mentor.copies.get(fold(view.database.name))
    member_since_ns = state.member_since_ns if state else None
    return member_since_ns is not None and member_since_ns <= mentor.previous_ns


def _held_down(view: DatabaseView, tag: str, since_ns: int) -> Readiness:
    """Who lagged or was short of a resource was heard and well all the time: what counts is the time since then. A
    demotion that seems to lie ahead is older than a change of the wall clock, and says nothing."""
    wait_ms, demotions = hold_down_ms(view, tag)
    often = f"; {demotions} demotion{'s' * (demotions > 1)} within the last hour" if demotions else ""
    since_demotion_ms = (view.facts.now_ms - at for at in _demotions(view, tag) if at <= view.facts.now_ms)
    good_ms = min([(view.facts.now_ns - since_ns) // NS_PER_MS, *since_demotion_ms])
    if good_ms < wait_ms:
        why = f"{tag} has caught up and must stay healthy for {wait_ms} ms{often}"
        return Readiness(False, "Ok", why, wait_ms - good_ms)
    return Readiness(True, "Ok", f"it has caught up and been healthy for {good_ms} ms (required {wait_ms} ms{often})")
