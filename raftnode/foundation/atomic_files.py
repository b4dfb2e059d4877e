"""Files that are replaced as a whole: after a crash or a loss of power there is the previous content or the new one.

Whatever has returned here is on the disk. Consensus writes through its own `Disk`, so that the simulator can put one
in its place; what that does on a real disk comes from here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Makes `data` the content of the file. Raises OSError; the file then is as it was."""
    with replacing(path, data):
        pass


@contextmanager
def replacing(path: Path, data: bytes, *, mode: int = 0o666) -> Iterator[Path]:
    """The same in two steps: gives a file beside `path` with the data, which takes its place at the end of the block.
    If the block raises, that file is removed instead. `mode` as for `os.open`. Raises OSError."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # of a process that was killed, perhaps with other rights
    try:
        # Exclusive, as the name may be anybody's link by now.
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield new
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Makes the directory, for its owner alone, and those above it that are missing. One that exists keeps its rights.
    Raises OSError."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def sync_file(path: Path) -> None:
    """Makes durable what was written to the file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(path: Path, data: bytes) -> None:
    """Makes a file with that content, as a whole, where there is none. Raises FileExistsError, OSError; then there is
    nothing of it."""
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")  # others may try the same, on other machines as well
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes durable which files and directories are in it. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
