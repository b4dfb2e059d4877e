"""Commands about tasks: what each changes of a task, whole, and what bounds it."""

from contextlib import nullcontext
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.commands import (
    BlameTask,
    Checkpoint,
    Command,
    DeleteConnectionString,
    Entry,
    ProgressMade,
    PutTask,
    RetryFailed,
    SetTaskPin,
    SetTaskState,
)
from raftnode.record.commands.base import CommandRefused
from raftnode.record.commands.tasks import REASON_LENGTH_MAX
from raftnode.record.model import (
    GENERATION_STRIDE,
    KEY_MAX,
    RUNS_KEPT_MAX,
    ConnectionString,
    EndedRun,
    KindTraits,
    Progress,
    Task,
)
from tests.unit.record.build import KIND, RecordCluster

KEY = f"northwind/{KIND}/t"
PUT = PutTask(
    database="NORTHWIND",
    name="t",
    kind=KIND,
    key=5,
    mentor="A",
    pinned=True,
    disabled=True,
    traits=KindTraits(sticky=True, grace_min=3),
    requires=("ssd",),
    connection_string="WAREHOUSE",
    configuration=b'{"a": 1}',
)


@pytest.fixture
def cluster() -> RecordCluster:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.connection()
    return cluster


def test_a_connection_string_stands_in_the_record_with_the_index_of_its_edit(cluster: RecordCluster) -> None:
    assert cluster.database().connection_strings["warehouse"] == ConnectionString(
        name="Warehouse", type="Sql", configuration=b"{}", etag=cluster.record.index
    )


def test_a_task_is_what_was_put_and_begins_without_progress(cluster: RecordCluster) -> None:
    id = cluster.do(PUT)
    assert id == cluster.record.index
    assert cluster.database().tasks == Map(
        {
            id: Task(
                id=id,
                name="t",
                kind=KIND,
                key=5,
                mentor="A",
                pinned=True,
                disabled=True,
                traits=KindTraits(sticky=True, grace_min=3),
                requires=("ssd",),
                connection_string="WAREHOUSE",
                configuration=b'{"a": 1}',
                etag=id,
                placement_index=id,
            )
        }
    )
    assert cluster.database().progress == Map({id: Progress(generation=id)})


@pytest.mark.parametrize(
    ("fields", "placed"),
    [
        ({"key": 6}, True),
        ({"mentor": None, "pinned": False}, True),
        ({"pinned": False}, True),
        ({"traits": KindTraits()}, True),
        ({"requires": ()}, True),
        ({"name": "other"}, False),
        ({"disabled": False}, False),
        ({"connection_string": None}, False),
        ({"configuration": b"{}"}, False),
    ],
)
def test_an_edit_changes_what_it_names_and_counts_for_placement_where_that_reads_it(
    cluster: RecordCluster, fields: dict[str, Any], placed: bool
) -> None:
    id = cluster.do(PUT)
    cluster.do(RetryFailed(database="Northwind", id=id))
    before = cluster.database()
    assert cluster.do(replace(PUT, id=id, **fields)) == id
    index = cluster.record.index
    assert cluster.database().tasks[id] == replace(
        before.tasks[id], etag=index, placement_index=index if placed else id, **fields
    )
    assert cluster.database().progress == before.progress
    assert cluster.database() == cluster.database().indexed()


@pytest.mark.parametrize(
    ("command", "fields", "etag", "placed"),
    [
        (SetTaskState(database="northwind", id=4, disabled=False), {"disabled": False, "endings": ()}, True, False),
        (SetTaskState(database="northwind", id=4, disabled=True), {}, True, False),
        (SetTaskPin(database="northwind", id=4, mentor=None), {"mentor": None, "pinned": False}, False, True),
        (SetTaskPin(database="northwind", id=4, mentor="B", pinned=True), {"mentor": "B"}, False, True),
    ],
)
def test_state_and_pin_change_only_themselves(
    cluster: RecordCluster, command: Command, fields: dict[str, Any], etag: bool, placed: bool
) -> None:
    id = cluster.do(PUT)
    cluster.do(BlameTask(key=KEY, epoch=id, tag="A", reason="in body"))
    before = cluster.database()
    assert cluster.do(command) == id == 4
    index = cluster.record.index
    expected = replace(before.tasks[id], etag=index if etag else id, placement_index=index if placed else id, **fields)
    assert cluster.database() == replace(before, tasks=Map({id: expected}), etag=index)


