"""The log of a node that does not run: read to its end, and replaced by a new beginning."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from raftnode.consensus.engine import open_storage
from raftnode.consensus.engine.members import MEMBERSHIP, NO_OP, REGULAR, encode
from raftnode.consensus.model import Peer, RaftConfig, StorageDamaged
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.hard_state import HardState, HardStateFiles
from raftnode.consensus.storage.journal import Journal
from raftnode.consensus.storage.offline import LastEntry
from raftnode.consensus.storage.snapshot import WRITING, SnapshotStore

PEERS = tuple(Peer(tag, f"{tag}:1") for tag in "ABC")


class RestoredMachine:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.state: list[bytes] = []

    def apply(self, index: int, term: int, command: bytes) -> Any:
        self.state.append(command)

    def refuses(self, command: bytes) -> str | None:
        return None

    def dump(self) -> Callable[[], Iterable[bytes]]:
        return lambda: list(self.state)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.state = list(chunks)

    def after_tick(self) -> None:
        pass


def stopped(directory: Path, *, vote: HardState = HardState(term=3)) -> Path:  # noqa: B008
    """The directory of a node that knows that entry 3 of 5 was committed."""
    directory.mkdir()
    disk = SystemDisk()
    files = HardStateFiles(disk, directory)
    files.store_vote(vote)
    files.load_peers(PEERS)
    files.store_commit(3)
    journal = Journal(disk, directory, segment_bytes_max=1 << 20)
    commands = (NO_OP, REGULAR + b"one", encode(PEERS, b"two"), NO_OP, REGULAR + b"three")
    for index, command in enumerate(commands, start=1):
        journal.append((command, index, 1 if index < 4 else 3))
    journal.close()
    assert commands[2][:1] == MEMBERSHIP
    return directory


def test_entries_that_are_not_known_to_be_committed_count_too(tmp_path: Path) -> None:
    machine = RestoredMachine()
    assert offline.replay(stopped(tmp_path / "raft"), machine) == LastEntry(term=3, index=5)
    assert machine.state == [b"one", b"two", b"three"]


def test_a_new_beginning_has_one_voter_and_nothing_of_the_old_log(tmp_path: Path) -> None:
    directory = stopped(tmp_path / "raft")
    offline.begin_anew(directory, PEERS[0], LastEntry(3, 6), [b"all of it"])
    storage = open_storage(SystemDisk(), RaftConfig(data_dir=directory), PEERS)
    assert storage.members.current == PEERS[:1]
    assert [entry[1:] for entry in storage.log.journal.entries] == [(6, 3)]
    storage.log.journal.close()
    machine = RestoredMachine()
    assert offline.replay(directory, machine) == LastEntry(3, 6)
    assert machine.state == [b"all of it"]


def test_a_crash_before_the_new_beginning_is_in_place_leaves_the_old_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = stopped(tmp_path / "raft")

    def power_cut(store: SnapshotStore) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SnapshotStore, "adopt_written", power_cut)
    with pytest.raises(KeyboardInterrupt):
        offline.begin_anew(directory, PEERS[0], LastEntry(3, 6), [b"all of it"])
    monkeypatch.undo()
    assert (directory / WRITING).exists()
    machine = RestoredMachine()
    assert offline.replay(directory, machine) == LastEntry(3, 5)
    assert machine.state == [b"one", b"two", b"three"]


def test_a_crash_right_after_it_is_in_place_leaves_the_new_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = stopped(tmp_path / "raft")

    def power_cut(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(offline, "open_storage", power_cut)
    with pytest.raises(KeyboardInterrupt):
        offline.begin_anew(directory, PEERS[0], LastEntry(3, 6), [b"all of it"])
    monkeypatch.undo()
    machine = RestoredMachine()
    assert offline.replay(directory, machine) == LastEntry(3, 6)
    assert machine.state == [b"all of it"]


def test_a_survivor_that_lost_what_it_had_acknowledged_is_refused(tmp_path: Path) -> None:
    directory = stopped(tmp_path / "raft", vote=HardState(term=3, recover_to=9))
    with pytest.raises(StorageDamaged, match="Recover another survivor"):
        offline.replay(directory, RestoredMachine())


def test_a_directory_without_a_log_is_told_from_one_with(tmp_path: Path) -> None:
    assert not offline.has_log(tmp_path / "none")
    assert not offline.has_log(tmp_path)
    assert offline.has_log(stopped(tmp_path / "raft"))
