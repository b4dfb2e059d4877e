"""The files of softly deleted databases: what there is of them on this node, and putting one back.

A copy is put back by a link beside the file: until the cluster has the database again, a crash leaves it where it was.
While there is a link, the copy may be open as a database or become one at any moment, so that it is put back nowhere
else: two databases in one file would destroy it. The topology id comes from the copy, so that a repeat makes no second
link.
"""

import base64
import contextlib
import os
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import msgspec
import xxhash

from raftnode.documents.errors import StoreFailed
from raftnode.documents.store.folders import REMOVED
from raftnode.documents.store.sqlite import sync_directories
from raftnode.foundation import timestamps
from raftnode.foundation.names import fold

SUFFIXES = ("", "-wal")


class RemovedCopy(msgspec.Struct, frozen=True, rename="pascal"):
    """A copy of a database that was deleted softly. `folder` names it on this node, `path` is where it stands."""

    folder: str
    path: str
    database: str
    documents: int
    size_bytes: int
    deleted_at: str


def removed(directory: Path, live: Collection[Path]) -> list[RemovedCopy]:
    """Those that this node has, oldest first. What cannot be read is skipped. `live` are the files of the databases
    that there are: a copy that is one of them again, as a crash came before it was forgotten, is forgotten now."""
    found = []
    for file in _files(directory):
        if link_of(directory, file) in live:
            forget(file)
        elif (shown := _shown(file)) is not None:
            found.append(shown)
    return sorted(found, key=lambda shown: shown.deleted_at)


def topology_id(tag: str, copy: str, database: str) -> str:
    """The topology id of a database that is made of the copy in folder `copy` of node `tag`."""
    hashed = xxhash.xxh3_128_digest("\0".join((tag, copy, fold(database))).encode())
    return base64.b64encode(hashed)[:22].decode()


def put_back(which: RemovedCopy, path: Path) -> None:
    """Makes the copy's file the one at `path`, and leaves it where it is, too. A repeat completes what was begun.
    Raises StoreFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file comes last: with it there is a link, and it must never be opened without what is in its log.
        for suffix in reversed(SUFFIXES):
            source, link = Path(which.path + suffix), path.with_name(path.name + suffix)
            if source.exists() and not (link.exists() and link.samefile(source)):
                os.link(source, link)
        sync_directories(path.parent)
    except OSError as error:
        raise StoreFailed(f"{which.path} cannot be put back: {error.strerror}") from None


def take_back(path: Path) -> None:
    """Undoes `put_back`."""
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def link_of(directory: Path, copy: Path) -> Path | None:
    """Where the file of a copy has been put back, or is being; None if nowhere."""
    # What cannot be looked at counts as removed: it is listed, and nothing is deleted.
    with contextlib.suppress(OSError):
        if copy.stat().st_nlink > 1:
            # Folders of databases only: those that begin with a dot are not.
            return next((link for link in directory.glob("[!.]*/*.sqlite") if link.samefile(copy)), None)
    return None


def forget(copy: Path) -> None:
    """What was put back is no longer among the removed. Its file goes last: as long as that is there, this is done
    again."""
    with contextlib.suppress(OSError):
        for other in sorted(copy.parent.iterdir()):
            if other != copy:
                other.unlink()
        copy.unlink()
        copy.parent.rmdir()


def _files(directory: Path) -> list[Path]:
    """The newest file of each folder."""
    folders = (directory / REMOVED).glob("*")
    found = (max(place.glob("*.sqlite"), key=lambda file: file.stat().st_mtime_ns, default=None) for place in folders)
    return [file for file in found if file is not None]


def _shown(file: Path) -> RemovedCopy | None:
    when = file.parent.name.rpartition("-")[2]
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [(database,)] = connection.execute("SELECT database FROM state").fetchall()
            [(documents,)] = connection.execute("SELECT count(*) FROM documents WHERE deleted = 0").fetchall()
        return RemovedCopy(
            folder=file.parent.name,
            path=str(file.absolute()),
            database=database,
            documents=documents,
            size_bytes=file.stat().st_size,
            deleted_at=timestamps.from_ticks(int(when) // timestamps.NS_PER_TICK),
        )
    except (sqlite3.Error, OSError, ValueError):
        return None
