"""The journal and the small files: what is on the disk after every kind of damage, and what is refused."""

import errno
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftnode.consensus.engine import messages
from raftnode.consensus.engine.messages import AppendResponse
from raftnode.consensus.model import JournalFailed, Peer, StorageDamaged
from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.hard_state import HardState, HardStateFiles
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.segment import encode, scan
from tests.unit.consensus.simulated import CrashDisk, RaftWorld

HERE = Path("/simulated")
FIRST = HERE / f"journal-{1:016x}.log"


def journal(disk: CrashDisk, segment_bytes_max: int = 10_000) -> Journal:
    return Journal(disk, HERE, segment_bytes_max=segment_bytes_max)


def filled(count: int = 20, segment_bytes_max: int = 10_000) -> tuple[CrashDisk, Journal]:
    disk = CrashDisk()
    written = journal(disk, segment_bytes_max)
    for index in range(1, count + 1):
        written.append((b"command %d" % index, index, 1))
    written.sync()
    return disk, written


def test_what_was_synced_is_there_after_a_crash_and_what_was_not_may_be_gone() -> None:
    disk, written = filled(5)
    written.append((b"unsynced", 6, 1))
    disk.crash(Random(1))
    again = journal(disk)
    assert again.last_index in (5, 6)
    assert again.entries[:5] == written.entries[:5]


def test_a_journal_on_a_real_disk_is_read_back_over_several_segments(tmp_path: Path) -> None:
    written = Journal(SystemDisk(), tmp_path, segment_bytes_max=200)
    for index in range(1, 50):
        written.append((b"x" * index, index, index // 10))
    written.truncate(31)
    written.append((b"other", 31, 9))
    written.close()
    again = Journal(SystemDisk(), tmp_path, segment_bytes_max=200)
    assert again.entries == written.entries
    assert (again.last_index, again.last_term, again.term_at(30), again.term_at(32)) == (31, 9, 3, None)
    assert len(list(tmp_path.glob("journal-*"))) > 3
    again.close()


@pytest.mark.parametrize("missing", [1, 10, 31])
def test_a_torn_tail_is_cut_and_the_log_goes_on(missing: int) -> None:
    disk, _ = filled(20)
    del disk.files[FIRST].data[-missing:]
    again = journal(disk)
    assert again.last_index == 19
    again.append((b"again", 20, 2))
    again.sync()
    assert journal(disk).entries[-1] == (b"again", 20, 2)


def test_a_last_page_of_zeros_is_a_torn_tail() -> None:
    disk, written = filled(20)
    size = len(disk.files[FIRST].data)
    disk.files[FIRST].data[size - 100 :] = bytes(100)
    again = journal(disk)
    assert again.entries == written.entries[: len(again)]
    assert 15 <= again.last_index < 20


@given(position=st.integers(0, 600), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_before_sound_entries_refuses_the_start(position: int, flip: int) -> None:
    disk, _ = filled(20)
    assert len(disk.files[FIRST].data) > 700
    disk.files[FIRST].data[position] ^= flip
    with pytest.raises(StorageDamaged, match=r"journal-0000000000000001\.log is damaged at byte \d+"):
        journal(disk)


def test_a_missing_segment_refuses_the_start() -> None:
    disk, _ = filled(40, segment_bytes_max=200)
    names = sorted(path for path in disk.files)
    del disk.files[names[2]]
    with pytest.raises(StorageDamaged, match="entries are missing"):
        journal(disk)


def test_an_empty_file_is_an_empty_journal() -> None:
    disk = CrashDisk()
    disk.open(FIRST)
    assert len(journal(disk)) == 0


def test_old_segments_go_whole_and_the_rest_is_untouched() -> None:
    disk, written = filled(100, segment_bytes_max=300)
    before = len(disk.files)
    written.compact(50)
    assert written.first_index <= 50 < written.first_index + 20
    assert written.last_index == 100
    assert len(disk.files) < before
    assert journal(disk).entries == written.entries
    assert written.bytes_after(99) == len(encode(written.entries[-1]))
    assert written.bytes_after(100) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "truncate", "sync", "compact", "crash", "reset"]), st.integers(0, 30))
    )
)
@settings(max_examples=200, deadline=None)
def test_any_sequence_of_operations_leaves_a_readable_log_with_all_that_was_synced(
    steps: list[tuple[str, int]],
) -> None:
    disk, log = filled(3, segment_bytes_max=150)
    synced = list(log.entries)
    chance = Random(0)
    for what, number in steps:
        if what == "append":
            log.append((b"%d" % number, log.last_index + 1, log.last_term + number % 2))
        elif what == "truncate" and log.first_index < number <= log.last_index:
            log.truncate(number)
            log.sync()
            synced = list(log.entries)
        elif what == "compact" and number <= log.last_index:
            log.compact(number)
            synced = [entry for entry in synced if entry[1] >= log.first_index]
        elif what == "reset":
            log.reset((b"", log.last_index + number, log.last_term))
            synced = list(log.entries)
        elif what == "sync":
            log.sync()
            synced = list(log.entries)
        elif what == "crash":
            disk.crash(chance)
            log = journal(disk, 150)
            assert log.entries[: len(synced)] == synced
            synced = list(log.entries)
    log.close()
    assert journal(disk).entries == log.entries


