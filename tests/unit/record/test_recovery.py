"""The record of a cluster that begins again with one node."""

from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    Checkpoint,
    ProgressMade,
    SetDraining,
    SetNodeKind,
    SuspendObserver,
)
from raftnode.record.model import (
    GENERATION_STRIDE,
    Database,
    Progress,
    PromotionStatus,
    Record,
    Topology,
    TopologyStamp,
)
from raftnode.record.observer_memory import DECISIONS_MAX, Decision, ObserverMemory
from raftnode.record.recovery import GENERATION_BY_CLOCK_MAX, raised, recovered, restored, without_copy
from tests.unit.record.build import KIND, RecordCluster, node

AT = "2026-11-21T08:00:00.0000000Z"


def shop() -> RecordCluster:
    """Three nodes; A has a copy of Northwind that B fills, Elsewhere is on B and C, B and C hold a task each."""
    cluster = RecordCluster("A", "B", "C")
    cluster.create("B", "C")
    cluster.do(AddDatabaseNode(name="Northwind", tag="A", mentor="B"))
    cluster.create("B", "C", name="Elsewhere")
    for name, tag in (("orders", "B"), ("lines", "C")):
        cluster.task(name, mentor=tag)
        cluster.do(cluster.claim(tag, name))
    return cluster


def forced(cluster: RecordCluster) -> RecordCluster:
    """The cluster after A began it anew."""
    record = cluster.record
    generation = raised(record.generation, 0)
    cluster.record = recovered(record, "A", index=record.index + 1, term=4, generation=generation, at=AT)
    return cluster


def test_a_generation_is_above_the_former_one_and_above_what_was_made_before_this_minute() -> None:
    assert raised(0, -5) == 1
    assert raised(7, 3) == 8
    assert raised(7, 900) == 900
    assert raised(7, 8) == raised(7, 7) == 8
    assert raised(0, GENERATION_BY_CLOCK_MAX) == GENERATION_BY_CLOCK_MAX == 2**22
    assert raised(0, GENERATION_BY_CLOCK_MAX + 1) == GENERATION_BY_CLOCK_MAX
    assert raised(GENERATION_BY_CLOCK_MAX, 10**12) == GENERATION_BY_CLOCK_MAX + 1
    assert (raised(0, 10**12) + 1) * GENERATION_STRIDE < 2**63


def test_by_force_the_survivor_is_alone_and_the_member_of_what_it_has_a_copy_of() -> None:
    cluster = shop()
    assert without_copy(cluster.record, "A") == ["Elsewhere"]
    record = forced(cluster).record
    assert list(record.nodes) == ["A"]
    assert record.cluster_id == "c1"
    assert list(record.databases) == ["northwind"]
    topology = record.databases["northwind"].topology
    assert (topology.members, topology.rehabs, topology.promotables) == (("A",), (), ())
    assert not topology.predefined_mentors
    assert record.databases["northwind"].etag == topology.stamp.index == record.index
    assert topology.stamp.term == 4
    assert record.observer.decisions[-1].message == (
        "Node A started the cluster again by itself, as an operator forced it after the loss of a majority. Nodes that "
        "are gone: B, C. Databases without a copy here, which are gone: Elsewhere."
    )


def with_a_group_of_every_state() -> Record:
    cluster = shop()
    cluster.create("A", "B", name="Both")
    cluster.do(SuspendObserver(suspended=True), request_id="r1")
    group = Topology(
        members=("B",),
        promotables=("C",),
        rehabs=("A",),
        predefined_mentors=Map({"C": "B"}),
        demotion_reasons=Map({"A": "silent"}),
        promotables_status=Map[str, PromotionStatus](C="Ok"),
        priority_order=("A", "B"),
    )
    both = replace(cluster.database("Both"), topology=group, deletion_in_progress=Map({"A": "HardDelete"}))
    return replace(cluster.record, generation=2, databases=cluster.record.databases.set("both", both))


def test_by_force_only_the_nodes_the_groups_and_the_claims_change() -> None:
    before = with_a_group_of_every_state()
    index = before.index + 1
    assert recovered(before, "A", index=index, term=4, generation=3, at=AT) == replace(
        before,
        index=index,
        generation=3,
        nodes=Map({"A": replace(before.nodes["A"], placement_index=index)}),
        databases=Map(
            {
                folded: replace(
                    database,
                    etag=index,
                    deletion_in_progress=Map(),
                    topology=Topology(
                        members=("A",),
                        replication_factor=database.topology.replication_factor,
                        stamp=TopologyStamp(index=index, term=4),
                    ),
                )
                for folded, database in before.databases.items()
                if folded != "elsewhere"
            }
        ),
        claims=Map(
            {
                key: replace(claim, state="Void", reason="the cluster was started again by force")
                for key, claim in before.claims.items()
            }
        ),
        held=Map(),
        observer=ObserverMemory(
            suspended=True,
            decisions=(
                Decision(
                    index=index,
                    iteration=0,
                    at=AT,
                    database="",
                    message="Node A started the cluster again by itself, as an operator forced it after the loss of a "
                    "majority. Nodes that are gone: B, C. Databases without a copy here, which are gone: Elsewhere.",
                    term=4,
                ),
            ),
        ),
    )


