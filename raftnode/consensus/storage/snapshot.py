"""Snapshot files: streamed, checksummed, written aside and renamed when complete.

A file is a magic line and frames of (length, CRC-32, data): first the description, then the state machine's chunks,
last an empty frame that carries the number of chunks. A file without its last frame is incomplete. A snapshot that a
leader sends is the very bytes of its file.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from raftnode.consensus.model import JournalFailed, Peer, StorageDamaged
from raftnode.consensus.storage.disk import Disk, File
from raftnode.foundation.decoding import from_msgpack

MAGIC = b"raftnode snapshot 1\n"
FRAME = struct.Struct("<II")
CHUNK_BYTES_MAX = 64 * 1024 * 1024

SNAPSHOT = "snapshot"
WRITING = "snapshot.writing"
INCOMING = "snapshot.incoming"
REMEDY = "Remove the node from the cluster and add it again under a new, empty directory, or restore it from a backup."


class SnapshotDescription(msgspec.Struct, frozen=True):
    """The last entry a snapshot contains, and the cluster's peers as of that entry."""

    index: int
    term: int
    peers: tuple[Peer, ...]
    peers_index: int


class SnapshotStore:
    """The snapshot of one node, the one being written, and the one being received."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        self.path = directory / SNAPSHOT
        for leftover in (WRITING, INCOMING):
            if leftover in disk.names(directory):
                disk.remove(directory / leftover)

    def exists(self) -> bool:
        """Whether there is a complete snapshot."""
        return SNAPSHOT in self._disk.names(self._directory)

    def open(self) -> File:
        """The snapshot's file, for sending it. It stays readable when a newer one takes its place."""
        return self._disk.open(self.path)

    def size_bytes(self) -> int:
        """The size of the snapshot, 0 when there is none."""
        if not self.exists():
            return 0
        file = self.open()
        try:
            return file.size_bytes()
        finally:
            file.close()

    def write(self, description: SnapshotDescription, chunks: Iterable[bytes]) -> int:
        """Writes a snapshot aside, syncs it and returns its size in bytes. For a thread; `adopt_written` follows on
        the loop. Raises OSError, or ValueError for a chunk above the limit."""
        file = self._disk.open(self._directory / WRITING)
        try:
            file.truncate(0)
            for data in encoded(description, chunks):
                file.write(data)
            file.sync()
            return file.size_bytes()
        except BaseException:
            # What a full disk did not take must not keep it full.
            file.truncate(0)
            raise
        finally:
            file.close()

    def adopt_written(self) -> None:
        """Makes what `write` wrote the snapshot."""
        self._adopt(WRITING)

    def start_incoming(self) -> File:
        """An empty file for the bytes a leader sends."""
        file = self._disk.open(self._directory / INCOMING)
        file.truncate(0)
        return file

    def adopt_incoming(self) -> None:
        """Makes what was received the snapshot. It must have been verified and synced."""
        self._adopt(INCOMING)

    def remove(self) -> None:
        """Throws the snapshot away."""
        self._disk.remove(self.path)

    def describe(self, *, incoming: bool = False) -> SnapshotDescription:
        """Reads and verifies the whole file, and gives its description. Raises StorageDamaged. For a thread."""
        frames = self._frames(incoming)
        description = from_msgpack(next(frames), SnapshotDescription)
        for _ in frames:
            pass
        return description

    def chunks(self, *, incoming: bool = False) -> Iterator[bytes]:
        """The state machine's chunks, verified one by one."""
        frames = self._frames(incoming)
        next(frames)
        yield from frames

    def _adopt(self, name: str) -> None:
        try:
            self._disk.replace(self._directory / name, self.path)
        except OSError as error:
            raise JournalFailed(f"{self.path} cannot be replaced: {error}.") from error

    def _frames(self, incoming: bool) -> Iterator[bytes]:
        path = self._directory / INCOMING if incoming else self.path
        file = self._disk.open(path)
        try:
            yield from decoded(path, file, REMEDY)
        finally:
            file.close()


def encoded(description: SnapshotDescription, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a snapshot's file, piece by piece. Raises ValueError for a chunk above the limit."""
    yield MAGIC + _frame(msgspec.msgpack.encode(description))
    count = 0
    for chunk in chunks:
        if not 0 < len(chunk) <= CHUNK_BYTES_MAX:
            raise ValueError(f"A snapshot chunk of {len(chunk)} bytes is not within 1 to {CHUNK_BYTES_MAX}.")
        yield _frame(chunk)
        count += 1
    yield FRAME.pack(0, count)


def decoded(path: Path, file: File, remedy: str) -> Iterator[bytes]:
    """A snapshot's description and then its chunks, verified one by one. Raises StorageDamaged, which names the file
    and the remedy."""
    if file.read(0, len(MAGIC)) != MAGIC:
        raise StorageDamaged(f"{path} is not a snapshot of a format this version reads. {remedy}")
    offset, count = len(MAGIC), -1
    while True:
        header = file.read(offset, FRAME.size)
        if len(header) < FRAME.size:
            raise StorageDamaged(f"{path} is incomplete: it ends at byte {offset} without its last frame. {remedy}")
        length, check = FRAME.unpack(header)
        if length == 0:
            if check != count:
                raise StorageDamaged(f"{path} is damaged: {count} chunks where {check} were written. {remedy}")
            return
        if length > CHUNK_BYTES_MAX:
            raise StorageDamaged(f"{path} is damaged at byte {offset}: a frame of {length} bytes. {remedy}")
        data = file.read(offset + FRAME.size, length)
        if len(data) != length or zlib.crc32(data) != check:
            raise StorageDamaged(f"{path} is damaged at byte {offset}: a chunk does not match its checksum. {remedy}")
        yield data
        offset += FRAME.size + length
        count += 1


def _frame(data: bytes) -> bytes:
    return FRAME.pack(len(data), zlib.crc32(data)) + data
