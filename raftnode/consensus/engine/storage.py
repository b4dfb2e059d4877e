"""All that a node has on its disk, opened and made consistent before Raft starts."""

from dataclasses import dataclass
from pathlib import Path

import structlog

from raftnode.consensus.engine.members import NO_OP, Members
from raftnode.consensus.engine.package_log import PackageLog
from raftnode.consensus.model import JournalFailed, Peer, RaftConfig, StorageDamaged
from raftnode.consensus.storage.disk import Disk
from raftnode.consensus.storage.hard_state import COMMIT, VOTE, HardState, HardStateFiles
from raftnode.consensus.storage.journal import REMEDY, Journal
from raftnode.consensus.storage.snapshot import SnapshotDescription, SnapshotStore

log = structlog.get_logger(__name__)


@dataclass
class Storage:
    """The opened files. `description` is that of the snapshot the state machine is to be restored from, if any."""

    log: PackageLog
    snapshots: SnapshotStore
    description: SnapshotDescription | None
    members: Members


def open_storage(disk: Disk, config: RaftConfig, peers: tuple[Peer, ...]) -> Storage:
    """Opens a node's directory, or makes it. `peers` counts only at the first start: later the directory rules.

    Reads and verifies everything, so it belongs in a thread. Raises StorageDamaged or JournalFailed.
    """
    directory = config.data_dir
    try:
        snapshots = SnapshotStore(disk, directory)
        description = snapshots.describe() if snapshots.exists() else None
    except OSError as error:
        raise JournalFailed(f"{directory} cannot be read: {error}.") from error
    files = HardStateFiles(disk, directory)
    journal = Journal(disk, directory, segment_bytes_max=config.segment_bytes_max)
    first_start = not len(journal) and description is None
    vote = files.load_vote(first_start=first_start and not config.took_part)
    if first_start and vote.term > 0 and not vote.recover_to:
        raise StorageDamaged(
            f"{directory} has the file {VOTE!r} but no journal: acknowledged entries are gone. {REMEDY}"
        )
    if vote.wiping or _half_wiped(vote, journal, description):
        description, vote = None, _wiped(vote, files, snapshots, journal)
    commit_index = files.load_commit()
    _align(journal, description, directory)
    last_index = journal.last_index if len(journal) else 0
    if commit_index > last_index and not vote.recover_to:
        raise StorageDamaged(
            f"The journal in {directory} ends at entry {last_index}, but {COMMIT!r} says that entry {commit_index} was "
            f"committed and synced here: acknowledged entries are gone. {REMEDY}"
        )
    base = description.index if description else 1
    members = _members(journal, description, files.load_peers(peers))
    package_log = PackageLog(journal, files, vote, max(base, min(commit_index, last_index)))
    return Storage(package_log, snapshots, description, members)


def _half_wiped(vote: HardState, journal: Journal, description: SnapshotDescription | None) -> bool:
    """What a crash on the way left when the vote did not yet say `wiping`."""
    return bool(vote.recover_to) and description is None and len(journal) > 0 and journal.first_index != 1


def _wiped(vote: HardState, files: HardStateFiles, snapshots: SnapshotStore, journal: Journal) -> HardState:
    """Goes on with throwing everything away, and gives the vote as it is then. See `Resync.reset_from_leader`."""
    log.warning("This node goes on dropping its log and state, as it crashed while doing so.")
    vouched = journal.last_index if len(journal) else 0
    begun = HardState(vote.term, vote.voted_for, max(vote.recover_to, vouched), wiping=True)
    files.store_vote(begun)
    snapshots.remove()
    journal.reset((NO_OP, 1, 0))
    done = HardState(begun.term, begun.voted_for, begun.recover_to)
    files.store_vote(done)
    return done


def _align(journal: Journal, description: SnapshotDescription | None, directory: Path) -> None:
    """Makes the journal continue the snapshot. PySyncObj throws the whole log away here unless it begins exactly with
    the snapshot; a crash between the two writes would then lose every entry behind it."""
    if description is None:
        if len(journal) and journal.first_index != 1:
            raise StorageDamaged(
                f"The journal in {directory} begins at entry {journal.first_index}, but the snapshot that must come "
                f"before it is missing. {REMEDY}"
            )
        return
    index, term = description.index, description.term
    if journal.term_at(index) == term:
        return
    if len(journal) and journal.first_index > index:
        raise StorageDamaged(
            f"The journal in {directory} begins at entry {journal.first_index}, but the snapshot ends at {index}: "
            f"entries between them are missing. {REMEDY}"
        )
    if len(journal):
        log.info("The journal is dropped, as the snapshot goes further.", snapshot=index, journal=journal.last_index)
    journal.reset((NO_OP, index, term))


def _members(journal: Journal, description: SnapshotDescription | None, first: tuple[Peer, ...]) -> Members:
    members = Members(description.peers, description.peers_index) if description else Members(first)
    base = description.index if description else 1
    for command, index, _ in journal.entries:
        if index > base:
            members.learn(index, command)
    return members
