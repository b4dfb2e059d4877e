"""Commands about databases, connection strings, indexes and tasks."""

from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    AddDatabaseNode,
    Command,
    ConfirmDeletion,
    CreateDatabase,
    DeleteConnectionString,
    DeleteDatabase,
    DeleteIndex,
    DeleteTask,
    PromoteDatabaseNode,
    PutConnectionString,
    PutIndex,
    PutTask,
    ReorderMembers,
    RetryFailed,
    SetDatabaseState,
    SetDraining,
    SetDynamicDistribution,
    SetLockMode,
    SetTaskPin,
    SetTaskState,
)
from raftnode.record.commands import databases as database_commands
from raftnode.record.commands import tasks as task_commands
from raftnode.record.model import NAME_LENGTH_MAX, RESETS_KEPT_MAX, Database, Topology, TopologyStamp
from tests.unit.record.build import KIND, RecordCluster


def abc() -> RecordCluster:
    cluster = RecordCluster("A", "B", "C", "D")
    cluster.create("A", "B", "C")
    return cluster


@pytest.mark.parametrize(
    ("name", "of_a_task", "of_a_database"),
    [
        ("a_b-c.D9", True, True),
        ("Ä", True, True),
        ("x" * NAME_LENGTH_MAX, True, True),
        ("a b", True, False),
        ("a/b", True, False),
        (".hidden", True, False),
        ("X%~", True, False),
        ("", False, False),
        (" ", False, False),
        (" x", False, False),
        ("x\n", False, False),
        ("a\x1fb", False, False),
        ("a\x7fb", False, False),
        ("x" * (NAME_LENGTH_MAX + 1), False, False),
    ],
)
def test_a_name_is_whole_and_printable_and_that_of_a_database_is_a_safe_file_name_too(
    name: str, of_a_task: bool, of_a_database: bool
) -> None:
    cluster = abc()
    for command, fits in ((put(name=name), of_a_task), (CreateDatabase(name=name, nodes=("A",)), of_a_database)):
        error = cluster.apply(command).result.error
        assert (error is None) == fits
        assert error is None or error.type == "BadRequestException"


def test_a_database_lands_on_the_nodes_that_hold_the_fewest_and_do_not_drain() -> None:
    cluster = RecordCluster("A", "B", "C")
    cluster.create("A", name="One")
    cluster.do(SetDraining(tag="B", draining=True))
    assert cluster.do(CreateDatabase(name="Two", replication_factor=2)) == ["C", "A"]
    assert "must be 1 to 3" in cluster.refused(CreateDatabase(name="Three", replication_factor=4))
    assert "must be 1 to 3" in cluster.refused(CreateDatabase(name="Three", replication_factor=0))
    assert cluster.do(CreateDatabase(name="Three", replication_factor=3)) == ["C", "A", "B"]
    assert cluster.do(CreateDatabase(name="Four")) == ["C"]


def test_a_database_begins_with_what_its_creation_names() -> None:
    cluster = RecordCluster("A", "B", term=3)
    create = CreateDatabase(
        name="Northwind",
        nodes=("B", "A"),
        dynamic_nodes_distribution=True,
        settings=Map({"Indexing.Disable": "true"}),
        topology_id="abc",
        at="now",
    )
    assert cluster.do(create) == ["B", "A"]
    index = cluster.record.index
    assert cluster.database() == Database(
        name="Northwind",
        etag=index,
        settings=Map({"Indexing.Disable": "true"}),
        topology=Topology(
            members=("B", "A"),
            replication_factor=2,
            dynamic_nodes_distribution=True,
            stamp=TopologyStamp(index=index, term=3),
            nodes_modified_at="now",
            database_topology_id_base64="abc",
        ),
    )


GROUP = Topology(members=("A", "B", "C"), replication_factor=3)
LEAVING = replace(GROUP, members=("A",), rehabs=("B",), promotables=("D",))

