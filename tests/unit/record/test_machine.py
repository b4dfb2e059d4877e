"""The state machine: totality, repeats and limits."""

from typing import Any

import msgspec
import pytest
from immutables import Map

from raftnode.foundation.decoding import DEPTH_MAX
from raftnode.record import machine
from raftnode.record.commands import (
    Changes,
    Command,
    CreateDatabase,
    Entry,
    SetDraining,
    SuspendObserver,
    decode,
    encode,
)
from raftnode.record.encoding import dec_hook, enc_hook
from raftnode.record.machine import Applied, apply
from raftnode.record.model import (
    ASKED_LENGTH_MAX,
    COMMAND_BYTES_MAX,
    REQUEST_ID_LENGTH_MAX,
    SCHEMA_VERSION,
    CommandError,
    CommandResult,
    PromotionStatus,
    Record,
    Topology,
)
from raftnode.record.snapshot import SnapshotUnreadable, frames, read
from tests.unit.record.build import KIND, RecordCluster

SUSPEND = SuspendObserver(suspended=True)


def padded(size: int) -> bytes:
    """A command of that many bytes: a later version may have written more than this one reads."""
    short = msgspec.msgpack.encode({"command": SUSPEND, "later": bytes(1 << 16)})
    return msgspec.msgpack.encode({"command": SUSPEND, "later": bytes(size - len(short) + (1 << 16))})


def of_version(version: int) -> bytes:
    return msgspec.msgpack.encode({"command": SUSPEND, "version": version})


@pytest.mark.parametrize(
    ("good", "bad", "kind", "message"),
    [
        (
            padded(COMMAND_BYTES_MAX),
            padded(COMMAND_BYTES_MAX + 1),
            "BadRequestException",
            "Command of 524289 bytes; the limit is 524288.",
        ),
        (
            of_version(SCHEMA_VERSION),
            of_version(SCHEMA_VERSION + 1),
            "ClientVersionMismatchException",
            "Command of schema version 3; this node reads up to 2. Upgrade.",
        ),
        (
            encode(SUSPEND, "r" * REQUEST_ID_LENGTH_MAX),
            encode(SUSPEND, "r" * (REQUEST_ID_LENGTH_MAX + 1)),
            "BadRequestException",
            "The request id is longer than 256 characters. Choose a shorter one.",
        ),
        (
            encode(SUSPEND, "r", "x" * ASKED_LENGTH_MAX),
            encode(SUSPEND, "r", "x" * (ASKED_LENGTH_MAX + 1)),
            "BadRequestException",
            "The hash of what was asked for is longer than 32 characters.",
        ),
    ],
    ids=["size", "version", "request id", "asked"],
)
def test_a_command_at_a_limit_is_applied_and_one_beyond_it_is_answered_with_the_limit(
    good: bytes, bad: bytes, kind: str, message: str
) -> None:
    record = RecordCluster("A").record
    entry = Entry(record.index + 1, 1)
    applied = apply(record, entry, good)
    assert (applied.result.error, applied.changes) == (None, Changes(cluster=True))
    assert applied.record.observer.suspended
    assert apply(record, entry, bad) == Applied(
        record=msgspec.structs.replace(record, index=entry.index), result=refusal(entry.index, kind, message)
    )


def refusal(index: int, kind: str, message: str) -> CommandResult:
    return CommandResult(index=index, error=CommandError(type=kind, message=message))


@pytest.mark.parametrize("behind", [0, 1])
def test_an_entry_that_was_applied_before_changes_nothing(behind: int) -> None:
    record = RecordCluster("A").record
    index = record.index - behind
    again = apply(record, Entry(index, 1), encode(SUSPEND))
    assert again.record is record
    message = "This entry was applied before."
    assert again == Applied(record=record, result=refusal(index, "AlreadyAppliedException", message))


def test_another_request_under_a_used_id_is_refused_and_the_first_keeps_its_answer() -> None:
    record = RecordCluster("A").record
    create = CreateDatabase(name="Northwind", nodes=("A",))
    again = msgspec.structs.replace(create, topology_id="made by another node", at="later")
    other = CreateDatabase(name="Southwind", nodes=("A",))
    first = apply(record, Entry(record.index + 1, 1), encode(create, "r1", "hash of it"))
    record = first.record
    repeated = apply(record, Entry(record.index + 1, 1), encode(again, "r1", "hash of it"))
    assert repeated.result == record.requests["r1"]
    assert repeated.result.value == first.result.value
    refused = apply(record, Entry(record.index + 1, 1), encode(other, "r1", "hash of another"))
    message = (
        f"The raft-request-id 'r1' was used for another request, at index {record.index}; nothing was changed. Give "
        "each request an id of its own, and a repeat the very same request."
    )
    assert refused.result == refusal(record.index + 1, "RequestIdUsedException", message)
    assert refused.record == msgspec.structs.replace(record, index=record.index + 1)
    for known, asked in (("", "hash of it"), ("hash of it", "")):
        first = apply(RecordCluster("A").record, Entry(record.index + 1, 1), encode(create, "r1", known))
        repeated = apply(first.record, Entry(first.record.index + 1, 1), encode(other, "r1", asked))
        assert repeated.result.error is None, "a node of an earlier version gave no hash"


