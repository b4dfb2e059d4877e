"""A cluster begins again with one node: by force after the loss of a majority, or from a saved snapshot.

Works on the data directory of a node that does not run; the lock on it makes sure of that.
"""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config import Settings
from raftnode.cluster import bootstrap as formations
from raftnode.cluster.identity import ClaimedDirectory, IdentityError, claim_directory, note_superseded
from raftnode.cluster.replica import Replica
from raftnode.consensus.model import ConsensusFailed
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.offline import LastEntry
from raftnode.foundation import addresses, timestamps
from raftnode.record import recovery, snapshot
from raftnode.record.model import ClusterNode, Record

GENERATIONS_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
INDEX_GAP = 1_000_000
"""How far the indexes jump: what the lost nodes alone had in their logs was numbered too, and targets may know it."""
ANSWER_S = 0.5
NOT_DATA = frozenset({"lost+found"})


class RecoveryRefused(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True)
class Survivor:
    """A node that was stopped: where its log ends, the record at that entry, and what a recovery with it would lose."""

    tag: str
    last: LastEntry
    record: Record
    claimed: ClaimedDirectory | None = None

    @property
    def others(self) -> list[ClusterNode]:
        """The other nodes of the cluster."""
        return [node for tag, node in sorted(self.record.nodes.items()) if tag != self.tag]

    @property
    def only_begun(self) -> bool:
        """Whether it began again and did nothing since: a start adds an entry. The recovery is being repeated then, and
        takes no other generation, which would be ahead of the clock and may be that of the next survivor."""
        nodes = self.record.nodes
        return self.record.generation > 0 and not self.others and nodes[self.tag].placement_index == self.last.index

    @property
    def without_copy(self) -> list[str]:
        """The databases that this node has no copy of."""
        return recovery.without_copy(self.record, self.tag)


@contextlib.contextmanager
def survivor(settings: Settings) -> Iterator[Survivor]:
    """Holds the directory of the stopped node and reads it to its end. Raises RecoveryRefused."""
    data_dir, tag = Path(settings.node.data_dir), settings.node.tag
    if not offline.has_log(data_dir / "raft"):
        raise RecoveryRefused(
            f"{data_dir} holds no log of a cluster. Give the data directory of a node (node.data_dir)."
        )
    with _held(data_dir, tag) as claimed:
        replica = Replica()
        last = offline.replay(data_dir / "raft", replica)
        if tag not in replica.record.nodes:
            raise RecoveryRefused(
                f"Node {tag} is in no cluster: it was removed, or never joined. Recover one that was in it to the end."
            )
        yield Survivor(tag, last, replica.record, claimed)


def force_new_cluster(settings: Settings, survivor: Survivor) -> None:
    """Makes the survivor the only node of its cluster, with every epoch above the previous ones. Within `survivor`.

    Raises RecoveryRefused while another node of the cluster answers.
    """
    answering = [node for node in survivor.others if _answers(node.cluster_address)]
    if answering:
        shown = ", ".join(f"{node.tag} ({node.cluster_address} answers)" for node in answering)
        raise RecoveryRefused(
            f"Still running: {shown}. Stop every other node first, for good: two clusters of one would "
            "both run the tasks."
        )
    data_dir = Path(settings.node.data_dir)
    begun, record = begun_by_force(survivor, datetime.now(UTC))
    bootstrap = formations.of_a_new_cluster(settings, record.nodes[survivor.tag].cluster_address)
    # The log first: a node with the old log and the new name would be refused by everybody.
    offline.begin_anew(data_dir / "raft", bootstrap.peers[0], begun, snapshot.frames(record))
    formations.store(data_dir, bootstrap)
    if survivor.claimed is not None:
        note_superseded(data_dir, survivor.claimed, superseded=False)


def begun_by_force(survivor: Survivor, now: datetime) -> tuple[LastEntry, Record]:
    """Where the survivor's log goes on, and the record there."""
    begun = LastEntry(survivor.last.term, survivor.last.index + INDEX_GAP)
    record = recovery.recovered(
        survivor.record,
        survivor.tag,
        index=begun.index,
        term=begun.term,
        generation=survivor.record.generation if survivor.only_begun else _generation(survivor.record, now),
        at=timestamps.of(now),
    )
    return begun, record


def read_saved(file: Path) -> Record:
    """The record in a saved snapshot, verified to the last byte. Raises RecoveryRefused."""
    return _read(file)[0]


def restore(settings: Settings, file: Path) -> Record:
    """Begins a cluster of its own from a saved snapshot, in an empty data directory; its record. Raises
    RecoveryRefused, and leaves the directory as it was."""
    data_dir, tag = Path(settings.node.data_dir), settings.node.tag
    saved, last = _read(file)
    _refuse_data(data_dir)
    bootstrap = formations.of_a_new_cluster(settings)
    node = ClusterNode(tag=tag, url=settings.url, cluster_address=settings.cluster_address)
    record = begun_from(saved, last, node, formations.new_cluster_id(bootstrap), datetime.now(UTC))
    with _held(data_dir, tag):
        try:
            offline.begin_anew(data_dir / "raft", bootstrap.peers[0], last, snapshot.frames(record))
            formations.store(data_dir, bootstrap)
        except BaseException:
            _empty(data_dir)
            raise
    return record


def begun_from(saved: Record, last: LastEntry, node: ClusterNode, cluster_id: str, now: datetime) -> Record:
    """The record that a cluster of that node alone begins with, from one that was saved at entry `last`."""
    return recovery.restored(
        saved,
        node,
        cluster_id=cluster_id,
        index=last.index,
        term=last.term,
        generation=_generation(saved, now),
        at=timestamps.of(now),
    )


def _read(file: Path) -> tuple[Record, LastEntry]:
    replica = Replica()
    try:
        last = offline.read_snapshot(file, replica)
    except OSError as error:
        raise RecoveryRefused(f"{file} cannot be read: {error.strerror}.") from error
    except (ConsensusFailed, snapshot.SnapshotUnreadable) as error:
        raise RecoveryRefused(f"The snapshot is refused: {error}") from error
    return replica.record, last


def _refuse_data(data_dir: Path) -> None:
    try:
        held = sorted(path.name for path in data_dir.iterdir() if path.name not in NOT_DATA)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecoveryRefused(f"{data_dir} cannot be used: {error.strerror}. Give an empty directory.") from error
    if held:
        raise RecoveryRefused(
            f"{data_dir} is not empty: it holds {', '.join(held[:5])}. Give an empty one (--data-dir)."
        )


@contextlib.contextmanager
def _held(data_dir: Path, tag: str) -> Iterator[ClaimedDirectory]:
    try:
        claimed = claim_directory(data_dir, tag, superseded=True)
    except IdentityError as error:
        raise RecoveryRefused(str(error)) from error
    try:
        yield claimed
    except ConsensusFailed as error:
        raise RecoveryRefused(str(error)) from error
    except OSError as error:
        raise RecoveryRefused(f"The operating system refuses: {error}.") from error
    finally:
        claimed.release()


def _empty(data_dir: Path) -> None:
    for path in data_dir.iterdir():
        if path.name not in NOT_DATA:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _answers(address: str) -> bool:
    """Whether anything listens there. That one out of reach does not run is for the operator to know."""
    with contextlib.suppress(OSError), socket.create_connection(addresses.split(address), timeout=ANSWER_S):
        return True
    return False


def _generation(record: Record, now: datetime) -> int:
    return recovery.raised(record.generation, (now - GENERATIONS_BEGIN) // timedelta(minutes=1))
