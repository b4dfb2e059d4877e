"""What the observer writes."""

import pytest
from msgspec.structs import replace

from raftnode.record.commands import Decide, NewTopology, SetDatabaseState
from raftnode.record.commands import observer as observer_commands
from raftnode.record.model import Database, Topology
from tests.unit.record.build import Cluster

HOUR_MS = 3_600_000


def ab() -> Cluster:
    cluster = Cluster("A", "B", "C", term=4)
    cluster.create("A", "B")
    return cluster


def demotion(database: Database, tag: str, *, at_ms: int = 1000, etag: int | None = None) -> Decide:
    topology = Topology(members=("A", "B"), replication_factor=2).without(tag)
    new = NewTopology(
        database=database.name,
        etag=database.etag if etag is None else etag,
        topology=replace(topology, rehabs=(tag,)),
        demoted=(tag,),
    )
    return Decide(
        term=4, iteration=7, at="now", at_ms=at_ms, topologies=(new,), decisions=((database.name, f"{tag} is silent."),)
    )


def test_a_topology_is_written_with_its_stamp_and_its_reason() -> None:
    cluster = ab()
    assert cluster.do(demotion(cluster.database(), "B")) == []
    database = cluster.database()
    assert (database.topology.members, database.topology.rehabs) == (("A",), ("B",))
    assert database.topology.stamp.index == database.etag == cluster.record.index
    assert (database.topology.stamp.term, database.topology.stamp.leaders_ticks) == (4, 1000)
    assert database.topology.nodes_modified_at == "now"
    (decision,) = cluster.record.observer.decisions
    assert (decision.iteration, decision.term, decision.message) == (7, 4, "B is silent.")
    assert cluster.record.observer.demotions["northwind/B"] == (1000,)


def test_a_topology_read_before_another_edit_is_not_written_and_the_log_says_so() -> None:
    cluster = ab()
    read = cluster.database()
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    edited = cluster.database()
    assert cluster.do(demotion(read, "B")) == ["Northwind"]
    assert cluster.database() == edited
    assert not cluster.record.observer.demotions
    assert "ConcurrencyException" in cluster.record.observer.decisions[-1].message


def test_a_topology_of_a_database_that_is_gone_is_not_written() -> None:
    cluster = ab()
    gone = replace(cluster.database(), name="Gone")
    assert cluster.do(demotion(gone, "B")) == ["Gone"]


def test_demotions_are_remembered_for_an_hour_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_commands, "DEMOTIONS_KEPT_MAX", 3)
    cluster = ab()
    for at_ms in (1, 2, 3, 4):
        cluster.do(demotion(cluster.database(), "B", at_ms=at_ms))
    assert list(cluster.record.observer.demotions["northwind/B"]) == [2, 3, 4]
    cluster.do(demotion(cluster.database(), "B", at_ms=HOUR_MS + 3))
    assert cluster.record.observer.demotions["northwind/B"][0] == 4
    cluster.do(demotion(cluster.database(), "A", at_ms=3 * HOUR_MS))
    assert set(cluster.record.observer.demotions) == {"northwind/A"}, "old ones of other nodes go, too"


def test_the_log_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_commands, "DECISIONS_MAX", 2)
    cluster = ab()
    said = tuple(("Northwind", f"sentence {i}") for i in range(3))
    cluster.do(Decide(term=4, iteration=1, at="now", at_ms=1, decisions=said))
    assert [d.message for d in cluster.record.observer.decisions] == ["sentence 1", "sentence 2"]