GROUPS: list[tuple[Topology, dict[str, str], Command, Topology, dict[str, str], Any]] = [
    # The group and what is being deleted before; the command; both after, and the value of the answer.
    (
        GROUP,
        {},
        AddDatabaseNode(name="northwind", tag="D", mentor="B"),
        replace(
            GROUP,
            promotables=("D",),
            replication_factor=4,
            predefined_mentors=Map({"D": "B"}),
            promotables_status=Map({"D": "WaitingForFirstPromotion"}),
        ),
        {},
        ["A", "B", "C", "D"],
    ),
    (
        replace(GROUP, members=("A", "B"), promotables=("C",)),
        {},
        AddDatabaseNode(name="Northwind", tag="D"),
        replace(
            GROUP,
            members=("A", "B"),
            promotables=("C", "D"),
            replication_factor=4,
            promotables_status=Map({"D": "WaitingForFirstPromotion"}),
        ),
        {},
        ["A", "B", "C", "D"],
    ),
    (
        replace(LEAVING, priority_order=("A", "D"), predefined_mentors=Map({"D": "A"})),
        {},
        PromoteDatabaseNode(name="northwind", tag="D"),
        replace(LEAVING, members=("A", "D"), promotables=(), priority_order=("A", "D")),
        {},
        ["A", "D", "B"],
    ),
    (
        LEAVING,
        {},
        PromoteDatabaseNode(name="Northwind", tag="B"),
        replace(LEAVING, members=("A", "B"), rehabs=()),
        {},
        ["A", "B", "D"],
    ),
    (
        GROUP,
        {},
        ReorderMembers(name="northwind", members=("C", "A", "B"), fixed=True),
        replace(GROUP, members=("C", "A", "B"), priority_order=("C", "A", "B")),
        {},
        ["C", "A", "B"],
    ),
    (
        replace(LEAVING, priority_order=("A",)),
        {},
        ReorderMembers(name="Northwind", members=("A",)),
        LEAVING,
        {},
        ["A", "B", "D"],
    ),
    (
        GROUP,
        {},
        DeleteDatabase(name="northwind", from_nodes=("C", "B", "C")),
        replace(GROUP, members=("A",), replication_factor=1),
        {"B": "SoftDelete", "C": "SoftDelete"},
        ["B", "C"],
    ),
    (
        GROUP,
        {},
        DeleteDatabase(name="Northwind", hard_delete=True),
        replace(GROUP, members=(), replication_factor=1),
        {"A": "HardDelete", "B": "HardDelete", "C": "HardDelete"},
        ["A", "B", "C"],
    ),
    (
        LEAVING,
        {"B": "HardDelete"},
        DeleteDatabase(name="Northwind", from_nodes=("B", "D")),
        replace(LEAVING, rehabs=(), promotables=(), replication_factor=2),
        {"B": "SoftDelete", "D": "SoftDelete"},
        ["B", "D"],
    ),
    (
        LEAVING,
        {"B": "HardDelete", "C": "HardDelete"},
        ConfirmDeletion(name="northwind", tag="B"),
        replace(LEAVING, rehabs=()),
        {"C": "HardDelete"},
        None,
    ),
    (
        replace(LEAVING, promotables=(), rehabs=()),
        {"B": "HardDelete"},
        ConfirmDeletion(name="Northwind", tag="B"),
        replace(LEAVING, promotables=(), rehabs=()),
        {},
        None,
    ),
]


@pytest.mark.parametrize(("group", "deleted", "command", "group_after", "deleted_after", "value"), GROUPS)
def test_a_command_changes_a_group_in_just_this_way(
    group: Topology,
    deleted: dict[str, str],
    command: Command,
    group_after: Topology,
    deleted_after: dict[str, str],
    value: Any,
) -> None:
    cluster = RecordCluster("A", "B", "C", "D", term=5)
    before = replace(cluster.create("A"), topology=group, deletion_in_progress=Map(deleted))
    cluster.record = replace(cluster.record, databases=Map({"northwind": before}))
    assert cluster.do(command) == value
    index = cluster.record.index
    # Whoever is asked for a group sees by its stamp that it is a newer one.
    stamp = group.stamp if group_after == group else TopologyStamp(index=index, term=5)
    topology = replace(group_after, stamp=stamp)
    deletion = Map(deleted_after)
    assert cluster.database() == replace(before, topology=topology, deletion_in_progress=deletion, etag=index)


