"""What the rules ask about a node and its copy of a database."""

from itertools import permutations
from typing import get_args

import pytest
from immutables import Map
from msgspec.structs import replace

from observer.rules.database_view import DatabaseView
from observer.rules.facts import NS_PER_MS, ClaimHolder, CopyState, DatabaseReport, NodeFacts, started_again
from raftnode.record.commands import SetDraining, SetNodeFlags
from raftnode.record.model import ResourceFlag
from tests.unit.observer.build import FOLDED, LIMITS, NOW_MS, NOW_NS, R_MS, facts, group, silent, unwell, well
from tests.unit.record.build import NONCE, RecordCluster

FLAGS: tuple[ResourceFlag, ...] = get_args(ResourceFlag)


def view_of(*nodes: NodeFacts, cluster: RecordCluster | None = None) -> DatabaseView:
    cluster = cluster or group()
    return DatabaseView(record=cluster.record, database=cluster.database(), facts=facts(*nodes))


def test_of_a_node_that_nobody_knows_nothing_is_known() -> None:
    view = view_of()
    assert (view.node("Z"), view.facts_of("Z"), view.flags("Z")) == (None, None, ())
    assert (view.report("Z"), view.previous_report("Z"), view.good_since_ns("Z")) == (None, None, None)
    assert (view.slow_ms("Z"), view.good("Z"), view.draining("Z"), view.leaving("Z")) == (0, False, False, False)
    assert view.lost("Z") == "Z is not in the cluster"
    assert view.lost("B") is None, "of a node that is in the cluster nobody has said yet how it is"
    assert not view.good("B")


@pytest.mark.parametrize("said", list(permutations(FLAGS)))
def test_the_flags_of_a_node_are_in_one_order_whoever_said_them(said: tuple[ResourceFlag, ...]) -> None:
    cluster = group()
    cluster.do(SetNodeFlags(tag="B", flags=said[:2]))
    assert view_of(well("B", flags=said[1:]), cluster=cluster).flags("B") == tuple(sorted(FLAGS))
    assert view_of(cluster=cluster).flags("B") == tuple(sorted(said[:2]))


def test_a_node_is_slow_since_it_was_heard_or_its_copy_well_whichever_is_longer() -> None:
    def node(*, heard_ms: int, state: CopyState | None) -> NodeFacts:
        copies = {FOLDED: state} if state else {}
        return well("B", heard_ns=NOW_NS - heard_ms * NS_PER_MS, copies=copies)

    broken = CopyState(False, NOW_NS - 50 * NS_PER_MS)
    for heard_ms, state, slow_ms in (
        (20, None, 20),
        (20, CopyState(True, 0), 20),
        (20, broken, 50),
        (80, broken, 80),
    ):
        assert view_of(node(heard_ms=heard_ms, state=state)).slow_ms("B") == slow_ms


def test_since_when_a_node_is_good_is_known_only_of_one_that_is_heard_and_well() -> None:
    since_ns = NOW_NS - 40 * NS_PER_MS
    state = CopyState(True, since_ns)
    assert view_of(well("B", copies={FOLDED: state})).good_since_ns("B") == since_ns
    assert view_of(well("B", copies={FOLDED: replace(state, well=False)})).good_since_ns("B") is None
    assert view_of(well("B", copies={FOLDED: state}, silent=True)).good_since_ns("B") is None
    assert view_of(well("B", copies={})).good_since_ns("B") is None


def test_a_node_is_good_if_it_serves_was_heard_lately_and_stays() -> None:
    limit_ms = LIMITS.rotate_ms
    cluster = group()
    for heard_ms, good in ((limit_ms - 1, True), (limit_ms, False)):
        heard = well("B", heard_ns=NOW_NS - heard_ms * NS_PER_MS)
        assert view_of(heard, cluster=cluster).good("B") == good
    assert not view_of(silent("B"), cluster=cluster).good("B")
    cluster.do(SetDraining(tag="B", draining=True))
    assert not view_of(well("B"), cluster=cluster).good("B")


def test_a_silent_node_is_lost_with_its_last_error() -> None:
    assert view_of(silent("B")).lost("B") == "B has not been heard for 800 ms (limit 750 ms)"
    why = "B has not been heard for 800 ms (limit 750 ms); last error: refused"
    assert view_of(silent("B", error="refused")).lost("B") == why
    assert view_of(well("B", copies={})).lost("B") is None


def test_what_a_report_leaves_out_is_nothing() -> None:
    assert DatabaseReport(status="Loaded") == DatabaseReport(
        status="Loaded", last_etag=0, documents=0, vector={}, sent={}, error=""
    )
    assert NodeFacts(tag="B", silent=False, fresh=True, heard_ns=1) == NodeFacts(
        tag="B",
        silent=False,
        fresh=True,
        heard_ns=1,
        error="",
        current={},
        previous={},
        previous_ns=0,
        copies={},
        flags=(),
    )
    assert CopyState(True, 5) == CopyState(True, 5, 0)


def test_a_node_that_left_has_not_been_started_again() -> None:
    cluster = group()
    assert not started_again(cluster.record, ClaimHolder("B", 1, NONCE))
    assert started_again(cluster.record, ClaimHolder("B", 1, NONCE + 1))
    assert not started_again(cluster.record, ClaimHolder("Z", 1, NONCE))


def test_a_copy_that_is_not_well_for_r_makes_its_node_lost() -> None:
    assert view_of(unwell("B", for_ms=R_MS - 1)).lost("B") is None
    assert view_of(unwell("B", for_ms=R_MS)).lost("B") == f"the database has been Faulted on B for {R_MS} ms"
    assert view_of(replace(unwell("B", for_ms=R_MS), current={})).lost("B") is None, "it does not say so any more"


def test_for_how_long_a_node_is_lost_the_record_knows_and_a_clock_that_went_back_gives_nothing() -> None:
    for since_ms, lost_ms in ((NOW_MS - 7, 7), (NOW_MS, 0), (NOW_MS + 7, 0)):
        cluster = group()
        observer = replace(cluster.record.observer, lost_since=Map({f"{FOLDED}/B": since_ms}))
        cluster.record = replace(cluster.record, observer=observer)
        assert view_of(silent("B"), cluster=cluster).lost_for_ms("B") == lost_ms
        assert view_of(well("B"), cluster=cluster).lost_for_ms("B") is None
    assert view_of(silent("B")).lost_for_ms("B") is None
