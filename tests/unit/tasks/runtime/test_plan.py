"""The supervisor's plan, one sentence of its rules a test."""

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record.commands import (
    AddDatabaseNode,
    CreateDatabase,
    Decide,
    DeleteTask,
    PromoteDatabaseNode,
    PutConnectionString,
    PutTask,
    ReleaseTask,
    SetDatabaseState,
    SetDraining,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
)
from raftnode.record.ownership import UPDATE_KIND, PlacementGroup, task_key
from tasks.runtime.plan import (
    Action,
    Assignment,
    Forget,
    OwnRun,
    PlanInput,
    ProposeClaim,
    Release,
    Start,
    Stop,
    Wait,
    action,
    assignment_of_task,
    assignments_of_node,
    held_here,
    plan,
)
from tests.unit.record.build import KIND, NONCE, RecordCluster

A = NodeIncarnation("A", "id-A", 1, NONCE)
KEY = f"northwind/{KIND}/orders"


@pytest.fixture
def cluster() -> RecordCluster:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.connection()
    cluster.task("orders", mentor="A", connection_string="Warehouse")
    return cluster


def granted(cluster: RecordCluster, session: int = 1) -> int:
    epoch: int = cluster.do(cluster.claim("A", "orders", session=session))
    return epoch


def body(cluster: RecordCluster, epoch: int, state: str = "Running", **how: object) -> dict[str, OwnRun]:
    fingerprint = assignments_of_node(cluster.record, A)[KEY].fingerprint
    fields = {"epoch": epoch, "session": 1, "fingerprint": fingerprint, "state": state} | how
    return {KEY: OwnRun(**fields)}  # type: ignore[arg-type]


def one(actions: list[Action]) -> Action:
    (action,) = actions
    return action


def test_a_task_is_claimed_by_its_responsible_node_in_its_present_session(cluster: RecordCluster) -> None:
    action = one(plan(cluster.record, A, 3, {}))
    assert isinstance(action, ProposeClaim)
    assert (action.key, action.session) == (KEY, 3)
    assert plan(cluster.record, NodeIncarnation("B", "id-B", 1, NONCE), 3, {}) == []


def test_scenario_01_nothing_is_claimed_without_a_lease_or_while_a_claim_is_on_its_way(cluster: RecordCluster) -> None:
    assert plan(cluster.record, A, None, {}) == []
    assert plan(cluster.record, A, 1, {}, claiming={KEY}) == []


def test_a_grant_of_the_present_session_starts_a_body(cluster: RecordCluster) -> None:
    epoch = granted(cluster)
    action = one(plan(cluster.record, A, 1, {}))
    assert isinstance(action, Start)
    assert (action.epoch, action.session) == (epoch, 1)


def test_a_grant_of_an_older_session_starts_nothing_and_is_claimed_again(cluster: RecordCluster) -> None:
    granted(cluster)
    assert isinstance(one(plan(cluster.record, A, 2, {})), ProposeClaim)


@pytest.mark.parametrize(
    "own", [NodeIncarnation("A", "id-A", 2, 8), NodeIncarnation("A", "id-A", 1, 8), NodeIncarnation("A", "id-A", 1, 0)]
)
def test_a_grant_to_another_process_of_this_node_is_neither_taken_up_nor_released(
    cluster: RecordCluster, own: NodeIncarnation
) -> None:
    """That process may live, on a copy of the directory."""
    epoch = granted(cluster)
    action = one(plan(cluster.record, own, 1, {}))
    assert isinstance(action, Wait)
    assert action.reason.startswith(f"start 1 of this node (this is start {own.boot}) holds epoch {epoch}")
    cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("orders").id, disabled=True))
    assert plan(cluster.record, own, 1, {}) == []
    assert isinstance(one(plan(cluster.record, A, 1, {})), Release)


def test_a_grant_to_another_data_directory_of_the_same_tag_is_not_ours(cluster: RecordCluster) -> None:
    granted(cluster)
    action = one(plan(cluster.record, NodeIncarnation("A", "id-other", 1, NONCE), 1, {}))
    assert isinstance(action, Wait)
    assert "until it is released or void" in action.reason


def test_an_epoch_that_has_run_before_is_released_and_never_started_again(cluster: RecordCluster) -> None:
    epoch = granted(cluster)
    assert plan(cluster.record, A, 1, {}, spent={epoch}) == [Release(KEY, epoch, "this epoch has run before")]


def test_a_running_body_is_left_alone_as_long_as_nothing_concerns_it(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    cluster.do(CreateDatabase(name="Other", nodes=("A",)))
    cluster.task("another", mentor="B")
    cluster.do(PutConnectionString(database="Northwind", name="unused", type="Sql", configuration=b"{}"))
    assert plan(cluster.record, A, 1, running) == []


@pytest.mark.parametrize(("session", "reason"), [(None, "the lease has ended"), (2, "session 1 has ended")])
def test_the_end_of_a_session_stops_the_body(cluster: RecordCluster, session: int | None, reason: str) -> None:
    running = body(cluster, granted(cluster))
    assert one(plan(cluster.record, A, session, running)) == Stop(KEY, reason)


def test_a_partition_tolerant_body_outlives_the_lease_and_not_its_claim(cluster: RecordCluster) -> None:
    epoch = granted(cluster)
    tolerant = body(cluster, epoch, partition_tolerant=True)
    assert plan(cluster.record, A, None, tolerant) == []
    assert plan(cluster.record, A, 2, tolerant) == []
    cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(VoidClaim(key=KEY, epoch=epoch, reason="silent"),)))
    assert isinstance(one(plan(cluster.record, A, 2, tolerant)), Stop)


