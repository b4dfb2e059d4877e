"""The snapshot's files on a real disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftnode.consensus.storage.disk import SystemDisk
from raftnode.consensus.storage.snapshot import WRITING, SnapshotDescription, SnapshotStore


def test_a_snapshot_that_cannot_be_finished_gives_its_room_back_and_the_old_one_stays(tmp_path: Path) -> None:
    store = SnapshotStore(SystemDisk(), tmp_path)
    old = SnapshotDescription(index=1, term=1, peers=(), peers_index=1)
    store.write(old, [b"old"])
    store.adopt_written()

    def chunks() -> Iterator[bytes]:
        yield b"x" * 1_000_000
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.write(SnapshotDescription(index=2, term=1, peers=(), peers_index=1), chunks())
    assert (tmp_path / WRITING).stat().st_size == 0
    assert store.describe() == old
    assert list(store.chunks()) == [b"old"]
