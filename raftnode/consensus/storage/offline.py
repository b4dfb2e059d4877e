"""The log and the snapshot of a node that does not run: read to the last entry, and replaced by a new beginning.

A new beginning is a snapshot that goes one entry further than the log and whose only peer is this node. Renaming its
file into place is the one step that counts: before it the old log stands, after it the next start drops that log, as it
does for every snapshot that goes further. So a crash leaves the one or the other.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raftnode.consensus.engine import open_storage
from raftnode.consensus.engine.members import application_part
from raftnode.consensus.model import Peer, RaftConfig, StateMachine, StorageDamaged
from raftnode.consensus.storage.disk import Disk, SystemDisk
from raftnode.consensus.storage.hard_state import HardState, HardStateFiles
from raftnode.consensus.storage.journal import PREFIX
from raftnode.consensus.storage.snapshot import SNAPSHOT, SnapshotDescription, SnapshotStore, decoded
from raftnode.foundation.decoding import DECODE_ERRORS, from_msgpack

RESTORE_REMEDY = "Nothing was restored; give a file that `raftnode snapshot save` wrote to its end."


@dataclass(frozen=True)
class LastEntry:
    """Where a log ends. Of two survivors the one with the higher (term, index) is the more advanced."""

    term: int
    index: int


def has_log(directory: Path) -> bool:
    """Whether a node has ever taken part with that directory."""
    return directory.is_dir() and _has_log(SystemDisk(), directory)


def replay(directory: Path, machine: StateMachine, disk: Disk | None = None) -> LastEntry:
    """Brings the machine to the end of the log. Entries that are not known to be committed count too: a majority may
    have acknowledged them and be lost. Raises StorageDamaged or JournalFailed."""
    disk = disk or SystemDisk()
    storage = open_storage(disk, RaftConfig(data_dir=directory), ())
    journal = storage.log.journal
    try:
        recover_to = HardStateFiles(disk, directory).load_vote(first_start=False).recover_to
        base = storage.description.index if storage.description else 1
        if recover_to > max(base, journal.last_index):
            raise StorageDamaged(
                f"{directory} was emptied to take the leader's log and does not hold all of it yet: acknowledged "
                "entries are missing. Recover another survivor."
            )
        if storage.description is not None:
            machine.restore(storage.snapshots.chunks())
        for command, index, term in journal.entries:
            body = application_part(command)
            if index > base and body is not None:
                machine.apply(index, term, body)
        return LastEntry(journal.last_term, journal.last_index)
    finally:
        journal.close()


def begin_anew(directory: Path, peer: Peer, last: LastEntry, chunks: Iterable[bytes], disk: Disk | None = None) -> None:
    """Makes the state in `chunks` that of entry `last`, and `peer` the only voter. Raises OSError."""
    disk = disk or SystemDisk()
    files, snapshots = HardStateFiles(disk, directory), SnapshotStore(disk, directory)
    if not _has_log(disk, directory):
        files.store_vote(HardState(term=last.term))
    snapshots.write(SnapshotDescription(last.index, last.term, (peer,), last.index), chunks)
    snapshots.adopt_written()
    open_storage(disk, RaftConfig(data_dir=directory), ()).log.journal.close()


def read_snapshot(path: Path, machine: StateMachine) -> LastEntry:
    """Brings the machine to where a saved snapshot ends, once all of the file is verified. Raises StorageDamaged, or
    OSError."""
    with path.open("rb"):  # opening it as a store's file would make it
        file = SystemDisk().open(path)
    try:
        frames = decoded(path, file, RESTORE_REMEDY)
        first = next(frames, b"")
        for _ in frames:
            pass
        frames = decoded(path, file, RESTORE_REMEDY)
        next(frames, None)
        description = from_msgpack(first, SnapshotDescription)
        machine.restore(frames)
    except DECODE_ERRORS as error:
        raise StorageDamaged(f"{path} holds no snapshot of the cluster ({error}). {RESTORE_REMEDY}") from error
    finally:
        file.close()
    return LastEntry(description.term, description.index)


def _has_log(disk: Disk, directory: Path) -> bool:
    return any(name.startswith((PREFIX, SNAPSHOT)) for name in disk.names(directory))
