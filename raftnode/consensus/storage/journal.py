"""The write-ahead log: entries in checksummed segment files, all of them in memory too.

`append` only collects; `sync` writes what was collected and returns once it is on the disk, so that everything that
arrives in one turn of the event loop costs one fdatasync. Old entries go by whole segments, which never rewrites
anything; what stays of the oldest segment is the trailing log from which a follower that is a little behind is served.
"""

from dataclasses import dataclass, field
from pathlib import Path

import structlog

from raftnode.consensus.model import JournalFailed, StorageDamaged
from raftnode.consensus.storage.disk import Disk, File
from raftnode.consensus.storage.segment import Entry, discontinuity, encode, scan

log = structlog.get_logger(__name__)

PREFIX = "journal-"
SUFFIX = ".log"
REMEDY = "Restore the directory from this node's backup, or remove the node and add it again under a new, empty one."


@dataclass
class Segment:
    """One file: where each of its entries begins, and the bytes written to it or collected for it."""

    path: Path
    file: File
    first_index: int
    offsets: list[int] = field(default_factory=list)
    size_bytes: int = 0


class Journal:
    """The log of one node. Indexes are contiguous; the oldest entry is only a predecessor, never sent or applied.

    Every method that touches the disk raises JournalFailed when the disk refuses; after that nothing may be
    acknowledged any more.
    """

    def __init__(self, disk: Disk, directory: Path, *, segment_bytes_max: int) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes_max = segment_bytes_max
        self._entries: list[Entry] = []
        self._segments: list[Segment] = []
        self._collected = bytearray()
        self._dirty = False
        self.appended_bytes = 0
        """How many bytes were ever appended by this process, those read at start included."""
        try:
            self._load()
        except OSError as error:
            raise JournalFailed(f"The journal in {directory} cannot be read: {error}.") from error

    # reading

    @property
    def entries(self) -> list[Entry]:
        """The entries in memory, oldest first. Not to be changed."""
        return self._entries

    @property
    def first_index(self) -> int:
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        return self._entries[-1][2]

    @property
    def paths(self) -> list[Path]:
        """The segments' files."""
        return [segment.path for segment in self._segments]

    @property
    def size_bytes(self) -> int:
        """The bytes of all segments."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def dirty(self) -> bool:
        """Whether `sync` has anything to do."""
        return self._dirty

    def __len__(self) -> int:
        return len(self._entries)

    def term_at(self, index: int) -> int | None:
        """The term of the entry, or None when the log does not hold it."""
        position = index - self._entries[0][1] if self._entries else -1
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def bytes_after(self, index: int) -> int:
        """The bytes of the entries behind `index`."""
        total = 0
        for segment in self._segments:
            skip = max(0, index + 1 - segment.first_index)
            if skip < len(segment.offsets):
                total += segment.size_bytes - segment.offsets[skip]
        return total

    # writing

    def append(self, entry: Entry) -> None:
        """Adds the entry to the log and to what is to be written; it is durable after the next `sync`."""
        if not self._segments or self._segments[-1].size_bytes >= self._segment_bytes_max:
            self._roll(entry[1])
        segment = self._segments[-1]
        record = encode(entry)
        segment.offsets.append(segment.size_bytes)
        segment.size_bytes += len(record)
        self._collected += record
        self._entries.append(entry)
        self.appended_bytes += len(record)
        self._dirty = True

    def sync(self) -> None:
        """Returns once every entry, and every truncation, is on the disk."""
        if not self._dirty:
            return
        try:
            self._write()
            self._segments[-1].file.sync()
        except OSError as error:
            raise JournalFailed(f"{self._segments[-1].path} cannot be written: {error}.") from error
        self._dirty = False

    def truncate(self, index: int) -> None:
        """Drops the entry `index` and all behind it. The first entry stays."""
        keep = index - self.first_index
        assert keep > 0, f"entry {self.first_index} is the log's base and cannot be truncated"
        if keep >= len(self._entries):
            return
        try:
            self._write()
            while self._segments[-1].first_index >= index:
                self._drop(self._segments.pop())
            segment = self._segments[-1]
            position = index - segment.first_index
            if position < len(segment.offsets):
                segment.size_bytes = segment.offsets[position]
                del segment.offsets[position:]
                segment.file.truncate(segment.size_bytes)
        except OSError as error:
            raise JournalFailed(f"The journal in {self._directory} cannot be truncated: {error}.") from error
        del self._entries[keep:]
        self._dirty = True

    def compact(self, index: int) -> None:
        """Lets go of segments that hold only entries before `index`, once all that stays is on the disk."""
        self.sync()
        try:
            while len(self._segments) > 1 and self._segments[1].first_index <= index:
                segment = self._segments.pop(0)
                del self._entries[: len(segment.offsets)]
                self._drop(segment)
        except OSError as error:
            raise JournalFailed(f"The journal in {self._directory} cannot be compacted: {error}.") from error

    def reset(self, base: Entry) -> None:
        """Throws everything away and begins again with one entry, whose command no longer matters.

        A crash on the way leaves a beginning of the old log, which the next start throws away as well, since the
        snapshot that made it obsolete is durable before this is called.
        """
        try:
            self._collected.clear()
            while self._segments:
                self._drop(self._segments.pop())
        except OSError as error:
            raise JournalFailed(f"The journal in {self._directory} cannot be reset: {error}.") from error
        self._entries.clear()
        self.append(base)
        self.sync()

    def close(self) -> None:
        """Makes everything durable and closes the files."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Closes the files and leaves on the disk what is there."""
        for segment in self._segments:
            segment.file.close()

    # inside

    def _write(self) -> None:
        if self._collected:
            data = bytes(self._collected)
            self._collected.clear()
            self._segments[-1].file.write(data)

    def _roll(self, first_index: int) -> None:
        path = self._directory / f"{PREFIX}{first_index:016x}{SUFFIX}"
        try:
            if self._segments:
                self._write()
                self._segments[-1].file.sync()
            file = self._disk.open(path)
            file.truncate(0)
            self._disk.sync_directory(self._directory)
        except OSError as error:
            raise JournalFailed(f"{path} cannot be made: {error}.") from error
        self._segments.append(Segment(path, file, first_index))

    def _drop(self, segment: Segment) -> None:
        segment.file.close()
        self._disk.remove(segment.path)

    def _load(self) -> None:
        names = sorted(n for n in self._disk.names(self._directory) if n.startswith(PREFIX) and n.endswith(SUFFIX))
        for name in names:
            self._load_segment(self._directory / name, last=name == names[-1])
        self.appended_bytes = self.size_bytes

    def _load_segment(self, path: Path, *, last: bool) -> None:
        file = self._disk.open(path)
        found = scan(file.read(0, file.size_bytes()))
        where = (
            f"{path} is damaged at byte {found.end}, after entry {found.entries[-1][1] if found.entries else 'none'}"
        )
        if found.damage == "rotten":
            raise StorageDamaged(f"{where}: a record does not match its checksum, and sound ones follow it. {REMEDY}")
        if found.damage == "newer":
            raise StorageDamaged(f"{path} was written by a newer version from byte {found.end} on: upgrade this node.")
        if found.damage == "torn" and not last:
            raise StorageDamaged(f"{where}: it ends early, and another segment follows it. {REMEDY}")
        if found.damage == "torn":
            cut = file.size_bytes() - found.end
            log.warning(
                "The journal's torn tail is cut, as its last write was never finished.", file=str(path), bytes=cut
            )
            file.truncate(found.end)
            file.sync()
        if not found.entries:
            file.close()
            self._disk.remove(path)
            return
        before = self._entries[-1][1:] if self._entries else (found.entries[0][1] - 1, 0)
        odd = discontinuity(found.entries, *before)
        if odd is not None or path.name != f"{PREFIX}{found.entries[0][1]:016x}{SUFFIX}":
            raise StorageDamaged(f"{path} does not continue the segment before it: entries are missing. {REMEDY}")
        self._entries.extend(found.entries)
        self._segments.append(Segment(path, file, found.entries[0][1], found.offsets, found.end))
