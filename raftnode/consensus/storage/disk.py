"""The one door to the disk for consensus, so that a simulator can put its own disk behind it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from raftnode.foundation import atomic_files

LOOKS = 3


class File(Protocol):
    """A file open for writing at its end and for reading anywhere."""

    def write(self, data: bytes) -> None:
        """Writes all of `data` at the end. Not durable before `sync`."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to `size_bytes` from `offset`; fewer only at the end of the file."""

    def size_bytes(self) -> int: ...

    def truncate(self, size_bytes: int) -> None:
        """Cuts the file to `size_bytes`. Not durable before `sync`."""

    def sync(self) -> None:
        """Returns once all that was written is on the disk."""

    def close(self) -> None: ...


class Disk(Protocol):
    """Files in directories. Every method raises OSError as the operating system does."""

    def names(self, directory: Path) -> list[str]:
        """The names in the directory, which is made if it is missing."""

    def open(self, path: Path) -> File:
        """Opens the file, making an empty one if it is missing."""

    def replace(self, source: Path, target: Path) -> None:
        """Renames `source` to `target`, which it replaces, durably."""

    def remove(self, path: Path) -> None:
        """Removes the file, durably. A missing file is no error."""

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Those that are no longer there, or are other files than those that were opened or made here, in order."""

    def sync_directory(self, directory: Path) -> None:
        """Makes the directory's names durable."""


class SystemFile:
    """A real file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._end)
            self._end += written
            view = view[written:]

    def read(self, offset: int, size_bytes: int) -> bytes:
        parts = []
        while size_bytes:
            part = os.pread(self._fd, size_bytes, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size_bytes -= len(part)
        return b"".join(parts)

    def size_bytes(self) -> int:
        return self._end

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)
        self._end = size_bytes

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def held(self) -> "_Held":
        """What keeps it known after it is closed."""
        return _Held(os.dup(self._fd))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Held:
    """A file, by a descriptor of its own: as long as there is one, no other file gets its inode."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self.inode = (status.st_dev, status.st_ino)

    def __del__(self) -> None:
        os.close(self._fd)


class SystemDisk:
    """The machine's disk. Knows which files it has opened and renamed, by path: what is deleted under this process and
    made again at once has another inode."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[_Held, ...]] = {}

    def names(self, directory: Path) -> list[str]:
        if not directory.is_dir():
            atomic_files.make_directory(directory)
        return os.listdir(directory)

    def open(self, path: Path) -> SystemFile:
        file = SystemFile(path)
        if path not in self._held:
            self._held[path] = (file.held(),)
        return file

    def replace(self, source: Path, target: Path) -> None:
        # Another thread may ask meanwhile what is missing: for a moment both files are right.
        held = self._held.get(source, ())
        if held:
            self._held[target] = (*self._held.get(target, ()), *held)
        os.replace(source, target)
        self._held[target] = held
        self._held.pop(source, None)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._held.pop(path, None)
        self.sync_directory(path.parent)

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(path for path in paths if not self._is_there(path))

    def _is_there(self, path: Path) -> bool:
        # Asked again, as a rename may have come between the two looks.
        return any(self._is_known(path) for _ in range(LOOKS))

    def _is_known(self, path: Path) -> bool:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        held = self._held.get(path, ())
        return not held or (status.st_dev, status.st_ino) in {one.inode for one in held}

    def sync_directory(self, directory: Path) -> None:
        atomic_files.sync_directory(directory)
