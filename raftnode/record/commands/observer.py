"""What the cluster observer writes: topologies, voids and its decisions, in one command an iteration."""

from immutables import Map
from msgspec import Struct
from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.commands.base import Changes, Command, Entry, Outcome, refuse
from raftnode.record.commands.claims import void
from raftnode.record.model import Claim, Record, Topology, TopologyStamp
from raftnode.record.observer_memory import DECISIONS_MAX, Decision, ObserverMemory

DEMOTIONS_KEPT_MAX = 16
HOUR_MS = 3_600_000
REMOVAL = "HardDelete"
"""Everything in a removed copy has already been replicated to the Members, so nothing of it is kept."""
STALE = "The topology was not changed, reason ConcurrencyException: the record was edited meanwhile; decided again."


class NewTopology(Struct, frozen=True, kw_only=True):
    """A topology that replaces the one read at `etag`. `demoted` are the nodes it moves to Rehab, `removed` those whose
    copy goes: a Rehab among them stays listed until it has handed over what only it may have."""

    database: str
    etag: int
    topology: Topology
    demoted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class VoidClaim(Struct, frozen=True, kw_only=True):
    """The end of a silent node's claim, by epoch."""

    key: str
    epoch: int
    reason: str


class GraceEnd(Struct, frozen=True):
    """The end of a sticky task's grace, by epoch: its last holder in Rehab no longer keeps it."""

    key: str
    epoch: int


class Decide(Command, frozen=True, kw_only=True, tag="Decide"):
    """All that one iteration of the observer decided. Counts only in a log entry of the term it was decided in."""

    term: int
    iteration: int
    at: str
    at_ms: int
    topologies: tuple[NewTopology, ...] = ()
    voids: tuple[VoidClaim, ...] = ()
    graces: tuple[GraceEnd, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Compare-and-set per database: the value lists the databases whose record was edited meanwhile, and the
        log of decisions says so."""
        if entry.term != self.term:
            refuse(
                "NotLeadingException",
                f"Decided in term {self.term} and logged in term {entry.term}: a decision never outlives its term.",
            )
        databases, stale = set(), []
        for new in self.topologies:
            after = _with_topology(record, new, self, entry)
            if after is None:
                stale.append(new.database)
            else:
                record = after
                databases.add(fold(new.database))
        claims = set()
        for end in self.voids:
            voided = void(record, end.key, end.epoch, end.reason)
            if voided is not None:
                if voided.databases is not record.databases:  # The run is held against its task.
                    databases.add(end.key.partition("/")[0])
                record = voided
                claims.add(end.key)
        for grace in self.graces:
            claim = record.claims.get(grace.key)
            if claim is not None and claim.epoch == grace.epoch:
                record = record.with_claim(grace.key, grace_ended(record, grace.key, claim, entry.index))
                claims.add(grace.key)
        record = _with_decisions(record, self, entry, stale)
        return Outcome(
            record=record,
            value=stale,
            changes=Changes(databases=frozenset(databases), claims=frozenset(claims)),
        )


def grace_ended(record: Record, key: str, claim: Claim, index: int) -> Claim:
    """The claim without its grace, for as long as its holder stays in Rehab."""
    since_ms = record.observer.in_rehab_since(key.partition("/")[0], claim.tag)
    return replace(claim, grace_ended=True, grace_index=index, grace_since_ms=since_ms)


class SuspendObserver(Command, frozen=True, kw_only=True, tag="SuspendObserver"):
    """The observer decides nothing while it is suspended, whoever leads."""

    suspended: bool

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Always holds."""
        observer = replace(record.observer, suspended=self.suspended)
        return Outcome(record=replace(record, observer=observer), changes=Changes(cluster=True))


def _with_topology(record: Record, new: NewTopology, decide: Decide, entry: Entry) -> Record | None:
    database = record.database(new.database)
    if database is None or database.etag != new.etag:
        return None
    stamp = TopologyStamp(index=entry.index, term=entry.term, leader_wall_ms=decide.at_ms)
    topology = replace(new.topology, stamp=stamp, nodes_modified_at=decide.at)
    folded = fold(database.name)
    deletion = database.deletion_in_progress.update(dict.fromkeys(new.removed, REMOVAL))
    changed = replace(database, topology=topology, deletion_in_progress=deletion, etag=entry.index)
    demotions = _recent(record.observer.demotions, decide.at_ms) if new.demoted else record.observer.demotions
    for tag in new.demoted:
        key = f"{folded}/{tag}"
        demotions = demotions.set(key, (*demotions.get(key, ()), decide.at_ms)[-DEMOTIONS_KEPT_MAX:])
    return replace(
        record,
        databases=record.databases.set(folded, changed),
        observer=replace(
            record.observer,
            demotions=demotions,
            rehab_since=_since(
                record.observer.rehab_since,
                folded,
                before=set(database.topology.rehabs) - set(new.demoted),
                after=set(topology.rehabs),
                now_ms=decide.at_ms,
            ),
            lost_since=_since(
                record.observer.lost_since,
                folded,
                before=_lost(database.topology),
                after=_lost(topology),
                now_ms=decide.at_ms,
            ),
        ),
    )


def _since(known: Map[str, int], folded: str, *, before: set[str], after: set[str], now_ms: int) -> Map[str, int]:
    """With what is true of this database from now on: who was so before keeps the time, others start from zero. What an
    edit by hand has left behind goes."""
    kept = {tag: known.get(f"{folded}/{tag}", now_ms) for tag in before & after}
    for key in [key for key in known if key.partition("/")[0] == folded]:
        known = known.delete(key)
    return known.update({f"{folded}/{tag}": kept.get(tag, now_ms) for tag in after})


def _lost(topology: Topology) -> set[str]:
    return {tag for tag, status in topology.promotables_status.items() if status == "NotResponding"}


def _recent(demotions: Map[str, tuple[int, ...]], now_ms: int) -> Map[str, tuple[int, ...]]:
    kept = {key: tuple(at for at in times if now_ms - at < HOUR_MS) for key, times in demotions.items()}
    return Map({key: times for key, times in kept.items() if times})


def _said(decide: Decide, stale: list[str]) -> list[tuple[str, str]]:
    """The sentences by database. Of what was not applied none reads as if it were."""
    told = {database for database, _ in decide.decisions}
    said = [(name, f"{STALE} It was to be: {text}" if name in stale else text) for name, text in decide.decisions]
    return [*said, *((name, STALE) for name in stale if name not in told)]


def _with_decisions(record: Record, decide: Decide, entry: Entry, stale: list[str]) -> Record:
    fresh = tuple(
        Decision(
            index=entry.index,
            iteration=decide.iteration,
            at=decide.at,
            database=database,
            message=message,
            term=decide.term,
        )
        for database, message in _said(decide, stale)
    )
    observer: ObserverMemory = record.observer
    kept = (*observer.decisions, *fresh)[-DECISIONS_MAX:]
    return replace(record, observer=replace(observer, decisions=kept))