def test_what_is_gone_is_named_in_order_or_as_none() -> None:
    cluster = RecordCluster("A", *"KCGDEHFIBJ")
    for name in "QWERTZUIOP":
        cluster.create("C", "B", name=name)
    assert without_copy(cluster.record, "A") == list("EIOPQRTUWZ")
    for tags, said in (
        (
            "AKCGDEHFIBJ",
            "Nodes that are gone: B, C, D, E, F, G, H, I, J, K. Databases without a copy here, which are gone: "
            "E, I, O, P, Q, R, T, U, W, Z.",
        ),
        ("A", "Nodes that are gone: none. Databases without a copy here, which are gone: none."),
    ):
        nodes = Map({tag: cluster.record.nodes[tag] for tag in tags})
        databases = cluster.record.databases if len(tags) > 1 else Map[str, Database]()
        record = replace(cluster.record, nodes=nodes, databases=databases)
        message = recovered(record, "A", index=9, term=1, generation=1, at=AT).observer.decisions[-1].message
        assert message.endswith(f" {said}")


def test_from_a_snapshot_only_definitions_stay() -> None:
    cluster = shop()
    task = cluster.task_now("orders")
    progress = Progress(generation=task.id, processed=7)
    made = ProgressMade(database="Northwind", id=task.id, epoch=cluster.claimed("orders").epoch, progress=progress)
    cluster.do(Checkpoint(made=(made,)), request_id="r1")
    before = replace(cluster.record, request_first=1)
    alone = node("N", kind="Watcher")
    assert restored(before, alone, cluster_id="c2", index=50, term=3, generation=5, at=AT) == replace(
        before,
        index=50,
        cluster_id="c2",
        generation=5,
        nodes=Map({"N": replace(alone, placement_index=50)}),
        databases=Map(
            {
                folded: replace(
                    database,
                    etag=50,
                    topology=Topology(
                        members=("N",),
                        replication_factor=database.topology.replication_factor,
                        stamp=TopologyStamp(index=50, term=3),
                    ),
                    progress=Map({id: Progress(generation=id) for id in database.tasks}),
                )
                for folded, database in before.databases.items()
            }
        ),
        claims=Map(),
        held=Map(),
        observer=ObserverMemory(
            decisions=(
                Decision(
                    index=50,
                    iteration=0,
                    at=AT,
                    database="",
                    message="Node N began this cluster from a snapshot of cluster c1.",
                    term=3,
                ),
            )
        ),
        requests=Map(),
        request_order=Map(),
        request_first=0,
        request_next=0,
    )


def test_by_force_every_claim_is_void_and_the_next_has_a_higher_epoch_than_any_before() -> None:
    cluster = shop()
    before = [claim.epoch for claim in cluster.record.claims.values()]
    forced(cluster)
    assert {claim.state for claim in cluster.record.claims.values()} == {"Void"}
    assert not cluster.record.held
    epoch = cluster.do(cluster.claim("A", "orders"))
    assert epoch == GENERATION_STRIDE + cluster.record.index
    assert epoch > max(before)
    assert cluster.claimed("orders").runs[-1].reason == "the cluster was started again by force"


def test_a_released_claim_stays_what_it_is_and_one_of_a_database_that_is_gone_goes() -> None:
    cluster = shop()
    cluster.create("A", name="Other")
    key = next(iter(cluster.record.claims))
    claim = replace(cluster.record.claims[key], state="Released", reason="moved")
    cluster.record = cluster.record.with_claim(key, claim).with_claim(f"elsewhere/{KIND}/x", claim)
    forced(cluster)
    assert cluster.record.claims[key] == claim
    assert f"elsewhere/{KIND}/x" not in cluster.record.claims


def test_a_draining_watcher_that_survives_votes_and_takes_tasks() -> None:
    cluster = shop()
    cluster.do(SetNodeKind(tag="A", kind="Watcher"))
    cluster.do(SetDraining(tag="A", draining=True))
    record = forced(cluster).record
    assert (record.nodes["A"].kind, record.nodes["A"].draining) == ("Member", False)


def test_a_copy_that_was_being_deleted_as_another_took_its_place_stays() -> None:
    cluster = shop()
    leaving = replace(cluster.database(), deletion_in_progress=Map({"A": "HardDelete", "C": "HardDelete"}))
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", leaving))
    assert not forced(cluster).database().deletion_in_progress


def test_the_observer_stays_suspended_and_forgets_the_nodes_that_are_gone() -> None:
    cluster = shop()
    cluster.do(SuspendObserver(suspended=True))
    told = tuple(Decision(index=n, iteration=1, at=AT, database="", message="x") for n in range(DECISIONS_MAX))
    observer = replace(cluster.record.observer, decisions=told)
    cluster.record = replace(cluster.record, observer=observer)
    observer = forced(cluster).record.observer
    assert observer.suspended
    assert observer.decisions[:-1] == told[1:]
    assert not observer.lost_since


def test_from_a_snapshot_it_is_another_cluster_with_every_database_and_without_claims() -> None:
    cluster = shop()
    before = cluster.record
    record = restored(before, node("N"), cluster_id="c2", index=before.index, term=3, generation=5, at=AT)
    assert list(record.nodes) == ["N"]
    assert (record.cluster_id, record.generation, record.timings) == ("c2", 5, before.timings)
    assert set(record.databases) == {"northwind", "elsewhere"}
    assert all(database.topology.members == ("N",) for database in record.databases.values())
    assert [task.name for task in record.databases["northwind"].tasks.values()] == ["orders", "lines"]
    assert not record.claims
    assert not record.held
    made = record.databases["northwind"].progress
    assert {id: p.generation for id, p in made.items()} == {
        id: p.generation for id, p in before.databases["northwind"].progress.items()
    }
    assert all(progress.epoch == 0 for progress in made.values())
    assert record.observer.decisions[-1].message == "Node N began this cluster from a snapshot of cluster c1."
