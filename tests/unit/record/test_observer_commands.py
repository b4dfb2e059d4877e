"""What the observer writes."""

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    ConfirmDeletion,
    Decide,
    DeleteDatabase,
    NewTopology,
    PromoteDatabaseNode,
    SetDatabaseState,
)
from raftnode.record.commands import observer as observer_commands
from raftnode.record.model import Database, PromotionStatus, Topology
from tests.unit.record.build import RecordCluster

HOUR_MS = 3_600_000


def ab() -> RecordCluster:
    cluster = RecordCluster("A", "B", "C", term=4)
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
    assert (database.topology.stamp.term, database.topology.stamp.leader_wall_ms) == (4, 1000)
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
    stale = "The topology was not changed, reason ConcurrencyException: the record was edited meanwhile; decided again."
    assert told(cluster) == [("Northwind", f"{stale} It was to be: B is silent.")]
    silent = demotion(read, "B")
    assert cluster.do(replace(silent, decisions=(("Other", "A sentence."),))) == ["Northwind"]
    assert told(cluster)[1:] == [("Other", "A sentence."), ("Northwind", stale)], "also one that nothing was said of"


def told(cluster: RecordCluster) -> list[tuple[str, str]]:
    """The log of decisions: each of which database, and what."""
    return [(decision.database, decision.message) for decision in cluster.record.observer.decisions]


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
    remembered = cluster.record.observer.demotions
    as_it_is = NewTopology(database="Northwind", etag=cluster.database().etag, topology=cluster.database().topology)
    cluster.do(Decide(term=4, iteration=8, at="now", at_ms=3 * HOUR_MS, topologies=(as_it_is,)))
    assert cluster.record.observer.demotions is remembered, "only a demotion looks at those before it"
    cluster.do(demotion(cluster.database(), "A", at_ms=3 * HOUR_MS))
    assert set(cluster.record.observer.demotions) == {"northwind/A"}, "old ones of other nodes go, too"


def test_the_log_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_commands, "DECISIONS_MAX", 2)
    cluster = ab()
    for said, kept in (
        (range(1), range(1)),
        (range(1, 2), range(2)),
        (range(2, 3), range(1, 3)),
        (range(3, 7), range(5, 7)),
    ):
        sentences = tuple(("Northwind", f"sentence {i}") for i in said)
        cluster.do(Decide(term=4, iteration=1, at="now", at_ms=1, decisions=sentences))
        assert told(cluster) == [("Northwind", f"sentence {i}") for i in kept]


def test_how_long_nodes_are_lost_or_in_rehab_is_remembered_by_database() -> None:
    cluster = ab()
    cluster.create("A", "B", name="Other")
    silent = Map[str, PromotionStatus](B="NotResponding")
    lost = Topology(members=("A",), rehabs=("B",), promotables_status=silent, replication_factor=2)

    def write(name: str, topology: Topology, at_ms: int, demoted: tuple[str, ...] = ()) -> None:
        new = NewTopology(database=name, etag=cluster.database(name).etag, topology=topology, demoted=demoted)
        assert cluster.do(Decide(term=4, iteration=1, at="now", at_ms=at_ms, topologies=(new,))) == []

    write("Northwind", lost, 1, ("B",))
    write("Other", lost, 2, ("B",))
    write("Northwind", replace(lost, dynamic_nodes_distribution=True), 3)
    observer = cluster.record.observer
    assert observer.lost_since == observer.rehab_since == Map({"northwind/B": 1, "other/B": 2})
    write("Northwind", replace(lost, promotables_status=Map({"B": "Ok"})), 4)
    assert cluster.record.observer.lost_since == Map({"other/B": 2})
    assert cluster.record.observer.rehab_since == Map({"northwind/B": 1, "other/B": 2})
    cluster.do(PromoteDatabaseNode(name="Other", tag="B"))
    write("Other", lost, 5, ("B",))
    assert cluster.record.observer.lost_since == Map({"other/B": 5}), "what an edit by hand has ended is not counted"
    assert cluster.record.observer.rehab_since["other/B"] == 5


def test_a_rehab_that_is_removed_stays_listed_until_it_confirms() -> None:
    cluster = ab()
    kept = Topology(members=("A", "C"), rehabs=("B",), replication_factor=2)
    new = NewTopology(database="Northwind", etag=cluster.database().etag, topology=kept, removed=("B",))
    cluster.do(Decide(term=4, iteration=1, at="now", at_ms=1, topologies=(new,)))
    assert dict(cluster.database().deletion_in_progress) == {"B": "HardDelete"}
    assert cluster.database().topology.rehabs == ("B",)
    assert cluster.refused(PromoteDatabaseNode(name="Northwind", tag="B")) == (
        "BadRequestException: Node 'B' has been replaced in 'Northwind' and goes. Add it again when it is gone."
    )
    cluster.do(ConfirmDeletion(name="Northwind", tag="B"))
    database = cluster.database()
    assert (database.topology.all_nodes, dict(database.deletion_in_progress)) == (("A", "C"), {})
    assert database.topology.stamp.index == cluster.record.index


def test_to_delete_a_copy_that_goes_already_leaves_the_factor() -> None:
    cluster = ab()
    kept = Topology(members=("A", "C"), rehabs=("B",), replication_factor=2)
    new = NewTopology(database="Northwind", etag=cluster.database().etag, topology=kept, removed=("B",))
    cluster.do(Decide(term=4, iteration=1, at="now", at_ms=1, topologies=(new,)))
    cluster.do(DeleteDatabase(name="Northwind", from_nodes=("B",)))
    assert cluster.database().topology.replication_factor == 2
    cluster.do(DeleteDatabase(name="Northwind", from_nodes=("C",)))
    assert cluster.database().topology.replication_factor == 1
