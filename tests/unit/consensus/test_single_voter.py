"""A cluster of one: propose, apply, restart."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raftnode.consensus import raft as consensus
from raftnode.consensus.raft import ApplyFailed, ConsensusFailed, NotCommitted, OutcomeUnknown, StorageDamaged
from tests.unit.consensus.cluster import until
from tests.unit.consensus.support import alone, leading


async def test_a_node_alone_becomes_leader_and_answers_its_commands(tmp_path: Path) -> None:
    raft, machine = alone(tmp_path)
    await raft.start()
    await leading(raft)
    first = await raft.propose(b"one")
    second = await raft.propose(b"two")
    assert (first.answer, second.answer) == (1, 2)
    assert (second.index, second.term) == (first.index + 1, raft.status.term)
    assert machine.commands == [b"one", b"two"]
    assert (raft.status.applied_index, raft.status.applied_term) == (second.index, second.term)
    assert machine.ticks > 0
    await raft.stop()


async def test_after_a_restart_everything_acknowledged_is_applied_again(tmp_path: Path) -> None:
    raft, _ = alone(tmp_path)
    await raft.start()
    await leading(raft)
    for number in range(50):
        await raft.propose(b"%d" % number)
    await raft.stop()
    again, machine = alone(tmp_path)
    await again.start()
    await leading(again)
    assert machine.commands == [b"%d" % number for number in range(50)]
    assert again.status.term > raft.status.term
    await again.stop()


async def test_commands_in_flight_together_share_their_syncs_and_keep_their_order(tmp_path: Path) -> None:
    raft, machine = alone(tmp_path)
    await raft.start()
    await leading(raft)
    answers = await asyncio.gather(*(raft.propose(b"%d" % number) for number in range(200)))
    assert [answer.answer for answer in answers] == list(range(1, 201))
    assert machine.commands == [b"%d" % number for number in range(200)]
    await raft.stop()


@pytest.mark.parametrize("error", [MemoryError("none is left"), RecursionError(), OSError(5, "of this disk")], ids=repr)
async def test_a_state_machine_that_raises_ends_its_node_before_anybody_is_answered(
    tmp_path: Path, error: Exception
) -> None:
    raft, machine = alone(tmp_path)
    told: asyncio.Future[ConsensusFailed] = asyncio.get_running_loop().create_future()
    raft.on_fatal.append(told.set_result)
    await raft.start()
    await leading(raft)
    applied = raft.status.applied_index
    machine.raises = error
    with pytest.raises(OutcomeUnknown):
        await raft.propose(b"heavy")
    with pytest.raises(NotCommitted):
        await raft.propose(b"next")
    assert isinstance(await told, ApplyFailed)
    assert await told is raft.status.failure
    assert f"Entry {applied + 1}" in str(raft.status.failure)
    assert raft.status.applied_index == applied
    await raft.stop()

    again, machine = alone(tmp_path)
    await again.start()
    await leading(again)
    assert machine.commands == [b"heavy"], "it is applied by a process that can"
    await again.stop()


async def test_propose_here_appends_in_exactly_its_term_or_not_at_all(tmp_path: Path) -> None:
    raft, machine = alone(tmp_path)
    await raft.start()
    await leading(raft)
    with pytest.raises(NotCommitted, match="term"):
        await raft.propose_here(b"late", term=raft.status.term - 1)
    assert (await raft.propose_here(b"now", term=raft.status.term)).answer == 1
    assert machine.commands == [b"now"]
    await raft.stop()


async def test_a_command_above_the_limit_is_refused_by_its_size(tmp_path: Path) -> None:
    raft, _ = alone(tmp_path, command_bytes_max=100)
    await raft.start()
    await leading(raft)
    with pytest.raises(NotCommitted, match="101 bytes"):
        await raft.propose(b"x" * 101)
    assert (await raft.propose(b"x" * 100)).answer == 1
    await raft.stop()


async def test_a_barrier_and_wait_applied_return_once_the_index_is_applied(tmp_path: Path) -> None:
    raft, _ = alone(tmp_path)
    await raft.start()
    await leading(raft)
    waiting = asyncio.ensure_future(raft.wait_applied(raft.status.applied_index + 2, 5000))
    index = await raft.barrier()
    assert raft.status.applied_index == index
    assert not waiting.done()
    await raft.propose(b"x")
    await waiting
    with pytest.raises(TimeoutError):
        await raft.wait_applied(index + 100, 10)
    await raft.stop()


async def test_a_stopped_node_says_so_to_whoever_waits(tmp_path: Path) -> None:
    raft, _ = alone(tmp_path)
    await raft.start()
    await leading(raft)
    waiting = asyncio.ensure_future(raft.wait_applied(10_000, 60_000))
    await asyncio.sleep(0)
    await raft.stop()
    with pytest.raises(OutcomeUnknown, match="stopped"):
        await waiting
    with pytest.raises(NotCommitted, match="stopped"):
        await raft.propose(b"x")


async def test_snapshots_are_taken_by_bytes_and_a_restart_begins_from_one(tmp_path: Path) -> None:
    sizes = {"snapshot_bytes_min": 20_000, "segment_bytes_max": 4_000, "trailing_entries": 5}
    raft, machine = alone(tmp_path, **sizes)
    await raft.start()
    await leading(raft)
    while raft.status.snapshot_index < 20:
        await raft.propose(b"x" * 500)
    await raft.propose(b"after the snapshot")
    expected, index = list(machine.commands), raft.status.applied_index
    assert len([name for name in os.listdir(tmp_path) if name.startswith("journal-")]) < 12
    await raft.stop()
    again, restored = alone(tmp_path, **sizes)
    await again.start()
    await leading(again)
    assert restored.commands == expected
    assert again.status.applied_index > index
    await again.stop()


def delete(path: Path) -> None:
    path.unlink()


def make_again(path: Path) -> None:
    """Deletes the file and makes it again at once, with what was in it."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def put_a_copy(path: Path) -> None:
    """Puts a copy in its place, without a moment in which there is none."""
    copy = path.with_name(f"{path.name}.copy")
    shutil.copy2(path, copy)
    copy.rename(path)


