"""Notes: the state of each node of the group, where a user looks for it."""

from immutables import Map

from observer.rules.decide import decide
from raftnode.record.commands import AddDatabaseNode
from tests.unit.observer.build import (
    FOLDED,
    NOW_MS,
    STABLE_MS,
    commit,
    facts,
    group,
    report,
    sentences,
    silent,
    topology_after,
    well,
)


def test_a_promotable_passes_through_its_statuses() -> None:
    cluster = group("A", "B", "C")
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    others = (well("B"), well("C"))
    assert cluster.database().topology.promotables_status["D"] == "WaitingForFirstPromotion"
    behind = {FOLDED: report(sent={}, last_etag=5)}
    slow = tuple(well(tag, current=behind) for tag in "ABC")
    seen = facts(*slow, well("D"))
    decisions = commit(cluster, seen)
    assert cluster.database().topology.promotables_status["D"] == "ChangeVectorNotMerged"
    assert "D is not promoted yet (ChangeVectorNotMerged): D has not received all that mentor" in sentences(decisions)
    later = NOW_MS + STABLE_MS
    dead = topology_after(cluster, facts(*others, silent("D"), now_ms=later))
    assert dead.promotables_status["D"] == "NotResponding"
    assert "D has not been heard" in dead.demotion_reasons["D"]
    for good_ms in (0, 1):
        soon = facts(*others, well("D", good_ms=good_ms), now_ms=later + STABLE_MS)
        assert not decide(cluster.record, soon).topologies, "it will be a Member before anybody reads a note"


def test_notes_are_written_at_most_once_in_the_stabilization_time() -> None:
    cluster = group("A", "B", "C")
    commit(cluster, facts(silent("B"), well("C")))
    back = (well("B", fresh=False), well("C"))
    assert not decide(cluster.record, facts(*back, now_ms=NOW_MS)).topologies
    assert not decide(cluster.record, facts(*back, now_ms=NOW_MS + STABLE_MS - 1)).topologies
    assert decide(cluster.record, facts(*back, now_ms=NOW_MS + STABLE_MS)).topologies
    assert decide(cluster.record, facts(*back, now_ms=NOW_MS - 1)).topologies, "the wall clock went back"


def test_a_node_that_must_wait_long_is_said_to_wait() -> None:
    cluster = group("A", "B", "C")
    now_ms = NOW_MS
    for _ in range(2):
        commit(cluster, facts(silent("B"), well("C"), now_ms=now_ms))
        now_ms += 2 * STABLE_MS
        assert "B" in topology_after(cluster, facts(well("B"), well("C"), now_ms=now_ms)).members
    commit(cluster, facts(silent("B"), well("C"), now_ms=now_ms))
    topology = topology_after(cluster, facts(well("B", good_ms=1), well("C"), now_ms=now_ms + STABLE_MS))
    assert topology.promotables_status["B"] == "Ok"
    assert topology.demotion_reasons["B"] == (
        "B is not promoted yet (Ok): B has caught up and must stay healthy for 20000 ms; 3 demotions within the last "
        "hour"
    )


def test_an_unchanged_status_is_not_written_again() -> None:
    cluster = group("A", "B", "C")
    commit(cluster, facts(silent("B"), well("C")))
    assert not decide(
        cluster.record, facts(silent("B", heard_ms=99_000), well("C"), now_ms=NOW_MS + HOUR_MS)
    ).topologies


def test_what_is_written_of_a_lost_node_stands_until_a_new_leader_has_heard_it_or_found_it_lost() -> None:
    cluster = group("A", "B", "C")
    commit(cluster, facts(silent("B"), well("C")))
    assert dict(cluster.record.observer.lost_since) == {f"{FOLDED}/B": NOW_MS}
    later = NOW_MS + 2 * STABLE_MS
    unheard = well("B", fresh=False, current={}, previous={}, copies={})
    assert not decide(cluster.record, facts(unheard, well("C"), now_ms=later)).topologies
    without = facts(well("C"), now_ms=later)
    assert "B" not in without.nodes
    assert not decide(cluster.record, without).topologies
    assert not decide(cluster.record, facts(silent("B", current={}), well("C"), now_ms=later)).topologies
    topology = topology_after(cluster, facts(well("B", fresh=False), well("C"), now_ms=later))
    assert topology.promotables_status["B"] == "WaitingForResponse"
    assert not cluster.record.observer.lost_since


def test_what_else_is_written_of_a_node_does_not_outlast_the_leader_that_knew_it() -> None:
    cluster = group("A", "B", "C")
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    slow = tuple(well(tag, current={FOLDED: report(sent={}, last_etag=5)}) for tag in "ABC")
    assert topology_after(cluster, facts(*slow, well("D"))).promotables_status["D"] == "ChangeVectorNotMerged"
    unheard = well("D", fresh=False, current={}, previous={}, copies={})
    seen = facts(well("B"), well("C"), unheard, now_ms=NOW_MS + STABLE_MS)
    assert topology_after(cluster, seen).promotables_status["D"] == "WaitingForResponse"


def test_a_reason_that_was_left_behind_goes() -> None:
    cluster = group(demotion_reasons=Map({"B": "it lagged"}))
    decisions = commit(cluster, facts(well("B"), well("C")))
    assert sentences(decisions) == "Member B is online."
    assert not cluster.database().topology.demotion_reasons


def test_a_member_that_stays_though_it_is_lost_is_not_online_before_a_new_leader_has_heard_it() -> None:
    cluster = group("B", "C")
    commit(cluster, facts(silent("B"), silent("C")))
    unheard = (well(tag, fresh=False, current={}, previous={}, copies={}) for tag in "BC")
    assert not decide(cluster.record, facts(*unheard, now_ms=NOW_MS + STABLE_MS)).topologies


def test_a_member_that_is_back_loses_its_status_and_reason() -> None:
    cluster = group("B", "C")
    commit(cluster, facts(silent("B"), silent("C")))
    assert set(cluster.database().topology.promotables_status) == {"B", "C"}
    assert "Member B stays, as no other is alive" in cluster.database().topology.demotion_reasons["B"]
    decisions = commit(cluster, facts(well("B"), well("C"), now_ms=NOW_MS + STABLE_MS))
    topology = cluster.database().topology
    assert not topology.promotables_status
    assert not topology.demotion_reasons
    assert sentences(decisions) == "Member B is online; Member C is online."


HOUR_MS = 3_600_000