def test_compaction_syncs_first_so_that_a_crash_cannot_leave_an_empty_log() -> None:
    disk, log = filled(5, segment_bytes_max=150)
    log.append((b"unsynced", 6, 1))
    log.compact(6)
    disk.crash(Random(0))
    assert journal(disk, 150).last_index == 6


def test_scanning_never_raises_whatever_the_bytes() -> None:
    chance = Random(3)
    for _ in range(200):
        data = chance.randbytes(chance.randint(0, 300))
        found = scan(data)
        assert found.damage == ("torn" if data else "none")


def test_a_full_disk_stops_the_node_with_a_message_and_acknowledges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = RaftWorld("A")
    a = world.leader()
    world.settle()

    def full(_data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for file in a.disk.files.values():
        monkeypatch.setattr(file, "write", full)
    world.propose(a, b"never")
    a.engine.tick()
    (failure,) = a.failures
    assert isinstance(failure, JournalFailed)
    assert "No space left on device" in str(failure)
    assert a.engine.status.failure is failure
    a.engine.tick()
    assert world.acknowledged == []
    assert len(a.failures) == 1


def test_a_leader_that_cannot_store_the_newer_term_it_hears_of_does_not_count_as_leader_of_that_term(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = RaftWorld("ABC")
    a = world.leader()
    world.settle()
    term = a.engine.status.term

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(a.disk, "open", full)
    (other, _) = (node for node in world.nodes.values() if node is not a)
    newer = AppendResponse(term + 1, next_index=1, success=False, reset=False, stream=0)
    a.engine.receive(other.tag, messages.encode(newer))
    assert isinstance(a.engine.status.failure, JournalFailed)
    assert (a.engine.status.role, a.engine.status.leader, a.engine.status.elected_ns) == ("Follower", None, None)


@pytest.mark.parametrize("name", ["vote", "peers"])
def test_a_damaged_small_file_refuses_the_start_and_names_it(name: str) -> None:
    world = RaftWorld("A")
    a = world.leader()
    a.disk.files[HERE / name].data[-1] ^= 1
    with pytest.raises(StorageDamaged, match=f"/simulated/{name}"):
        a.start()


def test_a_lost_vote_refuses_the_start() -> None:
    world = RaftWorld("A")
    a = world.leader()
    del a.disk.files[HERE / "vote"]
    with pytest.raises(StorageDamaged, match="vote is missing"):
        a.start()


def test_a_lost_journal_refuses_the_start() -> None:
    world = RaftWorld("A")
    a = world.leader()
    for path in [path for path in a.disk.files if path.name.startswith("journal-")]:
        del a.disk.files[path]
    with pytest.raises(StorageDamaged, match="no journal"):
        a.start()


def test_a_journal_that_ends_before_what_was_known_committed_refuses_the_start() -> None:
    world = RaftWorld("A")
    a = world.leader()
    for number in range(10):
        world.propose(a, b"%d" % number)
        world.round()
    world.round(1_500)
    world.round(1_500)
    del a.disk.files[FIRST].data[-40:]
    with pytest.raises(StorageDamaged, match="acknowledged entries are gone"):
        a.start()


def test_a_lost_snapshot_refuses_the_start() -> None:
    world = RaftWorld("A", snapshot_bytes_min=1_000, segment_bytes_max=300, trailing_entries=2)
    a = world.leader()
    while a.engine.status.snapshot_index == 0:
        world.propose(a, b"x" * 50)
        world.round()
    del a.disk.files[HERE / "snapshot"]
    with pytest.raises(StorageDamaged, match="snapshot that must come before it is missing"):
        a.start()


def test_a_vote_is_durable_when_it_is_stored_and_a_damaged_commit_hint_is_no_matter() -> None:
    disk = CrashDisk()
    files = HardStateFiles(disk, HERE)
    assert files.load_vote(first_start=True) == HardState()
    files.store_vote(HardState(7, "B"))
    files.store_commit(12)
    disk.files[HERE / "commit"].sync()
    disk.crash(Random(0))
    assert files.load_vote(first_start=False) == HardState(7, "B")
    assert files.load_commit() == 12
    disk.files[HERE / "commit"].data[0] ^= 1
    assert files.load_commit() == 0
    first = (Peer("A", "a:1"), Peer("B", "b:1", voter=False))
    assert files.load_peers(first) == first
    assert files.load_peers(()) == first
