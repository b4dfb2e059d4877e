"""The observer under anything: total, safe, at most one topology a database, and it comes to rest."""

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import (
    NS_PER_MS,
    ClaimHolder,
    CopyState,
    DatabaseReport,
    Facts,
    NodeFacts,
    ObserverLimits,
    holder_of,
    started_again,
)
from raftnode.record.model import Record
from tests.properties.histories import play
from tests.unit.observer.build import NOW_MS, NOW_NS, commit
from tests.unit.record.build import RecordCluster

TAGS = "ABCD"
FOLDED = ("northwind", "other")
times_ns = st.integers(0, NOW_NS // NS_PER_MS).map(lambda ms: ms * NS_PER_MS)
etags = st.integers(0, 3)
reports = st.builds(
    DatabaseReport,
    status=st.sampled_from(["Loaded", "Loaded", "Unloaded", "Loading", "Faulted"]),
    last_etag=etags,
    documents=etags,
    vector=st.dictionaries(st.sampled_from("xy"), etags),
    sent=st.dictionaries(st.sampled_from(TAGS), etags),
)
copies = st.dictionaries(st.sampled_from(FOLDED), st.builds(CopyState, st.booleans(), times_ns))
databases = st.dictionaries(st.sampled_from(FOLDED), reports)


@st.composite
def nodes(draw: st.DrawFn, tag: str) -> NodeFacts:
    silent = draw(st.booleans())
    return NodeFacts(
        tag=tag,
        silent=silent,
        fresh=not silent and draw(st.booleans()),
        heard_ns=draw(times_ns),
        current=draw(databases),
        previous=draw(databases),
        previous_ns=draw(times_ns),
        copies=draw(copies),
        flags=draw(st.sampled_from(((), (), (), ("EarlyOutOfMemory",)))),
    )


@st.composite
def all_facts(draw: st.DrawFn) -> Facts:
    known = [draw(nodes(tag)) for tag in draw(st.sets(st.sampled_from(TAGS)))]
    return Facts(
        leader="A",
        term=1,
        now_ns=NOW_NS,
        now_ms=NOW_MS,
        void_allowed=draw(st.booleans()),
        silence_ms=750,
        limits=ObserverLimits(stabilization_ms=5000, rotate_ms=1000, replace_ms=1000, distance_max=1),
        nodes={node.tag: node for node in known},
        over=draw(st.frozensets(st.builds(ClaimHolder, st.sampled_from(TAGS), st.integers(1, 2), st.integers(0, 2)))),
    )


seeds = st.integers(0, 2**32 - 1)


def record_of(seed: int) -> Record:
    return play(seed, 60)[1][-1]


@settings(max_examples=300, deadline=None)
@given(seeds, all_facts())
def test_a_verdict_is_total_deterministic_and_safe(seed: int, seen: Facts) -> None:
    record = record_of(seed)
    decisions = decide(record, seen)
    assert decisions == decide(record, seen)
    names = [new.database for new in decisions.topologies]
    assert len(names) == len(set(names)), "at most one topology a database"
    for new in decisions.topologies:
        database = record.database(new.database)
        assert database is not None
        assert new.etag == database.etag
        before, after = database.topology, new.topology
        added, dropped = set(after.all_nodes) - set(before.all_nodes), set(before.all_nodes) - set(after.all_nodes)
        assert added <= set(after.promotables)
        assert added <= set(record.nodes) - set(database.deletion_in_progress)
        assert len(added) <= before.dynamic_nodes_distribution
        assert dropped <= {*before.promotables, *before.rehabs}
        assert dropped & set(record.nodes) <= set(new.removed) & set(before.promotables), (
            "a Rehab stays until it is empty"
        )
        assert not set(new.removed) & {*before.members, *after.members, *database.deletion_in_progress}
        assert after.members or not before.members
        gone = set(before.members) - set(after.members)
        assert gone == set(new.demoted)
        assert gone <= set(after.rehabs)
        assert len(set(after.members) - set(before.members)) <= 1
        assert any(sentence.database == new.database and sentence.key is None for sentence in decisions.sentences)
    for end in decisions.voids:
        claim = record.claims[end.key]
        assert (claim.state, claim.epoch) == ("Held", end.epoch)
        assert ClaimHolder(claim.tag, claim.boot, claim.nonce) in seen.over


@settings(max_examples=150, deadline=None)
@given(seeds, all_facts())
def test_the_same_facts_come_to_rest(seed: int, seen: Facts) -> None:
    cluster = RecordCluster("A")
    cluster.record = record_of(seed)
    for _ in range(12):
        decisions = commit(cluster, seen)
        if not decisions.topologies and not decisions.voids:
            break
    else:
        raise AssertionError(decisions)


@settings(max_examples=100, deadline=None)
@given(seeds, all_facts(), st.data())
def test_every_held_claim_of_a_process_that_is_over_is_void_and_no_other(
    seed: int, seen: Facts, data: st.DataObject
) -> None:
    """Also of nodes that are heard, are in no group or in no cluster; a suspended observer voids only what a node that
    was started again had before."""
    record = record_of(seed)
    states = st.sampled_from(["Held", "Held", "Released", "Void"])
    record = replace(
        record,
        claims=Map({key: replace(claim, state=data.draw(states)) for key, claim in sorted(record.claims.items())}),
        observer=replace(record.observer, suspended=data.draw(st.booleans())),
    )
    holders = sorted({holder_of(claim) for claim in record.claims.values()})
    over = frozenset(data.draw(st.sets(st.sampled_from(holders)))) if holders else frozenset()
    due = {
        (key, claim.epoch)
        for key, claim in record.claims.items()
        if claim.state == "Held"
        and holder_of(claim) in over
        and (not record.observer.suspended or started_again(record, holder_of(claim)))
    }
    voids = decide(record, replace(seen, over=over)).voids
    assert len(voids) == len(due)
    assert {(end.key, end.epoch) for end in voids} == due
