"""The order of the Members: the preferred node rotates, a fixed order holds, and databases spread."""

from collections import Counter

import pytest
from msgspec.structs import replace

from observer.rules.decide import decide
from observer.rules.facts import NodeFacts
from observer.rules.order import shuffled
from raftnode.record.commands import SetDraining
from raftnode.record.model import Topology
from tests.unit.observer.build import (
    LIMITS,
    NOW_NS,
    commit,
    facts,
    group,
    sentences,
    silent,
    topology_after,
    unwell,
    well,
)

B, C = well("B"), well("C")
QUICK = replace(LIMITS, rotate_ms=300)
UNHEARD = well("A", fresh=False, heard_ns=NOW_NS - 300 * 1_000_000)


@pytest.mark.parametrize(
    ("node", "first"),
    [
        (well("A"), "A"),
        (unwell("A", for_ms=299, status="Loading"), "A"),
        (unwell("A", for_ms=300, status="Loading"), "B"),
        (UNHEARD, "B"),
    ],
)
def test_a_preferred_node_that_is_not_good_for_a_while_goes_last(node: NodeFacts, first: str) -> None:
    assert topology_after(group(), facts(node, B, C, limits=QUICK)).members[0] == first


def test_the_reason_is_said() -> None:
    decisions = commit(group(), facts(UNHEARD, B, C, limits=QUICK))
    why = "A is no longer the preferred node, B is: it has been unhealthy for 300 ms (limit 300 ms)."
    assert sentences(decisions) == why


def test_it_goes_on_until_a_good_one_is_first() -> None:
    cluster = group()
    seen = facts(UNHEARD, unwell("B", for_ms=400), C, limits=QUICK)
    assert topology_after(cluster, seen).members == ("B", "C", "A")
    assert topology_after(cluster, seen).members == ("C", "A", "B")
    assert not decide(cluster.record, seen).topologies


def test_a_drained_node_is_not_preferred() -> None:
    cluster = group()
    cluster.do(SetDraining(tag="A", draining=True))
    decisions = commit(cluster, facts(B, C))
    assert cluster.database().topology.members == ("B", "C", "A")
    assert sentences(decisions) == "A is no longer the preferred node, B is: it is drained."


def test_with_nobody_known_to_be_good_the_order_stays() -> None:
    assert not decide(group().record, facts(UNHEARD, limits=QUICK)).topologies
    assert not decide(group().record, facts(nodes={})).topologies
    assert topology_after(group(members=(), rehabs=("D",)), facts()).members == ()


def test_a_preferred_node_that_nothing_is_known_of_stays_first() -> None:
    assert topology_after(group(), facts(nodes={"B": B, "C": C}, leader="B")).members == ("A", "B", "C")


def test_a_fixed_order_holds_again_once_every_member_is_good() -> None:
    cluster = group(members=("B", "C", "A"), priority_order=("A", "B"))
    assert topology_after(cluster, facts(UNHEARD, B, C, limits=QUICK)).members == ("B", "C", "A")
    decisions = commit(cluster, facts(B, C))
    assert cluster.database().topology.members == ("A", "B", "C")
    why = "The Members are in the order A, B, C again, as a user has fixed it: all are healthy."
    assert sentences(decisions) == why


def test_a_fixed_order_yields_to_a_preferred_node_that_is_slow() -> None:
    cluster = group(members=("A", "B", "C"), priority_order=("A", "B", "C"))
    seen = facts(UNHEARD, B, C, limits=QUICK)
    assert topology_after(cluster, seen).members == ("B", "C", "A")
    assert not decide(cluster.record, seen).topologies


def test_the_preferred_nodes_of_many_databases_spread_and_others_keep_their_order() -> None:
    firsts: Counter[str] = Counter()
    for n in range(300):
        three = shuffled(f"Db{n}", Topology(members=("A", "B", "C"))).members
        firsts[three[0]] += 1
        two = shuffled(f"Db{n}", Topology(members=("C", "A"))).members
        assert two == tuple(tag for tag in three if tag != "B")
    assert min(firsts[tag] for tag in "ABC") > 70
    fixed = Topology(members=("A", "B", "C", "D"), priority_order=("Z", "C", "B"))
    assert {shuffled(f"Db{n}", fixed).members[:2] for n in range(20)} == {("C", "B")}


def test_a_dead_preferred_node_is_demoted_and_not_rotated() -> None:
    topology = topology_after(group(), facts(silent("A"), B, C, leader="B", limits=QUICK))
    assert (topology.members, topology.rehabs) == (("B", "C"), ("A",))