def test_a_refused_command_changes_nothing_but_the_index() -> None:
    cluster = RecordCluster("A")
    before = cluster.record
    cluster.refused(SetDraining(tag="Z", draining=True))
    assert cluster.record == msgspec.structs.replace(before, index=before.index + 1)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa7command\xc0", b"\x91" * 5000 + b"\xc0", b"\xa2\xff\xfe"])
def test_unreadable_bytes_are_answered(data: bytes) -> None:
    result = apply(Record(), Entry(1, 1), data).result
    assert result.error is not None
    assert result.error.type == "BadRequestException"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 500, 1000, 5000, 100_000])
def test_a_command_that_nests_too_deep_is_refused_whatever_the_interpreter_could_read(depth: int) -> None:
    cluster = RecordCluster("A")
    for unknown in (b"\x81\xa5later" + b"\x91" * (depth - 2) + b"\x90", b"\x91" * (depth - 1) + b"\x90"):
        applied = apply(cluster.record, Entry(cluster.record.index + 1, 1), unknown)
        assert applied.result.error is not None
        assert str(DEPTH_MAX) in applied.result.error.message
        assert applied.record == msgspec.structs.replace(cluster.record, index=cluster.record.index + 1)


def test_a_command_with_an_unknown_field_of_the_greatest_depth_is_applied() -> None:
    cluster = RecordCluster("A")
    data = encode(SetDraining(tag="A", draining=True))
    deep = bytes([data[0] + 1]) + data[1:] + b"\xa5later" + b"\x91" * (DEPTH_MAX - 2) + b"\x90"
    applied = apply(cluster.record, Entry(cluster.record.index + 1, 1), deep)
    assert applied.result.error is None
    assert applied.record.nodes["A"].draining
    too_deep = deep.replace(b"\xa5later", b"\xa5later\x91")
    assert apply(cluster.record, Entry(cluster.record.index + 1, 1), too_deep).result.error is not None


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OSError, SystemError], ids=lambda error: error.__name__)
def test_what_only_this_process_raises_is_no_answer(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Command, record: Record, entry: Entry) -> Any:
        raise error

    cluster = RecordCluster("A")
    data = encode(SetDraining(tag="A", draining=True), "r1")
    monkeypatch.setattr(SetDraining, "apply", fails)
    with pytest.raises(error):
        apply(cluster.record, Entry(cluster.record.index + 1, 1), data)


@pytest.mark.parametrize("error", [MemoryError, RecursionError], ids=lambda error: error.__name__)
def test_a_decoder_without_memory_or_stack_says_nothing_about_the_command(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(data: bytes) -> Any:
        raise error

    monkeypatch.setattr(machine, "decode", fails)
    with pytest.raises(error):
        apply(Record(), Entry(1, 1), encode(SuspendObserver(suspended=True)))


def test_a_repeat_gets_the_first_answer_and_changes_nothing() -> None:
    cluster = RecordCluster("A")
    create = CreateDatabase(name="Northwind", nodes=("A",))
    first = cluster.apply(create, request_id="r1")
    index = cluster.record.index
    second = cluster.apply(create, request_id="r1")
    assert second.result == first.result
    assert second.changes == Changes()
    assert cluster.record.index == index + 1
    assert "exists already" in cluster.refused(create, request_id="r2")
    assert "exists already" in cluster.refused(create), "without a request id it is no repeat"


def test_a_refusal_is_remembered_like_an_answer() -> None:
    cluster = RecordCluster("A")
    refusal = cluster.refused(SetDraining(tag="B", draining=True), request_id="r1")
    assert cluster.refused(SuspendObserver(suspended=True), request_id="r1") == refusal


def test_the_table_of_requests_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "REQUESTS_MAX", 3)
    cluster = RecordCluster("A")
    for i in range(9):
        cluster.do(SuspendObserver(suspended=bool(i % 2)), request_id=f"r{i}")
        kept = range(max(0, i - 2), i + 1)
        record = cluster.record
        assert set(record.requests) == {f"r{n}" for n in kept}
        assert record.request_order == Map({n: f"r{n}" for n in kept})
        assert (record.request_first, record.request_next) == (kept.start, kept.stop)


def test_a_command_that_raises_is_answered_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Command, record: Record, entry: Entry) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(SuspendObserver, "apply", broken)
    cluster = RecordCluster("A")
    message = "RavenException: ZeroDivisionError in SuspendObserver; nothing was changed."
    assert cluster.refused(SUSPEND) == message


