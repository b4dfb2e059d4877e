"""Whether a database's file is still the one that was opened, and whether one that is missing was ever made here.

SQLite goes on in a file that nobody can find any more when it is deleted under it, and would make an empty one in the
place of a file that is gone. Both would lose documents that were acknowledged, in silence.
"""

from pathlib import Path

from raftnode.documents.errors import StoreDamaged
from raftnode.documents.store.sqlite import sync_directories

WAL_SUFFIX = "-wal"
REMEDY = (
    "stop this node and restore it from a backup, or remove this node from the database group and add it again, so "
    "that it is filled by the others"
)


class FileGuard:
    """The files of an open database, as they are when this is made: the database's and its write-ahead log's. Raises
    StoreDamaged when they are gone already."""

    def __init__(self, path: Path) -> None:
        files = (path, path.with_name(path.name + WAL_SUFFIX))
        self._inodes = {file: _inode(file) for file in files}
        for file, inode in self._inodes.items():
            if inode is None:
                raise StoreDamaged(f"the database file {file} was deleted while it was opened: {REMEDY}")

    def check(self) -> None:
        """Raises StoreDamaged when a file was deleted, or another was put in its place. One look at the disk."""
        for file, inode in self._inodes.items():
            found = _inode(file)
            if found != inode:
                how = "was deleted" if found is None else "was replaced by another file"
                raise StoreDamaged(f"the database file {file} {how} while it was in use: {REMEDY}")


def check_made(path: Path, mark: Path) -> None:
    """Raises StoreDamaged when there is no file although `mark` says that it was made on this node."""
    if not path.exists() and mark.exists():
        raise StoreDamaged(f"the database file {path} was made here and is gone: {REMEDY}")


def note_made(mark: Path) -> None:
    """Makes the mark, durably."""
    if mark.exists():
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    sync_directories(mark.parent)


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