def test_a_database_is_created_once_and_on_known_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = abc()
    assert "exists already" in cluster.refused(CreateDatabase(name="NORTHWIND", nodes=("A",)))
    assert "names a node twice" in cluster.refused(CreateDatabase(name="x", nodes=("A", "A")))
    assert "'Z' is not in the cluster" in cluster.refused(CreateDatabase(name="x", nodes=("Z",)))
    monkeypatch.setattr(database_commands, "DATABASES_MAX", 1)
    assert "at most 1 databases" in cluster.refused(CreateDatabase(name="x", nodes=("A",)))


def test_a_copy_is_deleted_from_a_node_and_the_factor_falls() -> None:
    cluster = abc()
    assert "does not hold" in cluster.refused(DeleteDatabase(name="Northwind", from_nodes=("D",)))
    assert cluster.do(DeleteDatabase(name="Northwind", from_nodes=("C",), hard_delete=True)) == ["C"]
    database = cluster.database()
    assert (database.topology.members, database.topology.replication_factor) == (("A", "B"), 2)
    assert database.deletion_in_progress["C"] == "HardDelete"
    assert "still deletes" in cluster.refused(AddDatabaseNode(name="Northwind", tag="C"))
    before = cluster.record.databases
    cluster.do(ConfirmDeletion(name="Northwind", tag="B"))
    cluster.do(ConfirmDeletion(name="Nowhere", tag="B"))
    assert cluster.record.databases == before
    cluster.do(ConfirmDeletion(name="Northwind", tag="C"))
    assert not cluster.database().deletion_in_progress


def test_a_database_goes_with_the_last_confirmation() -> None:
    cluster = abc()
    cluster.do(DeleteDatabase(name="Northwind"))
    for tag in "AB":
        cluster.do(ConfirmDeletion(name="Northwind", tag=tag))
    assert set(cluster.database().deletion_in_progress) == {"C"}
    cluster.do(ConfirmDeletion(name="Northwind", tag="C"))
    assert cluster.record.database("Northwind") is None
    assert "does not exist" in cluster.refused(DeleteDatabase(name="Northwind"))


def test_a_locked_database_is_not_deleted() -> None:
    cluster = abc()
    cluster.do(SetLockMode(name="Northwind", mode="PreventDeletesError"))
    assert "locked" in cluster.refused(DeleteDatabase(name="Northwind"))
    cluster.do(SetLockMode(name="Northwind", mode="PreventDeletesIgnore"))
    assert cluster.do(DeleteDatabase(name="Northwind")) == []
    assert not cluster.database().deletion_in_progress


def test_a_node_joins_the_group_as_a_promotable() -> None:
    cluster = abc()
    assert "holds database" in cluster.refused(AddDatabaseNode(name="Northwind", tag="A"))
    assert "Members: A, B, C" in cluster.refused(AddDatabaseNode(name="Northwind", tag="D", mentor="D"))
    cluster.do(AddDatabaseNode(name="Northwind", tag="D", mentor="B"))
    topology = cluster.database().topology
    assert (topology.promotables, topology.replication_factor) == (("D",), 4)
    assert topology.predefined_mentors["D"] == "B"
    assert topology.promotables_status["D"] == "WaitingForFirstPromotion"
    assert topology.stamp.index == cluster.record.index


def test_a_group_without_a_member_says_so() -> None:
    cluster = abc()
    group = replace(cluster.database(), topology=Topology(rehabs=("A",)))
    cluster.record = replace(cluster.record, databases=Map({"northwind": group}))
    none = "BadRequestException: Mentor 'A' is not a Member of 'Northwind'. Members: none."
    assert cluster.refused(AddDatabaseNode(name="Northwind", tag="B", mentor="A")) == none
    none = "BadRequestException: MembersOrder must name each Member once: none."
    assert cluster.refused(ReorderMembers(name="Northwind", members=("A",))) == none


