"""What the leader knows of the nodes: over real leases and reports that went through the wire."""

import structlog.testing
from msgspec.structs import replace

from observer.rules.facts import ClaimHolder, Facts, NodeFacts
from raftnode.record.commands.claims import ClaimTask
from raftnode.record.commands.cluster import RemoveNode
from raftnode.record.commands.databases import AddDatabaseNode, PromoteDatabaseNode
from raftnode.record.commands.tasks import PutTask
from tests.unit.liveness.test_heartbeat import TIMINGS
from tests.unit.observer.rig import LIMITS, R_MS, Rig

MS = 1_000_000


def facts(rig: Rig) -> Facts:
    return rig.health.facts(rig.replica.record, TIMINGS, LIMITS)


def pass_ms(rig: Rig, ms: int) -> Facts:
    """Time passes and health samples, with no observer to act on it."""
    seen = facts(rig)
    for _ in range(0, ms, 100):
        rig.wires.go(100)
        seen = facts(rig)
    return seen


def good_ms(seen: Facts, node: NodeFacts) -> int:
    state = node.copies["northwind"]
    assert state.well
    return (seen.now_ns - state.since_ns) // MS


def test_nodes_that_report_are_fresh_and_their_copies_well_since_the_first_report() -> None:
    rig = Rig()
    seen = pass_ms(rig, 3000)
    assert set(seen.nodes) == set("ABCD")
    for tag in "ABC":
        node = seen.nodes[tag]
        assert (node.silent, node.fresh) == (False, True)
        assert node.current["northwind"].status == "Loaded"
        assert 2500 <= good_ms(seen, node) <= 3000
        assert node.previous["northwind"].last_etag == 7
    assert seen.nodes["D"].fresh
    assert not seen.nodes["D"].copies, "it is not in the group"
    assert (seen.leader, seen.term, seen.silence_ms, seen.limits) == ("A", 1, R_MS, LIMITS)


def test_the_sample_before_the_newest_one_is_kept() -> None:
    rig = Rig()
    pass_ms(rig, 1000)
    rig.reports_of("B", last_etag=8, change_vector="B:8-AAAAAAAAAAAAAAAAAAAAAA", error="slow disk")
    while (node := pass_ms(rig, 100).nodes["B"]).current["northwind"].last_etag != 8:
        pass
    assert node.previous["northwind"].last_etag == 7
    assert node.current["northwind"].vector == {"AAAAAAAAAAAAAAAAAAAAAA": 8}
    assert node.current["northwind"].error == "slow disk"
    assert pass_ms(rig, 300).nodes["B"].previous["northwind"].last_etag == 8


