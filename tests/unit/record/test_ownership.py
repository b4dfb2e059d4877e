"""The ownership function, rule by rule."""

from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    DeleteDatabase,
    NewTopology,
    ReleaseTask,
    RemoveNode,
    SetDraining,
    SetLicence,
    SetNodeTraits,
    SetTaskPin,
    SetUpdateMentor,
)
from raftnode.record.commands.observer import Decide, GraceEnd
from raftnode.record.model import KindTraits, PromotionStatus, Task, claim_key
from raftnode.record.ownership import (
    OF_REHAB,
    UPDATE_KIND,
    Placement,
    PlacementGroup,
    mentor_of,
    responsible_node,
    score,
    task_key,
    task_of,
    tasks_of,
    update_task,
)
from tests.unit.record.build import KIND, RecordCluster, node

STICKY = KindTraits(sticky=True, grace_min=30)


def three() -> RecordCluster:
    cluster = RecordCluster("A", "B", "C", "D")
    cluster.create("A", "B", "C")
    return cluster


def demote(cluster: RecordCluster, *tags: str) -> None:
    database = cluster.database()
    topology = database.topology
    cluster.do(
        Decide(
            term=cluster.term,
            iteration=1,
            at="2026-01-01T00:00:00Z",
            at_ms=1,
            topologies=(
                NewTopology(
                    database=database.name,
                    etag=database.etag,
                    topology=replace(
                        topology,
                        members=tuple(t for t in topology.members if t not in tags),
                        rehabs=(*topology.rehabs, *tags),
                    ),
                    demoted=tags,
                ),
            ),
        )
    )


def hold(cluster: RecordCluster, name: str) -> str:
    tag = cluster.placed(name).node
    assert tag is not None
    cluster.do(cluster.claim(tag, name))
    return tag


def other_than(cluster: RecordCluster, *tags: str) -> str:
    return next(t for t in cluster.database().topology.members if t not in tags)


# Rule 1


def test_scenario_06_pinned_mentor_is_responsible_in_any_state() -> None:
    cluster = three()
    cluster.task("t", mentor="B", pinned=True)
    assert cluster.placed("t").rule == "PinnedMentor"
    demote(cluster, "B")
    assert (cluster.placed("t").node, cluster.placed("t").rule) == ("B", "PinnedMentor")


def test_pinned_mentor_is_responsible_even_while_it_drains() -> None:
    cluster = three()
    cluster.task("t", mentor="B", pinned=True)
    cluster.do(SetDraining(tag="B", draining=True))
    assert cluster.placed("t").rule == "PinnedMentor"


def test_pinned_mentor_is_responsible_as_a_promotable() -> None:
    cluster = three()
    cluster.task("t", mentor="D", pinned=True)
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert cluster.placed("t").node == "D"


def test_scenario_07_pinned_mentor_outside_the_group_is_passed_over() -> None:
    cluster = three()
    cluster.task("t", mentor="D", pinned=True)
    assert cluster.placed("t").rule == "Hash"


def test_pinned_mentor_that_is_being_deleted_frees_its_task() -> None:
    cluster = three()
    cluster.task("t", mentor="B", pinned=True)
    cluster.do(DeleteDatabase(name="Northwind", from_nodes=("B",)))
    assert cluster.placed("t").node in ("A", "C")
    still_listed = replace(cluster.database(), topology=replace(cluster.database().topology, rehabs=("B",)))
    assert responsible_node(cluster.record, still_listed, cluster.task_now("t")).rule == "Hash"


# Rule 2


def test_scenario_04_05_mentor_is_responsible_while_it_is_a_member() -> None:
    cluster = three()
    cluster.task("t", mentor="C")
    assert (cluster.placed("t").node, cluster.placed("t").rule) == ("C", "Mentor")
    demote(cluster, "C")
    assert cluster.placed("t").rule == "Hash"
    assert cluster.placed("t").node != "C"


