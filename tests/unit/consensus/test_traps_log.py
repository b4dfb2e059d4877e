"""The traps of PySyncObj 0.3.17 that lose data: 1, 2, 3, 10 and 13. Each is shown on the bare package where it can be,
and closed here."""

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from raftnode.consensus.engine import messages
from raftnode.consensus.engine.message_filter import (
    AdoptTerm,
    AppendToLog,
    Drop,
    FilterView,
    FollowLeader,
    Reply,
    filter_message,
)
from raftnode.consensus.engine.messages import AppendEntries, AppendResponse, SnapshotChunk, SnapshotHeartbeat
from raftnode.consensus.model import StorageDamaged
from tests.unit.consensus.engine.logs import TermsLog
from tests.unit.consensus.simulated import RaftWorld
from tests.unit.consensus.stock import StockWorld, fresh_package

STOCK_COMPACTION = """
import os, sys
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

class Values(SyncObj):
    def __init__(self):
        files = {"journalFile": sys.argv[1] + "/journal", "fullDumpFile": sys.argv[1] + "/dump"}
        conf = SyncObjConf(autoTick=False, appendEntriesUseBatch=False, useFork=False, **files)
        super().__init__(Node("A"), [], conf, transportClass=Transport)
        self.values = []

    @replicated
    def put(self, value):
        self.values.append(value)

node = Values()
node._SyncObj__raftElectionDeadline = 0
acknowledged = []
for value in range(30):
    node.put(value, callback=lambda result, error: acknowledged.append(error))
    for _ in range(4):
        node.doTick(0)
    if value == 19:
        node.forceLogCompaction()
        node._SyncObj__tryLogCompaction()
        node._SyncObj__tryLogCompaction = lambda: None  # the process dies before it cuts the log
node._SyncObj__raftLog.flush()
again = Values()
for _ in range(10):
    again.doTick(0)
print(acknowledged.count(0), len(again.values))
"""


def as_append(raw: bytes) -> AppendEntries | None:
    message = messages.decode(raw)
    return message if isinstance(message, AppendEntries) and message.entries else None


def test_trap_01_an_overlapping_append_removes_nothing_that_was_acknowledged() -> None:
    stock = StockWorld("LAB", appendEntriesUseBatch=False)
    stock.elect("L")
    for value in ("one", "two", "three"):
        stock.nodes["L"].put(value)
        stock.nodes["L"].doTick(0)
    sent = [message for message in stock.queues["L", "A"] if message.get("entries")]
    stock.deliver("L", "A")
    held = len(stock.private("A", "raftLog"))
    stock.receive("A", "L", sent[0])
    assert len(stock.private("A", "raftLog")) < held, "the package no longer drops what it acknowledged: trap 1 is gone"

    world = RaftWorld("ABC")
    leader = world.leader()
    follower = next(node for node in world.alive if node is not leader)
    early: list[bytes] = []
    for number in range(3):
        world.propose(leader, b"%d" % number)
        leader.engine.tick()
        early.extend(raw for raw in world.queues[leader.tag, follower.tag] if as_append(raw))
        world.deliver(leader.tag, follower.tag)
    last = follower.engine.status.last_index
    follower.engine.receive(leader.tag, early[0])
    follower.engine.tick()
    assert follower.engine.status.last_index == last
    world.settle()
    assert follower.machine.commands == [b"0", b"1", b"2"]


def test_trap_02_a_crash_between_the_new_snapshot_and_the_journals_cut_loses_nothing(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", STOCK_COMPACTION, str(tmp_path)], capture_output=True, text=True, check=True
    )
    acknowledged, left = map(int, shown.stdout.split())
    assert acknowledged == 30
    assert left < 30, "the package no longer loses the log behind a snapshot: trap 2 is gone"

    world = RaftWorld("A")
    a = world.leader()
    for number in range(20):
        world.propose(a, b"%d" % number)
        world.round()
    a.engine.snapshot()
    (write, _adopt) = a.outside.popleft()
    for number in range(20, 30):
        world.propose(a, b"%d" % number)
        a.engine.tick()
    assert len(world.acknowledged) == 30
    write()
    # The process dies just after the snapshot was renamed and before the journal is cut.
    a.disk.replace(Path("/simulated/snapshot.writing"), Path("/simulated/snapshot"))
    a.crash()
    a.start()
    world.settle()
    assert a.machine.commands == [b"%d" % number for number in range(30)]
    assert a.engine.status.snapshot_index > 0


def test_trap_03_stock_cannot_start_on_a_journal_whose_last_page_never_reached_the_disk(tmp_path: Path) -> None:
    stock: Any = fresh_package()
    path = str(tmp_path / "journal")
    journal = stock.journal.createJournal(path)
    for number in range(200):
        journal.add(b"x" * 100, number + 1, 1)
    journal._destroy()
    with open(path, "r+b") as file:
        file.seek(12_288)
        file.write(b"\0" * 4096)
    with pytest.raises(Exception, match="unpack"):
        stock.journal.createJournal(path)


def test_trap_03_nothing_is_answered_before_it_is_on_the_disk() -> None:
    world = RaftWorld("ABC")
    leader = world.leader()
    follower = next(node for node in world.alive if node is not leader)
    world.propose(leader, b"precious")
    leader.engine.tick()
    world.deliver(leader.tag, follower.tag)
    follower.engine.tick()
    answers = [messages.decode(raw) for raw in world.queues[follower.tag, leader.tag]]
    assert any(
        isinstance(m, AppendResponse) and m.success and m.next_index == leader.engine.status.last_index + 1
        for m in answers
    )
    assert any(b"precious" in file.durable for file in follower.disk.files.values())
    assert any(b"precious" in file.durable for file in leader.disk.files.values())