def test_a_user_promotes_a_node_at_once() -> None:
    cluster = abc()
    cluster.do(AddDatabaseNode(name="Northwind", tag="D", mentor="B"))
    cluster.do(ReorderMembers(name="Northwind", members=("C", "A", "B"), fixed=True))
    assert "does not hold" in cluster.refused(PromoteDatabaseNode(name="Northwind", tag="Z"))
    cluster.do(PromoteDatabaseNode(name="Northwind", tag="D"))
    topology = cluster.database().topology
    assert topology.members == ("C", "A", "B", "D")
    assert not topology.promotables_status
    assert topology.priority_order == ("C", "A", "B")
    before = cluster.database()
    cluster.do(PromoteDatabaseNode(name="Northwind", tag="D"))
    assert cluster.database() is before


def test_members_are_reordered_and_fixed_only_on_request() -> None:
    cluster = abc()
    cluster.do(ReorderMembers(name="Northwind", members=("C", "A", "B")))
    assert cluster.database().topology.members == ("C", "A", "B")
    assert cluster.database().topology.priority_order == ()
    cluster.do(ReorderMembers(name="Northwind", members=("B", "C", "A")))
    assert cluster.database().topology.members == ("B", "C", "A"), "whatever order they had"
    assert "each Member once" in cluster.refused(ReorderMembers(name="Northwind", members=("C", "A")))


def test_state_and_distribution_are_kept() -> None:
    cluster = abc()
    cluster.do(SetDatabaseState(name="Northwind", disabled=True))
    cluster.do(SetDynamicDistribution(name="Northwind", enable=True))
    assert cluster.database().disabled
    assert cluster.database().topology.dynamic_nodes_distribution
    assert cluster.database().etag == cluster.record.index


def test_indexes_are_put_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = abc()
    put = PutIndex(database="Northwind", name="Orders/ByDate", definition=b"{}")
    cluster.do(put)
    assert cluster.database().indexes["orders/bydate"].etag == cluster.record.index
    monkeypatch.setattr(database_commands, "INDEXES_MAX", 1)
    cluster.do(put)
    refused = cluster.refused(replace(put, name="Other"))
    assert refused == "LimitExceededException: A database holds at most 1 indexes."
    assert "must not be empty" in cluster.refused(replace(put, name=""))
    cluster.do(DeleteIndex(database="Northwind", name="ORDERS/BYDATE"))
    cluster.do(DeleteIndex(database="Northwind", name="ORDERS/BYDATE"))
    assert not cluster.database().indexes


def test_connection_strings_are_put_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = abc()
    cluster.connection("Warehouse")
    cluster.connection("warehouse")
    assert "of type Sql" in cluster.refused(
        PutConnectionString(database="Northwind", name="Warehouse", type="Raven", configuration=b"{}")
    )
    monkeypatch.setattr(task_commands, "CONNECTION_STRINGS_MAX", 1)
    assert "at most 1 connection strings" in cluster.refused(
        PutConnectionString(database="Northwind", name="Other", type="Sql", configuration=b"{}")
    )
    cluster.task("t", connection_string="WAREHOUSE")
    delete = DeleteConnectionString(database="Northwind", name="Warehouse")
    assert "is used by: t" in cluster.refused(delete)
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
    cluster.do(delete)
    cluster.do(delete)
    assert not cluster.database().connection_strings


def put(**fields: Any) -> PutTask:
    defaults: dict[str, Any] = {"database": "Northwind", "name": "t", "kind": KIND, "key": 1}
    return PutTask(**(defaults | fields))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "must not be empty"),
        ({"name": "line\n2"}, "control characters"),
        ({"kind": "Update"}, "not a kind of ongoing task"),
        ({"kind": "a/b"}, "not a kind of ongoing task"),
        ({"kind": ""}, "not a kind of ongoing task"),
        ({"key": -1}, "key -1 is out of range"),
        ({"connection_string": "Nowhere"}, "does not exist. Create it"),
        ({"id": 77}, "has no task 77"),
        ({"database": "Nowhere"}, "does not exist"),
    ],
)
def test_a_task_that_could_not_run_is_refused(fields: dict[str, Any], reason: str) -> None:
    assert reason in abc().refused(put(**fields))