def test_mentor_that_drains_is_passed_over() -> None:
    cluster = three()
    cluster.task("t", mentor="C")
    cluster.do(SetDraining(tag="C", draining=True))
    assert cluster.placed("t").node in ("A", "B")


def test_mentor_without_the_labels_is_passed_over() -> None:
    cluster = three()
    cluster.do(SetNodeTraits(tag="A", weight=1, labels=("ssd", "eu")))
    cluster.task("t", mentor="C", requires=("ssd",))
    assert (cluster.placed("t").node, cluster.placed("t").rule) == ("A", "Hash")


# Rule 3


def test_licence_without_highly_available_tasks_keeps_the_last_holder_in_any_state() -> None:
    cluster = three()
    cluster.task("t")
    holder = hold(cluster, "t")
    demote(cluster, holder)
    assert cluster.placed("t").node != holder
    record = replace(cluster.record, highly_available_tasks=False)
    placement = responsible_node(record, cluster.database(), cluster.task_now("t"))
    assert (placement.node, placement.rule) == (holder, "LicenceKeepsLast")


def test_licence_lets_go_of_a_holder_that_left_the_group() -> None:
    cluster = three()
    cluster.task("t")
    holder = hold(cluster, "t")
    cluster.do(RemoveNode(tag=holder))
    record = replace(cluster.record, highly_available_tasks=False)
    assert responsible_node(record, cluster.database(), cluster.task_now("t")).rule == "Hash"


def test_licence_lets_go_of_a_holder_whose_copy_is_being_deleted() -> None:
    cluster = three()
    cluster.task("t")
    holder = hold(cluster, "t")
    database = replace(cluster.database(), deletion_in_progress=Map({holder: "HardDelete"}))
    record = replace(cluster.record, highly_available_tasks=False)
    placement = responsible_node(record, database, cluster.task_now("t"))
    assert placement.rule == "Hash"
    assert placement.node != holder


def test_licence_does_not_bind_the_update_of_a_node_to_a_mentor_that_is_lost() -> None:
    cluster = three()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    cluster.do(SetLicence(highly_available_tasks=False))
    mentor = mentor_of(cluster.record, cluster.database(), "D")
    assert mentor is not None
    cluster.do(replace(cluster.claim(mentor, "D"), kind=UPDATE_KIND))
    demote(cluster, mentor)
    assert mentor_of(cluster.record, cluster.database(), "D") not in (None, mentor)


# Rule 4


def sticky() -> tuple[RecordCluster, str]:
    """A sticky task whose holder is not the node the hash names."""
    cluster = three()
    cluster.task("t", traits=STICKY)
    first = cluster.placed("t").node
    assert first is not None
    holder = other_than(cluster, first)
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor=holder))
    hold(cluster, "t")
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("t").id, mentor=None))
    return cluster, holder


def test_sticky_task_stays_with_its_last_holder_after_release() -> None:
    cluster, holder = sticky()
    cluster.do(ReleaseTask(key=claim_key("Northwind", KIND, "t"), epoch=cluster.claimed("t").epoch))
    assert (cluster.placed("t").node, cluster.placed("t").rule) == (holder, "StickyHolder")


def end_grace(cluster: RecordCluster, name: str, epoch: int) -> None:
    end = GraceEnd(claim_key("Northwind", KIND, name), epoch)
    cluster.do(Decide(term=cluster.term, iteration=1, at="now", at_ms=1, graces=(end,)))


def test_sticky_task_waits_for_a_holder_in_rehab_until_its_grace_is_ended() -> None:
    cluster, holder = sticky()
    demote(cluster, holder)
    assert cluster.placed("t").rule == "StickyHolder"
    end_grace(cluster, "t", cluster.claimed("t").epoch + 1)
    assert cluster.placed("t").rule == "StickyHolder", "the grace of another epoch"
    end_grace(cluster, "nobody", 1)
    end_grace(cluster, "t", cluster.claimed("t").epoch)
    assert cluster.placed("t").rule == "Hash"


