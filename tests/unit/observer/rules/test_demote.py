"""Demotion: a Member that is lost moves to Rehab."""

from msgspec.structs import replace

from observer.rules.decide import decide
from raftnode.record.commands import SetDatabaseState, SetDraining, SetNodeFlags, SuspendObserver
from raftnode.record.commands.databases import DeleteDatabase
from tests.unit.observer.build import (
    NOW_MS,
    STABLE_MS,
    commit,
    facts,
    group,
    sentences,
    silent,
    topology_after,
    unwell,
    well,
)

C = well("C")


def test_a_silent_member_moves_to_rehab_with_its_reason() -> None:
    cluster = group()
    decisions = commit(cluster, facts(silent("B", error="connection refused"), C))
    topology = cluster.database().topology
    assert (topology.members, topology.rehabs) == (("A", "C"), ("B",))
    assert topology.promotables_status["B"] == "NotResponding"
    why = "B has not been heard for 800 ms (limit 750 ms); last error: connection refused"
    assert topology.demotion_reasons["B"] == why
    assert sentences(decisions) == f"B was moved to Rehab: {why}."
    assert cluster.record.observer.demotions["northwind/B"] == (NOW_MS,)


def test_a_cluster_that_is_well_is_left_alone() -> None:
    assert decide(group().record, facts(well("B"), C)).topologies == ()


def test_several_silent_members_move_in_one_change() -> None:
    cluster = group("A", "B", "C")
    decisions = commit(cluster, facts(silent("B"), silent("C")))
    assert cluster.database().topology.members == ("A",)
    assert cluster.database().topology.rehabs == ("B", "C")
    assert "B, C were moved to Rehab" in sentences(decisions)


def test_nobody_is_demoted_when_no_other_member_is_alive() -> None:
    cluster = group("B", "C")
    decisions = commit(cluster, facts(silent("B"), silent("C")))
    assert cluster.database().topology.members == ("B", "C")
    assert "The database is unreachable: no Member is alive (B, C)" in sentences(decisions)
    assert cluster.database().topology.promotables_status["B"] == "NotResponding"


def test_the_last_of_them_stays_though_the_other_is_only_slow() -> None:
    topology = topology_after(group("B", "C"), facts(silent("B"), well("C", fresh=False)))
    assert (topology.members, topology.rehabs) == (("C",), ("B",))


def test_a_member_that_no_report_speaks_of_yet_is_not_demoted() -> None:
    nobody_heard = facts(nodes={"A": well("A")})
    assert topology_after(group(), nobody_heard).members == ("A", "B", "C")
    nothing_reported = facts(well("B", current={}, copies={}), C)
    assert topology_after(group(), nothing_reported).members == ("A", "B", "C")


def test_a_copy_that_is_faulted_for_long_moves_its_node_to_rehab() -> None:
    cluster = group()
    slow = facts(unwell("B", for_ms=700, error="disk full"), C)
    assert topology_after(cluster, slow).members == ("A", "B", "C")
    gone = facts(unwell("B", for_ms=760, error="disk full"), C)
    assert topology_after(cluster, gone).rehabs == ("B",)
    reason = cluster.database().topology.demotion_reasons["B"]
    assert reason == "the database has been Faulted on B for 760 ms: disk full"


def test_a_copy_that_loads_for_long_moves_its_node_to_rehab() -> None:
    cluster = group()
    assert topology_after(cluster, facts(unwell("B", for_ms=760, status="Loading"), C)).rehabs == ("B",)
    assert cluster.database().topology.demotion_reasons["B"] == "the database has been Loading on B for 760 ms"


def test_a_drained_node_is_not_demoted_but_does_not_count_as_alive_either() -> None:
    cluster = group()
    cluster.do(SetDraining(tag="B", draining=True))
    topology = topology_after(cluster, facts(silent("B"), C))
    assert topology.members == ("A", "B", "C")
    assert topology.demotion_reasons["B"].startswith("Member B stays, as it is drained: B has not been heard")
    assert topology_after(cluster, facts(silent("A"), silent("B"), C, leader="C")).rehabs == ("A",)
    assert topology_after(cluster, facts(silent("A"), silent("B"), silent("C"), leader="D")).members == ("B", "C")


def test_a_member_that_is_in_no_cluster_is_lost() -> None:
    cluster = group(members=("A", "Z"))
    cluster.record = replace(cluster.record, nodes=cluster.record.nodes)
    assert topology_after(cluster, facts()).demotion_reasons["Z"] == "Z is not in the cluster"


def test_a_demotion_does_not_wait_for_stabilization() -> None:
    cluster = group()
    commit(cluster, facts(silent("B"), C))
    assert topology_after(cluster, facts(silent("B"), silent("C"))).rehabs == ("B", "C")
    assert STABLE_MS > 0


def test_a_database_that_is_disabled_or_being_deleted_keeps_its_topology() -> None:
    cluster = group()
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    assert decide(cluster.record, facts(silent("B"), C)).topologies == ()
    cluster.do(SetDatabaseState(name="Northwind", disabled=False))
    cluster.do(DeleteDatabase(name="Northwind"))
    assert decide(cluster.record, facts(silent("B"), C)).topologies == ()


def test_a_suspended_observer_decides_nothing() -> None:
    cluster = group()
    cluster.task("t", mentor="B")
    cluster.do(cluster.claim("B", "t"))
    cluster.do(SuspendObserver(suspended=True))
    decisions = decide(cluster.record, facts(silent("B"), C))
    assert (decisions.topologies, decisions.voids, decisions.sentences) == ((), (), ())


def test_a_member_that_is_short_of_a_resource_moves_to_rehab_and_is_back_when_it_is_not() -> None:
    cluster = group()
    cluster.do(SetNodeFlags(tag="B", flags=("HighDirtyMemory",)))
    reported = well("B", flags=("EarlyOutOfMemory",))
    decisions = commit(cluster, facts(reported, C))
    topology = cluster.database().topology
    assert (set(topology.members), topology.rehabs) == ({"A", "C"}, ("B",))
    assert topology.promotables_status["B"] == "EarlyOutOfMemory"
    why = "B is short of a resource: EarlyOutOfMemory, HighDirtyMemory"
    assert sentences(decisions) == f"B was moved to Rehab: {why}."
    assert topology_after(cluster, facts(reported, C)).rehabs == ("B",)
    cluster.do(SetNodeFlags(tag="B"))
    assert topology_after(cluster, facts(well("B"), C, now_ms=NOW_MS + STABLE_MS - 1)).rehabs == ("B",)
    assert topology_after(cluster, facts(well("B"), C, now_ms=NOW_MS + STABLE_MS)).rehabs == ()


def test_members_that_are_all_short_of_a_resource_stay() -> None:
    cluster = group("A", "B")
    for tag in "AB":
        cluster.do(SetNodeFlags(tag=tag, flags=("OutOfCpuCredits",)))
    assert decide(cluster.record, facts(well("B"))).topologies == ()
    assert topology_after(cluster, facts(silent("B"))).rehabs == ("B",), "a lost one goes nevertheless"


def test_a_member_that_is_short_stays_when_the_only_other_one_is_drained() -> None:
    cluster = group("A", "B")
    cluster.do(SetNodeFlags(tag="A", flags=("OutOfCpuCredits",)))
    cluster.do(SetDraining(tag="B", draining=True))
    assert topology_after(cluster, facts(well("B"))).rehabs == ()
