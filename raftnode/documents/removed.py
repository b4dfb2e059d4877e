"""The files of softly deleted databases: what there is of them on this node, and putting one back.

A copy is put back by a link beside the file: until the cluster has the database again, a crash leaves it where it was.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from raftnode.documents.errors import StoreFailed
from raftnode.documents.folders import REMOVED, folder
from raftnode.documents.model import TICKS_PER_SECOND, timestamp
from raftnode.documents.sqlite import sync_directories

NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
SUFFIXES = ("", "-wal")


class Removed(msgspec.Struct, frozen=True, rename="pascal"):
    """A copy of a database that was deleted softly. `folder` names it on this node, `path` is where it stands."""

    folder: str
    path: str
    database: str
    documents: int
    size_bytes: int
    deleted_at: str


def removed(directory: Path) -> list[Removed]:
    """Those that this node has, oldest first. What cannot be read is passed over."""
    found = [shown for file in _files(directory) if (shown := _shown(file)) is not None]
    return sorted(found, key=lambda shown: shown.deleted_at)


def put_back(directory: Path, which: Removed, database: str, id: str) -> Path:
    """Makes the file the one of a database of that name and topology id, and leaves it where it is, too; the new path.
    Raises StoreFailed."""
    path = directory / folder(database) / f"{id.replace('/', '_')}.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in SUFFIXES:
            source = Path(which.path + suffix)
            if source.exists():
                os.link(source, path.with_name(path.name + suffix))
        sync_directories(path.parent)
    except OSError as error:
        take_back(path)
        raise StoreFailed(f"{which.path} cannot be put back: {error.strerror}") from None
    return path


def take_back(path: Path) -> None:
    """Undoes `put_back`."""
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def forget(which: Removed) -> None:
    """What was put back is no longer among the removed."""
    shutil.rmtree(Path(which.path).parent, ignore_errors=True)


def _files(directory: Path) -> list[Path]:
    """The newest file of each folder."""
    folders = (directory / REMOVED).glob("*")
    found = (max(place.glob("*.sqlite"), key=lambda file: file.stat().st_mtime_ns, default=None) for place in folders)
    return [file for file in found if file is not None]


def _shown(file: Path) -> Removed | None:
    when = file.parent.name.rpartition("-")[2]
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [(database,)] = connection.execute("SELECT database FROM state").fetchall()
            [(documents,)] = connection.execute("SELECT count(*) FROM documents WHERE deleted = 0").fetchall()
        return Removed(
            folder=file.parent.name,
            path=str(file.absolute()),
            database=database,
            documents=documents,
            size_bytes=file.stat().st_size,
            deleted_at=timestamp(int(when) // NS_PER_TICK),
        )
    except (sqlite3.Error, OSError, ValueError):
        return None