def test_sticky_task_leaves_a_draining_holder() -> None:
    cluster, holder = sticky()
    cluster.do(SetDraining(tag=holder, draining=True))
    assert cluster.placed("t").rule == "Hash"


def test_sticky_task_without_a_claim_goes_by_hash() -> None:
    cluster = three()
    cluster.task("t", traits=STICKY)
    assert cluster.placed("t").rule == "Hash"


def test_task_that_is_not_sticky_does_not_stay() -> None:
    cluster = three()
    cluster.task("t")
    holder = hold(cluster, "t")
    demote(cluster, holder)
    assert cluster.placed("t").node != holder


# Rule 5


def test_hash_names_the_member_with_the_highest_score() -> None:
    cluster = three()
    task = cluster.task("t")
    placement = cluster.placed("t")
    assert placement.rule == "Hash"
    assert placement.node == max("ABC", key=lambda tag: score(task.key, tag, 1))
    assert [r.score for r in placement.ranking] == sorted((r.score for r in placement.ranking), reverse=True)


def test_scenario_08_scores_are_the_golden_vectors() -> None:
    """RavenDB's table is that of jump consistent hashing. Here it is rendezvous hashing, which moves fewer tasks; these
    are its vectors."""
    assert score(0, "A", 1) == 3995129350463417266
    assert score(1, "A", 1) == 11009642858421713094
    assert score(1, "B", 1) == 3695675174070560259
    assert score(2**64 - 1, "ZZZZ", 1) == 15344166244157141490
    assert score(1, "B", 1) == 3695675174070560259
    assert score(1, "B", 2) == 12300044957590806646
    assert score(1, "B", 4) == 12300044957590806646
    assert score(1, "A", 0) == 0
    assert task_key("SqlEtl", "Orders", "Warehouse") == 10120943807255939652
    assert task_key("SqlEtl", "ORDERS", "Warehouse") == task_key("SqlEtl", "orders", "Warehouse")
    assert task_key("SqlEtl", "a", "bc") != task_key("SqlEtl", "ab", "c")


def test_equal_scores_go_to_the_first_tag() -> None:
    cluster = RecordCluster("B", "A")
    cluster.create("B", "A")
    cluster.task("t")
    nodes = Map({tag: replace(n, weight=0) for tag, n in cluster.record.nodes.items()})
    assert responsible_node(replace(cluster.record, nodes=nodes), cluster.database(), cluster.task_now("t")).node == "A"


def test_scenario_13_14_resource_heavy_task_leaves_out_the_preferred_node_if_another_is_eligible() -> None:
    cluster = three()
    heavy = KindTraits(resource_heavy=True)
    for i in range(20):
        cluster.task(f"t{i}", traits=heavy)
    assert {cluster.placed(f"t{i}").node for i in range(20)} == {"B", "C"}
    demote(cluster, "B")
    assert {cluster.placed(f"t{i}").node for i in range(20)} == {"C"}
    demote(cluster, "C")
    assert cluster.placed("t0").node == "A"


def test_weight_wins_in_proportion() -> None:
    cluster = RecordCluster("A", node("B", weight=3))
    cluster.create("A", "B")
    for i in range(400):
        cluster.task(f"t{i}")
    won = sum(cluster.placed(f"t{i}").node == "B" for i in range(400))
    assert 260 < won < 340


def test_nodes_that_report_no_runner_are_passed_over_and_named() -> None:
    cluster = three()
    cluster.task("t", kind="OlapEtl")
    for tag in "AB":
        cluster.announce(tag, kinds=(KIND,))
    assert cluster.placed("t").node == "C"
    assert {r.node: r.ruled_out for r in cluster.placed("t").ranking} == {"A": "NoRunner", "B": "NoRunner", "C": None}
    cluster.announce("C", kinds=())
    assert (cluster.placed("t").node, cluster.placed("t").rule) == (None, "NoRunner")


# Rule 6