@pytest.mark.parametrize("tolerant", [True, False])
def test_a_void_run_that_went_on_is_released_until_the_record_knows(cluster: RecordCluster, tolerant: bool) -> None:
    epoch = granted(cluster)
    ended = body(cluster, epoch, "Ended", partition_tolerant=tolerant)
    cluster.do(Decide(term=1, iteration=1, at="", at_ms=0, voids=(VoidClaim(key=KEY, epoch=epoch, reason="silent"),)))
    if tolerant:
        assert one(plan(cluster.record, A, 2, ended)) == Release(KEY, epoch, "the body has ended")
        cluster.do(ReleaseTask(key=KEY, epoch=epoch, ran_until="now"))
    assert one(plan(cluster.record, A, 2, ended)) == Forget(KEY)


def test_a_body_whose_claim_is_gone_stops(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    record = replace(cluster.record, claims=Map())
    assert plan(record, A, 1, running) == [Stop(KEY, f"epoch {running[KEY].epoch} is over: the claim is gone")]


def test_nothing_is_done_about_a_claim_that_is_not_there_or_another_s(cluster: RecordCluster) -> None:
    """Whoever is told that a key has changed asks about it, whosever it is."""
    seen = PlanInput(cluster.record, A, 1)
    assert action(seen, KEY, None, None) is None
    held = held_here(cluster.record, A)
    granted(cluster)
    assert (held, held_here(cluster.record, A)) == ([], [KEY])
    other = NodeIncarnation("B", "id-B", 1, NONCE)
    assert held_here(cluster.record, other) == []
    assert action(PlanInput(cluster.record, other, 1), KEY, None, None) is None


def test_a_body_whose_epoch_is_not_the_record_s_stops_at_once(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    newer = granted(cluster, session=2)
    assert one(plan(cluster.record, A, 2, running)) == Stop(
        KEY, f"epoch {running[KEY].epoch} is over: the claim is held by A's epoch {newer}"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (SetTaskPin(database="Northwind", id=0, mentor="B", pinned=True), "B is, by rule PinnedMentor"),
        (SetTaskState(database="Northwind", id=0, disabled=True), "the task is disabled"),
        (DeleteTask(database="Northwind", id=0), "the task is gone"),
        (SetDatabaseState(name="Northwind", disabled=True), "database 'northwind' is disabled"),
        (SetDraining(tag="A", draining=True), "B is, by rule Hash"),
    ],
)
def test_scenario_42_a_body_that_is_not_this_node_s_any_more_stops_with_the_reason(
    cluster: RecordCluster, command: SetTaskPin, reason: str
) -> None:
    """RavenDB lets a backup that runs finish where it is. Here it stops, as each kind does. Nothing starts elsewhere
    before it has, and what it has not finished is not whole."""
    running = body(cluster, granted(cluster))
    if hasattr(command, "id"):
        command = replace(command, id=cluster.task_now("orders").id)
    cluster.do(command)
    assert one(plan(cluster.record, A, 1, running)) == Stop(KEY, f"this node is not responsible any more: {reason}")


def test_a_body_for_which_no_node_is_responsible_stops(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    for tag in "AB":
        cluster.do(SetDraining(tag=tag, draining=True))
    assert plan(cluster.record, A, 1, running) == [
        Stop(KEY, "this node is not responsible any more: no node is, by rule NoMember")
    ]


@pytest.mark.parametrize("what", ["task", "connection string"])
def test_an_edit_restarts_the_body_under_a_new_claim(cluster: RecordCluster, what: str) -> None:
    epoch = granted(cluster)
    running = body(cluster, epoch)
    task = cluster.task_now("orders")
    if what == "task":
        fields = {f: getattr(task, f) for f in ("id", "name", "kind", "key", "mentor", "connection_string")}
        cluster.do(PutTask(database="Northwind", configuration=b'{"x":1}', **fields))
    else:
        cluster.do(PutConnectionString(database="Northwind", name="Warehouse", type="Sql", configuration=b'{"x":1}'))
    assert one(plan(cluster.record, A, 1, running)) == Stop(
        KEY, "the task or its connection string was edited, or a retry was requested"
    )
    ended = {KEY: OwnRun(epoch, 1, running[KEY].fingerprint, "Ended")}
    assert one(plan(cluster.record, A, 1, ended, spent={epoch})) == Release(KEY, epoch, "the body has ended")
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    assert one(plan(cluster.record, A, 1, ended, spent={epoch})) == Forget(KEY)
    assert isinstance(one(plan(cluster.record, A, 1, {}, spent={epoch})), ProposeClaim)


@pytest.mark.parametrize("string", ["", "Warehouse", "Gone"])
def test_a_body_starts_again_when_its_task_its_connection_string_or_its_key_changes(
    string: str, cluster: RecordCluster
) -> None:
    database = cluster.database()
    etag = database.connection_strings["warehouse"].etag if string == "Warehouse" else 0
    task = replace(cluster.task_now("orders"), connection_string=string)
    assert len({task.etag, etag, task.key}) == 3
    assert assignment_of_task(PlacementGroup(cluster.record, database), database, task, A) == Assignment(
        "Northwind", task, (task.etag, etag, task.key)
    )


def test_a_pin_alone_restarts_nothing(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    cluster.do(SetTaskPin(database="Northwind", id=cluster.task_now("orders").id, mentor="A", pinned=True))
    assert plan(cluster.record, A, 1, running) == []


def test_a_body_that_is_stopping_is_waited_for(cluster: RecordCluster) -> None:
    stopping = body(cluster, granted(cluster), "Stopping")
    assert plan(cluster.record, A, None, stopping) == []


def test_a_task_that_another_node_holds_is_waited_for(cluster: RecordCluster) -> None:
    task = cluster.task_now("orders")
    cluster.do(SetTaskPin(database="Northwind", id=task.id, mentor="B"))
    epoch = cluster.do(cluster.claim("B", "orders"))
    cluster.do(SetTaskPin(database="Northwind", id=task.id, mentor="A"))
    action = one(plan(cluster.record, A, 1, {}))
    assert isinstance(action, Wait)
    assert action.reason == f"node B holds epoch {epoch} until it is released or void"


def test_a_claim_of_an_earlier_session_that_is_not_wanted_any_more_is_released(cluster: RecordCluster) -> None:
    epoch = granted(cluster)
    cluster.do(SetTaskState(database="Northwind", id=cluster.task_now("orders").id, disabled=True))
    action = one(plan(cluster.record, A, 2, {}))
    assert isinstance(action, Release)
    assert action.epoch == epoch


def test_a_renamed_task_waits_for_the_body_under_its_old_name(cluster: RecordCluster) -> None:
    epoch = granted(cluster)
    running = body(cluster, epoch)
    task = cluster.task_now("orders")
    cluster.do(
        PutTask(database="Northwind", id=task.id, name="bills", kind=KIND, key=task_key(KIND, "bills"), mentor="A")
    )
    stop, wait = plan(cluster.record, A, 1, running)
    assert isinstance(stop, Stop)
    assert isinstance(wait, Wait)
    assert wait.key == f"northwind/{KIND}/bills"
    ended = {KEY: OwnRun(epoch, 1, running[KEY].fingerprint, "Ended")}
    release, _ = plan(cluster.record, A, 1, ended, spent={epoch})
    assert release == Release(KEY, epoch, "the body has ended")
    cluster.do(ReleaseTask(key=KEY, epoch=epoch))
    forget, claim = plan(cluster.record, A, 1, ended, spent={epoch})
    assert forget == Forget(KEY)
    assert isinstance(claim, ProposeClaim)


def test_a_claim_whose_body_stands_under_the_old_name_is_released_only_when_that_body_has_ended(
    cluster: RecordCluster,
) -> None:
    epoch = granted(cluster)
    bills = f"northwind/{KIND}/bills"
    record = replace(
        cluster.record,
        claims=cluster.record.claims.delete(KEY).set(bills, cluster.record.claims[KEY]),
        held=cluster.record.held.set(epoch, bills),
    )
    ended = body(cluster, epoch, "Ended")
    assert plan(record, A, 1, ended, assigned={}) == [Release(KEY, epoch, "the body has ended")]
    assert plan(record, A, 1, {}, assigned={}) == [
        Release(bills, epoch, "this node is not responsible, and no body of this epoch runs")
    ]


def test_a_promotable_s_update_is_a_task_of_its_mentor(cluster: RecordCluster) -> None:
    three = RecordCluster("A", "B", "C")
    three.create("A", "B")
    three.do(AddDatabaseNode(name="Northwind", tag="C", mentor="A"))
    action = one(plan(three.record, A, 1, {}))
    assert isinstance(action, ProposeClaim)
    assert action.key == f"northwind/{UPDATE_KIND}/c"
    epoch = three.do(replace(three.claim("A", "C"), kind=UPDATE_KIND))
    fingerprint = assignments_of_node(three.record, A)[action.key].fingerprint
    running = {action.key: OwnRun(epoch, 1, fingerprint, "Running")}
    three.do(PromoteDatabaseNode(name="Northwind", tag="C"))
    assert one(plan(three.record, A, 1, running)) == Stop(
        action.key, "this node is not responsible any more: the update is over"
    )


def test_a_body_of_a_database_that_is_gone_stops(cluster: RecordCluster) -> None:
    running = body(cluster, granted(cluster))
    empty = RecordCluster("A")
    held = {KEY: cluster.record.claims[KEY]}
    record = replace(empty.record, claims=Map(held))
    assert one(plan(record, A, 1, running)) == Stop(
        KEY, "this node is not responsible any more: database 'northwind' is gone"
    )