def test_a_node_that_is_not_heard_is_first_stale_and_then_silent_with_its_last_error() -> None:
    rig = Rig()
    pass_ms(rig, 6000)
    rig.errors["B"] = "connection refused"
    rig.cut("B")
    stale = pass_ms(rig, R_MS // 2 + 200).nodes["B"]
    assert (stale.fresh, stale.silent, stale.error) == (False, False, "")
    seen = pass_ms(rig, R_MS // 2)
    assert (seen.nodes["B"].fresh, seen.nodes["B"].silent) == (False, True)
    assert seen.nodes["B"].error == "connection refused"
    assert (seen.now_ns - seen.nodes["B"].heard_ns) // MS >= R_MS
    assert not seen.nodes["C"].silent


def test_a_node_that_is_back_counts_as_good_only_from_then_on() -> None:
    rig = Rig()
    pass_ms(rig, 6000)
    rig.cut("B")
    assert not pass_ms(rig, R_MS + 500).nodes["B"].copies
    rig.cut()
    seen = pass_ms(rig, 1000)
    assert good_ms(seen, seen.nodes["B"]) <= 1000
    assert good_ms(seen, seen.nodes["C"]) >= R_MS


def test_a_copy_counts_as_unwell_from_the_first_such_report() -> None:
    rig = Rig()
    pass_ms(rig, 3000)
    rig.reports_of("B", status="Faulted")
    seen = pass_ms(rig, 1000)
    state = seen.nodes["B"].copies["northwind"]
    assert not state.well
    assert 600 <= (seen.now_ns - state.since_ns) // MS <= 1000
    rig.reports_of("B", status="Loading")
    assert pass_ms(rig, 1000).nodes["B"].copies["northwind"] == state, "unwell without interruption"
    rig.reports_of("B", status="Unloaded")
    seen = pass_ms(rig, 500)
    assert good_ms(seen, seen.nodes["B"]) <= 500


def test_it_is_noted_since_which_sample_a_node_is_a_member() -> None:
    rig = Rig()
    state = pass_ms(rig, 1000).nodes["B"].copies["northwind"]
    assert state.member_since_ns == state.since_ns
    assert pass_ms(rig, 1000).nodes["B"].copies["northwind"] == state, "a Member without interruption"
    rig.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert pass_ms(rig, 500).nodes["D"].copies["northwind"].member_since_ns is None
    rig.do(PromoteDatabaseNode(name="Northwind", tag="D"))
    before_ns = facts(rig).now_ns
    after = pass_ms(rig, 500).nodes["D"].copies["northwind"]
    assert after.member_since_ns is not None
    assert after.since_ns < before_ns <= after.member_since_ns


def test_a_new_leader_counts_every_span_anew_and_may_void_nothing_at_first() -> None:
    rig = Rig()
    assert pass_ms(rig, 9000).void_allowed
    rig.lead("C", term=2)
    seen = pass_ms(rig, 1000)
    assert not seen.void_allowed
    assert good_ms(seen, seen.nodes["B"]) <= 1000
    assert pass_ms(rig, 5000).void_allowed


def test_a_node_that_a_leader_never_hears_is_silent_in_the_end() -> None:
    rig = Rig()
    rig.cut("B")
    assert not pass_ms(rig, 3000).nodes["B"].silent
    assert pass_ms(rig, 2500).nodes["B"].silent


def test_a_removed_node_that_holds_a_claim_is_watched_until_it_is_silent() -> None:
    rig = Rig()
    pass_ms(rig, 7000)
    rig.do(PutTask(database="Northwind", name="t", kind="SqlEtl", key=1, mentor="B"))
    claim = ClaimTask(
        database="Northwind", kind="SqlEtl", name="t", tag="B", node_id="id-B", boot=1, nonce=ord("B"), session=1
    )
    rig.do(claim)
    rig.do(RemoveNode(tag="B"))
    for raft in rig.wires.rafts.values():
        raft.consist_of("ACD")
    rig.cut("B")
    holder = ClaimHolder("B", 1, ord("B"))
    seen = pass_ms(rig, R_MS - 500)
    assert (seen.nodes["B"].silent, seen.holders, seen.over) == (False, {holder}, set())
    seen = pass_ms(rig, 1000)
    assert (seen.nodes["B"].silent, seen.over) == (True, {holder})


def test_a_report_that_cannot_be_read_is_complained_of_once_and_the_last_one_stands() -> None:
    rig = Rig()
    pass_ms(rig, 1000)
    with structlog.testing.capture_logs() as logs:
        rig.reports_of("B", status="Molten")
        assert pass_ms(rig, 1000).nodes["B"].current["northwind"].status == "Loaded"
        rig.reports_of("C", change_vector="nonsense")
        assert pass_ms(rig, 1000).nodes["C"].current["northwind"].status == "Loaded"
    assert [log["tag"] for log in logs if "cannot be read" in log["event"]] == ["B", "C"]
    rig.reports_of("B")
    assert pass_ms(rig, 500).nodes["B"].copies["northwind"].well


def test_timings_of_the_record_bound_what_is_fresh() -> None:
    rig = Rig()
    pass_ms(rig, 1000)
    rig.wires.clocks.ms += 300
    slow = replace(TIMINGS, time_before_moving_to_rehab_ms=500)
    assert rig.health.facts(rig.replica.record, TIMINGS, LIMITS).nodes["B"].fresh
    assert not rig.health.facts(rig.replica.record, slow, LIMITS).nodes["B"].fresh