@pytest.mark.parametrize(("key", "fits"), [(-1, False), (0, True), (KEY_MAX, True), (KEY_MAX + 1, False)])
def test_a_key_is_an_unsigned_integer_of_64_bits(cluster: RecordCluster, key: int, fits: bool) -> None:
    command, entry = replace(PUT, key=key), Entry(cluster.record.index + 1, 1)
    with nullcontext() if fits else pytest.raises(CommandRefused, match="out of range"):
        assert command.apply(cluster.record, entry).value == entry.index


def test_the_users_of_a_connection_string_are_named_in_order_and_not_all(cluster: RecordCluster) -> None:
    for name in "lkjihgfedcba":
        cluster.task(name, connection_string="warehouse")
    cluster.task("without")
    assert cluster.refused(DeleteConnectionString(database="Northwind", name="Warehouse")) == (
        "BadRequestException: Connection string 'Warehouse' is used by: a, b, c, d, e, f, g, h, i, j. "
        "Change or delete these tasks first."
    )


def test_a_run_is_held_against_its_task_if_it_is_not_older_than_the_last_edit(cluster: RecordCluster) -> None:
    id = cluster.do(replace(PUT, disabled=False))
    for generation, index, counts in ((0, id - 1, False), (0, id, True), (3, id - 1, False), (3, id, True)):
        epoch = generation * GENERATION_STRIDE + index
        before = cluster.task_now("t").endings
        assert cluster.do(BlameTask(key=KEY, epoch=epoch, tag="A", reason="x" * 3000)) is counts
        ended = EndedRun(epoch=epoch, tag="A", state="EndedItsNode", reason="x" * REASON_LENGTH_MAX)
        assert cluster.task_now("t").endings == ((*before, ended) if counts else before)
    epochs = range(id + 1, id + RUNS_KEPT_MAX + 2)
    for epoch in epochs:
        assert cluster.do(BlameTask(key=KEY, epoch=epoch, tag="A", reason="in body")) is True
    assert [ended.epoch for ended in cluster.task_now("t").endings] == list(epochs)[1:]
    assert cluster.database().etag == cluster.record.index


def test_progress_that_comes_twice_counts_twice_and_a_task_of_an_earlier_version_has_generation_0(
    cluster: RecordCluster,
) -> None:
    task = cluster.task("t", mentor="A")
    epoch = cluster.do(cluster.claim("A", "t"))

    def made(generation: int) -> Checkpoint:
        progress = Progress(generation=generation, processed=5, change_vector="A:1", at="now")
        return Checkpoint(made=(ProgressMade(database="northwind", id=task.id, epoch=epoch, progress=progress),))

    for _ in range(2):
        assert cluster.do(made(task.id)) == [task.id]
        assert cluster.database().progress[task.id] == Progress(
            generation=task.id, epoch=epoch, processed=5, change_vector="A:1", at="now"
        )
    bare = replace(cluster.database(), progress=Map())
    cluster.record = replace(cluster.record, databases=Map({"northwind": bare}))
    assert cluster.do(made(1)) == []
    assert cluster.do(made(0)) == [task.id]


def test_progress_of_two_databases_comes_in_one_command(cluster: RecordCluster) -> None:
    cluster.create("A", name="Other")
    accepted = []
    for database in ("Northwind", "Other"):
        task = cluster.task("t", mentor="A", database=database)
        epoch = cluster.do(replace(cluster.claim("A", "t"), database=database))
        progress = Progress(generation=task.id, processed=1)
        accepted.append(ProgressMade(database=database, id=task.id, epoch=epoch, progress=progress))
    stale = replace(accepted[0], epoch=1)
    assert cluster.do(Checkpoint(made=(stale, *accepted))) == [made.id for made in accepted]


def test_a_renamed_task_keeps_its_claim_under_other_letters_and_takes_the_place_of_an_ended_one(
    cluster: RecordCluster,
) -> None:
    task = cluster.task("t", mentor="A")
    epoch = cluster.do(cluster.claim("A", "t"))
    held = cluster.claimed("t")
    left_behind = f"northwind/{KIND}/new"
    ended = replace(held, epoch=1, state="Released")
    cluster.record = cluster.record.with_claim(left_behind, ended)
    edit = PutTask(database="Northwind", id=task.id, name="T", kind=KIND, key=task.key, mentor="A")
    cluster.do(edit)
    assert cluster.record.claims == Map({KEY: held, left_behind: ended})
    cluster.do(replace(edit, name="New"))
    assert cluster.record.claims == Map({left_behind: held})
    assert cluster.record.held == Map({epoch: left_behind})
