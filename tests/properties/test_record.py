"""The state machine under anything: it never raises, only moves forward, and is the same everywhere."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.json import encode as encode_json
from msgspec.msgpack import decode
from msgspec.msgpack import encode as encode_msgpack

from raftnode.record.commands import Checkpoint, ClaimTask, Decide, Entry, ReleaseTask, encode
from raftnode.record.encoding import enc_hook
from raftnode.record.machine import apply
from raftnode.record.model import Claim, CommandResult, Record
from raftnode.record.ownership import responsible_node, tasks_of
from raftnode.record.snapshot import frames, read
from tests.properties.histories import play
from tests.unit.record.build import RecordCluster

ROOT = Path(__file__).parents[2]
seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(0, 80)


@given(st.binary(max_size=400), st.integers(0, 5), st.integers(0, 5))
def test_any_bytes_are_answered(data: bytes, index: int, term: int) -> None:
    before = RecordCluster("A").record
    applied = apply(before, Entry(index, term), data)
    assert applied.record.index >= before.index
    assert applied.result.index == index


@settings(deadline=None)
@given(seeds, st.integers(0, 10_000), st.integers(0, 255))
def test_a_command_with_a_broken_byte_is_answered(seed: int, at: int, byte: int) -> None:
    history, records = play(seed, 10)
    data = bytearray(encode(history[-1][0], "r"))
    data[at % len(data)] = byte
    assert apply(records[-1], Entry(records[-1].index + 1, 1), bytes(data)).record.index == records[-1].index + 1


@settings(max_examples=100, deadline=None)
@given(seeds, lengths)
def test_what_follows_from_the_rest_always_does(seed: int, length: int) -> None:
    _, records = play(seed, length)
    for record in records:
        assert record.held == record.indexed().held
        for database in record.databases.values():
            assert database.task_ids == database.indexed().task_ids
            assert len(database.task_ids) == len(database.tasks)


@settings(max_examples=100, deadline=None)
@given(seeds, lengths)
def test_index_etags_and_progress_only_grow(seed: int, length: int) -> None:
    _, records = play(seed, length)
    for before, after in itertools.pairwise(records):
        assert after.index == before.index + 1
        for folded, database in after.databases.items():
            was = before.databases.get(folded)
            if was is None:
                continue
            assert database.etag >= was.etag
            for id, made in database.progress.items():
                old = was.progress.get(id)
                assert old is None or (made.generation, made.processed) >= (old.generation, old.processed)


@settings(max_examples=100, deadline=None)
@given(seeds, lengths)
def test_progress_is_taken_only_from_the_run_that_holds_the_claim(seed: int, length: int) -> None:
    history, records = play(seed, length)
    for (command, request_id, _), before, after in zip(history, records, records[1:], strict=False):
        if not isinstance(command, Checkpoint) or after.databases is before.databases or request_id:
            continue
        held = {claim.epoch for claim in before.claims.values() if claim.state == "Held"}
        written = {p.epoch for d in after.databases.values() for p in d.progress.values()}
        earlier = {p.epoch for d in before.databases.values() for p in d.progress.values()}
        assert written - earlier <= held


def held(record: Record) -> dict[int, Claim]:
    return {claim.epoch: claim for claim in record.claims.values() if claim.state == "Held"}


@settings(max_examples=150, deadline=None)
@given(seeds, lengths)
def test_one_claim_one_epoch_and_an_epoch_that_ended_never_comes_back(seed: int, length: int) -> None:
    _, records = play(seed, length)
    ended: set[int] = set()
    for before, after in itertools.pairwise(records):
        ended |= held(before).keys() - held(after).keys()
        assert len(held(after)) == sum(claim.state == "Held" for claim in after.claims.values())
        assert not ended & held(after).keys()
        assert all(epoch == after.index for epoch in held(after).keys() - held(before).keys())


@settings(max_examples=150, deadline=None)
@given(seeds, lengths)
def test_a_held_claim_ends_only_by_its_release_its_void_or_its_own_processes_newer_claim(
    seed: int, length: int
) -> None:
    history, records = play(seed, length)
    for (command, _, term), before, after in zip(history, records, records[1:], strict=False):
        for epoch in held(before).keys() - held(after).keys():
            claim = held(before)[epoch]
            if isinstance(command, ClaimTask):
                newer = held(after)[after.index]
                assert (newer.tag, newer.node_id) == (claim.tag, claim.node_id)
                assert (newer.boot, newer.nonce) == (claim.boot, claim.nonce) or newer.nonce == 0 == claim.nonce
                assert (newer.boot, newer.session) > (claim.boot, claim.session)
            elif isinstance(command, Decide):
                assert epoch in {void.epoch for void in command.voids}
                assert term == command.term
            else:
                assert isinstance(command, ReleaseTask)
                assert command.epoch == epoch


@settings(max_examples=100, deadline=None)
@given(seeds, lengths)
def test_a_claim_is_granted_only_to_the_node_that_placement_names(seed: int, length: int) -> None:
    history, records = play(seed, length)
    for (command, _, _), before, after in zip(history, records, records[1:], strict=False):
        if isinstance(command, ClaimTask) and after.index in held(after):
            database = before.database(command.database)
            task = database.task_named(command.name) if database else None
            assert database is not None
            assert task is not None
            assert responsible_node(before, database, task).node == command.tag


@settings(max_examples=100, deadline=None)
@given(seeds, lengths, st.integers(0, 80))
def test_the_same_log_gives_the_same_record_also_over_a_snapshot(seed: int, length: int, at: int) -> None:
    history, records = play(seed, length)
    at = min(at, length)
    copy = read(frames(records[at]))
    assert copy == records[at]
    for command, request_id, term in history[at:]:
        copy = apply(copy, Entry(copy.index + 1, term), encode(command, request_id)).record
    assert copy == records[-1]


ELSEWHERE = """
import sys
from tests.properties.test_record import answers
print(answers(sys.stdin.buffer.read()), end="")
"""


def answers(log: bytes) -> str:
    """What each history of a log comes to in this process: every answer, and the record at the end."""
    lines = []
    for history in decode(log):
        cluster = RecordCluster("A", "B", "C")
        for term, data in history:
            applied = apply(cluster.record, Entry(cluster.record.index + 1, term), data)
            cluster.record = applied.record
            lines.append(_shown(applied.result))
        lines.append(_shown(cluster.record))
    return "\n".join(lines)


def _shown(value: Record | CommandResult) -> str:
    """With maps in order; all else is in the order it has."""
    return encode_json(to_builtins(value, str_keys=True, enc_hook=enc_hook), order="sorted").decode()


def test_the_same_log_gives_the_same_in_processes_whose_texts_hash_differently() -> None:
    """The order of a map or a set of texts differs from process to process: nothing may follow from it."""
    histories = [play(seed, 80)[0] for seed in range(60)]
    log = encode_msgpack([[(term, encode(command, id)) for command, id, term in history] for history in histories])
    shown = [
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE], input=log, capture_output=True, check=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.decode().splitlines()
        for seed in ("1", "2", "3", "4")
    ]  # fmt: skip
    for other in shown[1:]:
        assert len(other) == len(shown[0]) == 60 * 81
        for one, another in zip(shown[0], other, strict=True):
            assert one == another


@settings(max_examples=100, deadline=None)
@given(seeds, lengths)
def test_every_task_of_every_record_can_be_placed(seed: int, length: int) -> None:
    _, records = play(seed, length)
    record = records[-1]
    for database in record.databases.values():
        for task in tasks_of(record, database):
            placement = responsible_node(record, database, task)
            assert placement.node is None or database.topology.state_of(placement.node) is not None