def test_a_task_keeps_id_and_progress_through_edits() -> None:
    cluster = abc()
    id = cluster.do(put())
    progress = cluster.database().progress
    first = cluster.task_now("t")
    assert first.id == id == cluster.record.index
    assert cluster.do(put(id=id, etag=first.etag, mentor="B")) == id
    assert cluster.task_now("t").etag == cluster.record.index
    assert cluster.database().progress == progress
    assert "edited meanwhile" in cluster.refused(put(id=id, etag=first.etag))
    assert "stays so" in cluster.refused(put(id=id, kind="RavenEtl"))
    assert f"used by task {id}" in cluster.refused(put(name="T"))


def test_a_task_cannot_take_the_name_of_another() -> None:
    cluster = abc()
    cluster.do(put())
    other = cluster.do(put(name="other"))
    assert "Choose another name" in cluster.refused(put(id=other))


def test_a_database_has_a_limit_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_commands, "TASKS_PER_DATABASE_MAX", 1)
    cluster = abc()
    id = cluster.do(put())
    assert "at most 1 tasks" in cluster.refused(put(name="other"))
    cluster.do(put(id=id, name="renamed"))


def test_state_is_an_edit_and_a_pin_is_none() -> None:
    cluster = abc()
    id = cluster.do(put())
    cluster.do(SetTaskPin(database="Northwind", id=id, mentor="B", pinned=True))
    task = cluster.task_now("t")
    assert (task.mentor, task.pinned, task.etag) == ("B", True, id)
    cluster.do(SetTaskState(database="Northwind", id=id, disabled=True))
    assert cluster.task_now("t").disabled
    assert cluster.task_now("t").etag == cluster.record.index
    assert "has no task 5000" in cluster.refused(SetTaskState(database="Northwind", id=5000, disabled=True))


def test_a_transform_that_is_reset_alone_leaves_the_progress_and_is_remembered_until_the_task_is_reset() -> None:
    cluster = abc()
    id = cluster.do(put())
    before = cluster.record.databases["northwind"].progress[id]

    def edited(**fields: Any) -> tuple[int, dict[str, int]]:
        cluster.do(put(id=id, **fields))
        return cluster.record.index, dict(cluster.task_now("t").resets)

    first, resets = edited(reset_transforms=("One", "two"))
    assert resets == {"one": first, "two": first}
    second, resets = edited(reset_transforms=("TWO",))
    assert resets == {"one": first, "two": second} == edited()[1]
    assert cluster.record.databases["northwind"].progress[id] == before
    names = [f"n{number:03}" for number in range(RESETS_KEPT_MAX - 1)]
    third, resets = edited(reset_transforms=tuple(names))
    assert resets == dict.fromkeys(names, third) | {"two": second}
    assert edited(reset=True)[1] == {}
    assert cluster.record.databases["northwind"].progress[id].generation == cluster.record.index


def test_a_retry_of_failed_documents_is_remembered_through_edits() -> None:
    cluster = abc()
    id = cluster.do(put())
    assert cluster.do(RetryFailed(database="northwind", id=id)) == id
    asked = cluster.record.index
    assert (cluster.task_now("t").retry, cluster.task_now("t").etag) == (asked, asked)
    cluster.do(put(id=id))
    assert cluster.task_now("t").retry == asked
    assert "has no task 5000" in cluster.refused(RetryFailed(database="Northwind", id=5000))


def test_a_deleted_task_goes_with_its_progress() -> None:
    cluster = abc()
    id = cluster.do(put())
    cluster.do(DeleteTask(database="Northwind", id=id))
    assert not cluster.database().tasks
    assert not cluster.database().progress
    assert "has no task" in cluster.refused(DeleteTask(database="Northwind", id=id))
    database = cluster.database()
    cluster.do(put())
    bare = replace(cluster.database(), progress=database.progress)
    cluster.record = replace(cluster.record, databases=cluster.record.databases.set("northwind", bare))
    cluster.do(DeleteTask(database="Northwind", id=cluster.task_now("t").id))