def test_scenario_11_nobody_is_responsible_without_a_member() -> None:
    cluster = three()
    cluster.task("t")
    demote(cluster, "A", "B", "C")
    assert cluster.placed("t") == Placement(node=None, rule="NoMember", ranking=cluster.placed("t").ranking)
    assert {r.ruled_out for r in cluster.placed("t").ranking} == {"Rehab"}


def test_the_ranking_names_what_rules_a_node_out() -> None:
    cluster = three()
    cluster.task("t", requires=("ssd",))
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    cluster.do(SetDraining(tag="A", draining=True))
    database = replace(cluster.database(), deletion_in_progress=Map({"B": "HardDelete"}))
    record = replace(cluster.record, nodes=cluster.record.nodes.set("E", node("E")))
    database = replace(database, topology=replace(database.topology, members=("A", "B", "C", "Z")))
    placement = responsible_node(record, database, cluster.task_now("t"))
    assert {r.node: r.ruled_out for r in placement.ranking} == {
        "A": "Draining",
        "B": "DeletionInProgress",
        "C": "LabelsMissing",
        "D": "Promotable",
        "Z": "NotInCluster",
    }
    key = cluster.task_now("t").key
    assert {r.node: r.score for r in placement.ranking} == {tag: score(key, tag, 1) for tag in "ABCDZ"}


# Updates of Promotables


def test_a_promotable_is_filled_by_one_member_and_by_its_chosen_mentor_if_it_has_one() -> None:
    cluster = RecordCluster("A", "B", "C", "D", "E")
    cluster.create("A", "B", "C")
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    cluster.do(AddDatabaseNode(name="Northwind", tag="E", mentor="B"))
    assert mentor_of(cluster.record, cluster.database(), "D") in ("A", "B", "C")
    assert mentor_of(cluster.record, cluster.database(), "E") == "B"
    assert update_task(cluster.record, cluster.database(), "E").mentor == "B"
    demote(cluster, "B")
    assert mentor_of(cluster.record, cluster.database(), "E") in ("A", "C")
    assert mentor_of(replace(cluster.record, nodes=Map()), cluster.database(), "E") is None


def test_a_rehab_is_updated_by_one_member_too_unless_it_is_lost_or_leaves() -> None:
    cluster = three()
    demote(cluster, "C")
    with_status(cluster, "NotResponding")
    assert tasks_of(cluster.record, cluster.database()) == []
    assert task_of(cluster.record, claim_key("Northwind", UPDATE_KIND, "C")) is None
    with_status(cluster, "ChangeVectorNotMerged")
    [update] = tasks_of(cluster.record, cluster.database())
    assert (update.kind, update.name, update.configuration) == (UPDATE_KIND, "C", OF_REHAB)
    assert responsible_node(cluster.record, cluster.database(), update).node in ("A", "B")
    assert task_of(cluster.record, claim_key("Northwind", UPDATE_KIND, "C")) == (cluster.database(), update)
    database = replace(cluster.database(), deletion_in_progress=Map({"C": "HardDelete"}))
    assert tasks_of(cluster.record, database) == []
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert [task.name for task in tasks_of(cluster.record, cluster.database())] == ["D", "C"]
    assert update_task(cluster.record, cluster.database(), "D").configuration == b"{}"


def with_status(cluster: RecordCluster, status: PromotionStatus) -> None:
    """C's status in the group is this one."""
    topology = replace(cluster.database().topology, promotables_status=Map({"C": status}))
    changed = replace(cluster.database(), topology=topology)
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", changed))


