"""The small durable facts beside the journal: term and vote, the first peers, and a hint of the commit index.

Each is a file of its own, replaced as a whole and checksummed. The vote is synced before anything that rests on it
leaves the node; the commit index is a hint that lets a restarted node apply what it knows to be committed.
"""

import zlib
from pathlib import Path

import msgspec

from raftnode.consensus.model import JournalFailed, Peer, StorageDamaged
from raftnode.consensus.storage.disk import Disk
from raftnode.foundation.decoding import DECODE_ERRORS, from_msgpack

VOTE = "vote"
PEERS = "peers"
COMMIT = "commit"
REMEDY = "Remove the node from the cluster and add it again under a new, empty directory: it must not vote twice."


class HardState(msgspec.Struct, frozen=True):
    """The current term, whom this node voted for in it, and the index below which it may not vote, because it lost
    what it had acknowledged (0: it may). `wiping`: the log and the snapshot are being thrown away; a start goes on with
    that."""

    term: int = 0
    voted_for: str | None = None
    recover_to: int = 0
    wiping: bool = False


class HardStateFiles:
    """The files of one directory. Raises JournalFailed when the disk refuses, StorageDamaged when a file is not what
    was written."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory

    def load_vote(self, *, first_start: bool) -> HardState:
        """The stored vote. Missing, it is made at the first start and refused at any later one."""
        path = self._directory / VOTE
        data = self._read(VOTE)
        if data is None and first_start:
            self.store_vote(HardState())
            return HardState()
        if data is None:
            raise StorageDamaged(
                f"{path} is missing, but this node has taken part before: its vote is not known. {REMEDY}"
            )
        try:
            return from_msgpack(data, HardState)
        except DECODE_ERRORS as error:
            raise StorageDamaged(f"{path} cannot be read ({error}): its vote is not known. {REMEDY}") from error

    def store_vote(self, vote: HardState) -> None:
        """Returns once the vote is on the disk."""
        self._write(VOTE, msgspec.msgpack.encode(vote))

    def load_peers(self, default: tuple[Peer, ...]) -> tuple[Peer, ...]:
        """The peers this node first started with; `default` becomes that at the first start."""
        data = self._read(PEERS)
        if data is None:
            self._write(PEERS, msgspec.msgpack.encode(default))
            return default
        try:
            return from_msgpack(data, tuple[Peer, ...])
        except DECODE_ERRORS as error:
            raise StorageDamaged(f"{self._directory / PEERS} cannot be read ({error}). {REMEDY}") from error

    def load_commit(self) -> int:
        """The last known commit index, or 0. Nothing rests on it being there."""
        try:
            data = self._read(COMMIT)
            return from_msgpack(data, int) if data is not None else 0
        except (StorageDamaged, *DECODE_ERRORS):
            return 0  # the leader tells it again

    def store_commit(self, index: int) -> None:
        """Stores the hint in place, unsynced: it may be lost or torn with the power."""
        path = self._directory / COMMIT
        try:
            file = self._disk.open(path)
            try:
                file.truncate(0)
                file.write(_sealed(msgspec.msgpack.encode(index)))
            finally:
                file.close()
        except OSError as error:
            raise JournalFailed(f"{path} cannot be written: {error}.") from error

    def _read(self, name: str) -> bytes | None:
        if name not in self._disk.names(self._directory):
            return None
        file = self._disk.open(self._directory / name)
        try:
            data = file.read(0, file.size_bytes())
        finally:
            file.close()
        if len(data) < 4 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            raise StorageDamaged(f"{self._directory / name} does not match its checksum. {REMEDY}")
        return data[4:]

    def _write(self, name: str, data: bytes) -> None:
        path, fresh = self._directory / name, self._directory / f"{name}.new"
        try:
            file = self._disk.open(fresh)
            try:
                file.truncate(0)
                file.write(_sealed(data))
                file.sync()
            finally:
                file.close()
            self._disk.replace(fresh, path)
        except OSError as error:
            raise JournalFailed(f"{path} cannot be written: {error}.") from error


def _sealed(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little") + data