def test_a_command_without_apply_is_an_error_of_the_programmer() -> None:
    with pytest.raises(NotImplementedError):
        Command().apply(Record(), Entry(1, 1))


def test_a_command_survives_the_log() -> None:
    create = CreateDatabase(name="Northwind", nodes=("A",), at="now")
    envelope = decode(encode(create, "r1"))
    assert (envelope.command, envelope.request_id) == (create, "r1")


def test_a_record_survives_the_snapshot() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.connection()
    cluster.task("t", mentor="A", connection_string="Warehouse")
    cluster.do(cluster.claim("A", "t"), request_id="r1")
    assert read(frames(cluster.record)) == cluster.record
    one_by_one = b"".join(frames(cluster.record))
    assert read(bytes([byte]) for byte in one_by_one) == cluster.record


def test_a_snapshot_has_a_frame_for_the_record_and_one_for_each_database_without_what_follows_from_the_rest() -> None:
    cluster = RecordCluster("A")
    cluster.create("A")
    cluster.task("t", mentor="A")
    cluster.do(cluster.claim("A", "t"))
    record = msgspec.structs.replace(cluster.record, schema_version=1)
    made = list(frames(record))
    assert [int.from_bytes(frame[:4], "little") for frame in made] == [len(frame) - 4 for frame in made]
    head, database = (msgspec.msgpack.decode(frame[4:], strict=False) for frame in made)
    assert (head["SchemaVersion"], head["Databases"], head["Held"]) == (SCHEMA_VERSION, {}, {})
    assert (database["Name"], database["TaskIds"]) == ("Northwind", {})
    assert read(made) == cluster.record


def test_an_older_snapshot_without_runs_causes_and_indexes_loads() -> None:
    cluster = RecordCluster("A", "B")
    cluster.create("A", "B")
    cluster.task("t", mentor="A")
    cluster.do(cluster.claim("A", "t"))
    loaded = read(_without_newer_fields(frame) for frame in frames(cluster.record))
    database = loaded.database("northwind")
    assert database is not None
    assert database.task_named("T") == database.tasks[cluster.task_now("t").id]
    assert loaded.held == cluster.record.held
    assert next(iter(loaded.claims.values())).runs == ()


def _without_newer_fields(frame: bytes) -> bytes:
    newer = {"Held", "TaskIds", "Rule", "Cause", "Runs", "PlacementIndex"}

    def older(value: Any) -> Any:
        return {k: older(v) for k, v in value.items() if k not in newer} if isinstance(value, dict) else value

    body = msgspec.msgpack.encode(older(msgspec.msgpack.decode(frame[4:], strict=False)))
    return len(body).to_bytes(4, "little") + body


def test_what_is_no_record_is_refused_on_load() -> None:
    with pytest.raises(SnapshotUnreadable, match="does not hold a record"):
        read([b"\x09\0\0\0\x81\xa5Index\xa1x"])
    with pytest.raises(SnapshotUnreadable, match="does not hold a record"):
        read([])
    with pytest.raises(SnapshotUnreadable, match="does not hold a record"):
        read([bytes(4)])  # one frame, which is empty
    with pytest.raises(SnapshotUnreadable, match="left over"):
        read([b"".join(frames(Record()))[:-1]])
    with pytest.raises(SnapshotUnreadable, match="Upgrade it"):
        read(frames(Record(schema_version=99)))
    with pytest.raises(NotImplementedError, match="no place in the record"):
        enc_hook(object())
    with pytest.raises(NotImplementedError, match="no place in the record"):
        dec_hook(complex, 1)


def test_json_has_pascal_case_keys() -> None:
    cluster = RecordCluster("A")
    cluster.create("A")
    cluster.task("t")
    json = msgspec.to_builtins(cluster.database(), enc_hook=enc_hook)
    assert list(json["Topology"]["Members"]) == ["A"]
    assert next(iter(json["Tasks"].values()))["Kind"] == KIND


OK: PromotionStatus = "Ok"


def test_a_topology_without_a_node_has_no_trace_of_it() -> None:
    topology = Topology(
        members=("A", "B"),
        promotables=("C",),
        rehabs=("D",),
        predefined_mentors=Map({"C": "A"}),
        demotion_reasons=Map({"D": "silent"}),
        promotables_status=Map({"C": OK}),
        priority_order=("B", "A"),
    )
    left = topology.without("C").without("D").without("B").without("Z")
    assert left == Topology(members=("A",), priority_order=("A",))
    assert topology.all_nodes == ("A", "B", "D", "C")
    assert [topology.state_of(t) for t in "ACDZ"] == ["Member", "Promotable", "Rehab", None]