def test_the_mentor_of_an_update_is_the_one_that_a_user_prefers_as_long_as_it_is_a_member() -> None:
    cluster = three()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    for mentor in "ABC":
        cluster.do(SetUpdateMentor(name="northwind", tag="D", mentor=mentor))
        assert mentor_of(cluster.record, cluster.database(), "D") == mentor
        assert cluster.database().topology.stamp.index == cluster.record.index
    demote(cluster, "C")
    assert mentor_of(cluster.record, cluster.database(), "D") in ("A", "B")
    cluster.do(SetUpdateMentor(name="Northwind", tag="C", mentor="B"))
    assert mentor_of(cluster.record, cluster.database(), "C") == "B"
    for tag in "CDC":
        cluster.do(SetUpdateMentor(name="Northwind", tag=tag))
    assert cluster.database().topology.predefined_mentors == Map()
    refused = cluster.refused(SetUpdateMentor(name="Northwind", tag="D", mentor="C"))
    assert refused == "BadRequestException: Mentor 'C' is not a Member of 'Northwind'. Members: A, B."
    refused = cluster.refused(SetUpdateMentor(name="Northwind", tag="A", mentor="B"))
    assert refused == "BadRequestException: Node 'A' is a Member of 'Northwind': nobody updates it."
    refused = cluster.refused(SetUpdateMentor(name="Northwind", tag="Z"))
    assert refused == "BadRequestException: Node 'Z' is not in the group of 'Northwind': nobody updates it."


def test_the_key_of_an_update_is_the_golden_vector_and_changes_with_the_nodes_address() -> None:
    cluster = three()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    database = cluster.database()
    expected = Task(id=0, name="D", kind=UPDATE_KIND, key=task_key(UPDATE_KIND, "D", "http://d:8080", "northwind"))
    assert update_task(cluster.record, database, "D") == expected
    assert expected.key == 1528484994618311060
    assert update_task(cluster.record, database, "Z").key == task_key(UPDATE_KIND, "Z", "", "northwind")


def test_a_claims_key_finds_its_task_whatever_the_name_holds() -> None:
    cluster = three()
    task = cluster.task("a/b/c", mentor="A")
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    database = cluster.database()
    assert task_of(cluster.record, claim_key("Northwind", KIND, "A/b/C")) == (database, task)
    update = update_task(cluster.record, database, "D")
    assert task_of(cluster.record, claim_key("Northwind", UPDATE_KIND, "D")) == (database, update)
    for key in ("nowhere/SqlEtl/a/b/c", "northwind/Other/a/b/c", "northwind/SqlEtl/a", "northwind/Update/a"):
        assert task_of(cluster.record, key) is None
    epoch = cluster.do(cluster.claim("A", "a/b/c"))
    cluster.do(ReleaseTask(key="", epoch=epoch))
    assert cluster.claimed("a/b/c").state == "Released"


def test_every_node_can_fill_a_promotable_whatever_kinds_it_has_announced() -> None:
    cluster = three()
    for tag in "ABC":
        cluster.announce(tag, kinds=())
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    assert mentor_of(cluster.record, cluster.database(), "D") in ("A", "B", "C")


def test_the_tasks_of_a_database_are_the_ongoing_ones_and_the_updates() -> None:
    cluster = three()
    cluster.task("second")
    cluster.task("first")
    cluster.do(AddDatabaseNode(name="Northwind", tag="D"))
    listed = [(t.kind, t.name) for t in tasks_of(cluster.record, cluster.database())]
    assert listed == [(KIND, "second"), (KIND, "first"), (UPDATE_KIND, "D")]
    for number in range(40):
        cluster.task(f"t{number}")
    ids = [task.id for task in tasks_of(cluster.record, cluster.database())]
    assert ids == [*sorted(cluster.database().tasks), 0]


def test_a_group_answers_about_any_number_of_tasks_as_if_asked_about_each_alone() -> None:
    cluster = three()
    kinds = [KindTraits(), KindTraits(resource_heavy=True), STICKY]
    tasks = [
        cluster.task(f"t{i}", key=i, traits=kinds[i % 3], requires=("ssd",) if i % 4 == 0 else ()) for i in range(40)
    ]
    cluster.do(SetNodeTraits(tag="B", weight=2, labels=("ssd",)))
    group = PlacementGroup(cluster.record, cluster.database())
    alone = [responsible_node(cluster.record, cluster.database(), task) for task in tasks]
    assert [group.place(task) for task in tasks] == [(placed.node, placed.rule) for placed in alone]
    assert [group.rank(task) for task in tasks] == [placed.ranking for placed in alone]