def _struck(directory: Path, what: str, how: Callable[[Path], None]) -> list[Path]:
    struck = sorted(path for path in directory.rglob(what) if path.is_file())
    for path in struck:
        how(path)
    return struck


@pytest.mark.parametrize("how", [delete, make_again, put_a_copy])
@pytest.mark.parametrize("what", ["vote", "snapshot", "journal-*", "*"])
async def test_a_file_that_is_deleted_or_replaced_under_a_running_node_ends_it(
    tmp_path: Path, what: str, how: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus, "WATCH_S", 0.01)
    raft, _ = alone(tmp_path)
    told: asyncio.Future[ConsensusFailed] = asyncio.get_running_loop().create_future()
    raft.on_fatal.append(told.set_result)
    await raft.start()
    await leading(raft)
    await raft.propose(b"one")
    raft.take_snapshot()
    await until(lambda: raft.status.snapshot_index > 0)
    gone = _struck(tmp_path, what, how)
    failure = await told
    assert isinstance(failure, StorageDamaged)
    assert "was deleted or replaced under this node" in str(failure)
    assert any(path.name in str(failure) for path in gone)
    with pytest.raises(NotCommitted):
        await raft.propose(b"two")
    await raft.stop()


async def test_a_journal_that_is_cut_all_the_time_is_no_deleted_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus, "WATCH_S", 0.001)
    raft, _ = alone(tmp_path, snapshot_bytes_min=2_000, segment_bytes_max=500, trailing_entries=1)
    await raft.start()
    await leading(raft)
    for number in range(300):
        await raft.propose(b"%d" % number + bytes(100))
    assert raft.status.failure is None
    assert raft.status.snapshot_index > 0
    await raft.stop()