def test_trap_10_a_damaged_snapshot_refuses_the_start_instead_of_an_empty_state(tmp_path: Path) -> None:
    stock: Any = fresh_package()
    (tmp_path / "dump").write_bytes(Random(1).randbytes(100))
    conf = stock.SyncObjConf(autoTick=False, fullDumpFile=str(tmp_path / "dump"), journalFile=str(tmp_path / "j"))
    node = stock.SyncObj(stock.node.Node("A"), [], conf, transportClass=stock.transport.Transport)
    node._SyncObj__raftElectionDeadline = 0
    for _ in range(5):
        node.doTick(0)
    assert node._isLeader(), "the package no longer leads with an empty state: trap 10 is gone"

    world = RaftWorld("A", snapshot_bytes_min=2_000, segment_bytes_max=500, trailing_entries=2)
    a = world.leader()
    while a.engine.status.snapshot_index == 0:
        world.propose(a, b"x" * 100)
        world.round()
    file = a.disk.files[Path("/simulated/snapshot")]
    for position in (0, len(file.data) // 2, len(file.data) - 1):
        before = file.data[position]
        file.data[position] ^= 0xFF
        with pytest.raises(StorageDamaged, match="/simulated/snapshot"):
            a.start()
        file.data[position] = before
    whole = bytes(file.data)
    del file.data[-20:]
    with pytest.raises(StorageDamaged, match="/simulated/snapshot"):
        a.start()
    file.data[:] = whole
    a.start()


def test_trap_10_a_follower_that_is_a_little_behind_needs_no_snapshot() -> None:
    world = RaftWorld("ABC", snapshot_bytes_min=20_000, segment_bytes_max=2_000, trailing_entries=50)
    leader = world.leader()
    follower = next(node for node in world.alive if node is not leader)
    while leader.engine.status.snapshot_index == 0:
        if leader.engine.status.last_index == 150:
            world.disconnect_all(follower.tag)
        world.propose(leader, b"x" * 100)
        world.round()
    assert follower.engine.status.last_index < leader.engine.status.snapshot_index
    world.connect_all()
    kinds = []
    while follower.engine.status.last_index < leader.engine.status.last_index:
        world.round()
        kinds += [messages.decode(raw) for raw in world.queues[leader.tag, follower.tag]]
    assert not any(isinstance(message, SnapshotChunk) for message in kinds)
    world.settle()


def view(terms: list[int], commit_index: int, *, term: int = 3, is_leader: bool = False) -> FilterView:
    voters = frozenset("ABC")
    return FilterView("A", term, is_leader, TermsLog(terms), commit_index, voters, voters - {"A"})


def test_trap_13_an_answer_to_an_earlier_leadership_counts_for_nothing() -> None:
    leading = view([0, 1, 3], 2, term=3, is_leader=True)
    stale = AppendResponse(2, next_index=4, success=True, reset=False, stream=0)
    assert isinstance(filter_message("B", stale, leading)[0], Drop)
    newer = AppendResponse(4, next_index=4, success=True, reset=False, stream=0)
    assert filter_message("B", newer, leading) == [AdoptTerm(4)]


def test_trap_13_a_deposed_leader_is_told_so() -> None:
    old = AppendEntries(2, 3, 2, (), commit_index=3, stream=0)
    (reply,) = filter_message("B", old, view([0, 1, 2], 2, term=3))
    assert isinstance(reply, Reply)
    assert isinstance(reply.message, AppendResponse)
    assert (reply.message.term, reply.message.success) == (3, False)


@pytest.mark.parametrize(
    "message", [SnapshotHeartbeat(3), AppendEntries(3, 9, 3, (), 9, 0), AppendEntries(3, 3, 3, (), 9, 0)]
)
def test_trap_13_a_commit_index_counts_only_as_far_as_the_log_is_verified(
    message: SnapshotHeartbeat | AppendEntries,
) -> None:
    divergent = view([0, 1, 2, 2, 2], 2)
    for action in filter_message("B", message, divergent):
        assert not isinstance(action, AppendToLog)
        if isinstance(action, FollowLeader):
            assert action.commit_index <= 2


def test_trap_13_stock_applies_a_commit_index_it_never_verified() -> None:
    stock = StockWorld("LAB")
    stock.elect("L")
    log = stock.private("A", "raftLog")
    last, term = log[-1][1], log[-1][2]
    log.add(b"\x01divergent", last + 1, term)
    beat = {"type": "append_entries", "term": term, "commit_index": last + 1, "serialized": None}
    stock.receive("A", "L", beat)
    assert stock.nodes["A"].raftCommitIndex == last + 1


def test_trap_13_a_leader_that_was_isolated_with_a_long_divergent_log_is_resynchronised_at_once() -> None:
    world = RaftWorld("ABC")
    old = world.leader()
    world.disconnect_all(old.tag)
    for number in range(400):
        assert world.propose(old, b"lost %d" % number + b"x" * 5_000)
    others = [node for node in world.alive if node is not old]
    world.run_until(lambda: any(node.engine.status.role == "Leader" for node in others))
    new = next(node for node in others if node.engine.status.role == "Leader")
    for number in range(400):
        assert world.propose(new, b"kept %d" % number + b"x" * 5_000)
        if number % 20 == 0:
            world.round()
    world.run_until(lambda: new.engine.status.applied_index == new.engine.status.last_index)
    world.connect_all()
    start_ns = world.clock.now_ns
    world.run_until(lambda: old.engine.status.applied_index == new.engine.status.applied_index)
    assert world.clock.now_ns - start_ns < 2_000_000_000
    assert old.machine.commands == new.machine.commands
    assert not any(command.startswith(b"lost") for command in old.machine.commands)
