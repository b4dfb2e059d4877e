"""A disk of memory: a crash may take what was not synced, in whole or in part; it can be full, and bits can flip."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from random import Random


class PowerLost(Exception):
    """Whoever wrote to the disk is no more."""


class MemoryFile:
    """A file. `durable` is what a crash cannot take."""

    def __init__(self, disk: "MemoryDisk") -> None:
        self._disk = disk
        self.data = bytearray()
        self.durable = 0
        self.replaced: bytes | None = None

    def write(self, data: bytes) -> None:
        self._disk.check()
        self.data += data

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self.data[offset : offset + size_bytes])

    def size_bytes(self) -> int:
        return len(self.data)

    def truncate(self, size_bytes: int) -> None:
        self._disk.step()
        if size_bytes < self.durable and self.replaced is None:
            self.replaced = bytes(self.data[: self.durable])
        del self.data[size_bytes:]

    def sync(self) -> None:
        self._disk.check()
        if self._disk.syncs:
            self.durable, self.replaced = len(self.data), None

    def close(self) -> None: ...

    def copied(self, disk: "MemoryDisk") -> "MemoryFile":
        """The same file on another disk, all of it synced."""
        copy = MemoryFile(disk)
        copy.data, copy.durable = bytearray(self.data), len(self.data)
        return copy

    def crash(self, chance: Random) -> None:
        """Keeps what was synced and a random part of what was written after it."""
        if self.replaced is not None:
            if chance.random() < 0.5:
                self.data = bytearray(self.replaced)
        else:
            del self.data[chance.randint(self.durable, len(self.data)) :]
        self.durable, self.replaced = len(self.data), None


class MemoryDisk:
    """The disk of one node. `syncs` False makes a disk that lies. `steps_left`: after so many changes of anything on it
    the power fails."""

    def __init__(self) -> None:
        self.files: dict[Path, MemoryFile] = {}
        self.full = False
        self.syncs = True
        self.steps_left: int | None = None

    def step(self) -> None:
        """One change. Raises PowerLost when there is no power."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerLost
            self.steps_left -= 1

    def check(self) -> None:
        """One change that takes space. Raises OSError when the disk takes nothing."""
        self.step()
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in self.files if path.parent == directory)

    def open(self, path: Path) -> MemoryFile:
        if path not in self.files:
            self.check()
            self.files[path] = MemoryFile(self)
        return self.files[path]

    def replace(self, source: Path, target: Path) -> None:
        self.check()
        self.files[target] = self.files.pop(source)

    def remove(self, path: Path) -> None:
        self.step()
        self.files.pop(path, None)

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(path for path in paths if path not in self.files)

    def sync_directory(self, directory: Path) -> None:
        """Names are durable at once."""

    def copied(self) -> "MemoryDisk":
        """Another disk with the same files."""
        disk = MemoryDisk()
        disk.files = {path: file.copied(disk) for path, file in self.files.items()}
        return disk

    def crash(self, chance: Random) -> None:
        """The machine loses power, and has it again."""
        self.steps_left = None
        for _, file in sorted(self.files.items()):
            file.crash(chance)

    def flip(self, chance: Random) -> Path | None:
        """One bit of something that is on the disk is not what it was. Gives the file. The newest segment of the
        journal is spared: damage at its end looks like a write that a crash cut short."""
        spared = max((path for path in self.files if path.name.startswith("journal-")), default=None)
        written = sorted(path for path, file in self.files.items() if file.data and path != spared)
        if not written:
            return None
        path = chance.choice(written)
        data = self.files[path].data
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return path
