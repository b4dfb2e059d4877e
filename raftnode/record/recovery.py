"""The record of a cluster that begins again with one node: after the loss of a majority, or from a snapshot.

Every epoch of the new cluster is above every one of the old: the generation, the upper part of an epoch, is raised.
"""

from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands.claims import without_ended_claims
from raftnode.record.model import Claim, ClusterNode, Database, Progress, Record
from raftnode.record.observer_memory import DECISIONS_MAX, Decision, ObserverMemory

GENERATION_BY_CLOCK_MAX = 1 << 22
"""From here on generations only count; twice as many fit into an epoch of 63 bits."""


def raised(generation: int, minutes: int) -> int:
    """A generation above `generation`, and above whatever else was made of the same record before this minute: two
    survivors of one cluster, recovered one after the other, must not reissue each other's epochs. `minutes` is the wall
    clock's."""
    return max(generation + 1, min(minutes, GENERATION_BY_CLOCK_MAX))


def without_copy(record: Record, tag: str) -> list[str]:
    """The names of the databases that no copy would be left of, were that node alone."""
    return sorted(d.name for d in record.databases.values() if d.topology.state_of(tag) is None)


def recovered(record: Record, tag: str, *, index: int, term: int, generation: int, at: str) -> Record:
    """The record with that node as the only one, at entry `index`. It is the Member of every database it has a copy of,
    and the others are gone; every claim is void, as nobody runs.

    `tag` must be one of the record's nodes. `at` is the time in RavenDB's form.
    """
    databases = {
        folded: _alone(database, tag, index, term)
        for folded, database in record.databases.items()
        if database.topology.state_of(tag) is not None
    }
    lost = sorted(set(record.nodes) - {tag})
    gone = without_copy(record, tag)
    message = (
        f"Node {tag} started the cluster again by itself, as an operator forced it after the loss of a majority. "
        f"Nodes that are gone: {', '.join(lost) or 'none'}. Databases without a copy here, which are gone: "
        f"{', '.join(gone) or 'none'}."
    )
    voided = Map({key: _void(claim, "the cluster was started again by force") for key, claim in record.claims.items()})
    begun = replace(
        record,
        index=index,
        generation=generation,
        nodes=Map({tag: replace(record.nodes[tag], kind="Member", draining=False, placement_index=index)}),
        databases=Map(databases),
        claims=voided,
        observer=_told(record.observer, message, index=index, term=term, at=at),
    ).indexed()
    return without_ended_claims(begun, set(record.databases) - set(databases))


def restored(
    record: Record, node: ClusterNode, *, cluster_id: str, index: int, term: int, generation: int, at: str
) -> Record:
    """The record as a cluster of its own, of that node alone, at entry `index`. It holds every database, without
    documents; to every sink it is another cluster, so nobody has claimed a task in it and no task has come anywhere."""
    databases = {folded: _emptied(d, node.tag, index, term) for folded, d in record.databases.items()}
    message = f"Node {node.tag} began this cluster from a snapshot of cluster {record.cluster_id}."
    return replace(
        record,
        index=index,
        cluster_id=cluster_id,
        generation=generation,
        nodes=Map({node.tag: replace(node, placement_index=index)}),
        databases=Map(databases),
        claims=Map(),
        observer=_told(record.observer, message, index=index, term=term, at=at),
        requests=Map(),
        request_order=Map(),
        request_first=0,
        request_next=0,
    ).indexed()


def _alone(database: Database, tag: str, index: int, term: int) -> Database:
    before = database.topology
    topology = replace(
        before,
        members=(tag,),
        promotables=(),
        rehabs=(),
        predefined_mentors=Map(),
        demotion_reasons=Map(),
        promotables_status=Map(),
        priority_order=(),
        stamp=replace(before.stamp, index=index, term=term),
    )
    # Whoever was to take the place of a copy that is on its way out is gone: the copy stays.
    return replace(database, topology=topology, deletion_in_progress=Map(), etag=index)


def _emptied(database: Database, tag: str, index: int, term: int) -> Database:
    progress = {id: Progress(generation=made.generation) for id, made in database.progress.items()}
    return replace(_alone(database, tag, index, term), progress=Map(progress))


def _void(claim: Claim, reason: str) -> Claim:
    return replace(claim, state="Void", reason=reason) if claim.state == "Held" else claim


def _told(observer: ObserverMemory, message: str, *, index: int, term: int, at: str) -> ObserverMemory:
    told = Decision(index=index, iteration=0, at=at, database="", message=message, term=term)
    return ObserverMemory(suspended=observer.suspended, decisions=(*observer.decisions, told)[-DECISIONS_MAX:])
