"""Where a database's files stand on a node's disk.

<directory>/<folder>/<id>.sqlite            the copy; <id> tells a database from an earlier one of its name
<directory>/.made/<folder>/<id>             a mark that the file was made, so that one that is gone is not made again
<directory>/.removed/<folder>-<ns>/…        the files of a copy that was deleted softly
"""

import shutil
import time
from pathlib import Path

import xxhash

from raftnode.foundation.atomic_files import sync_directory
from raftnode.foundation.names import fold

MADE = ".made"
REMOVED = ".removed"
FILE_NAME_BYTES_MAX = 255
"""Linux's limit, in bytes, where that of a database's name is in characters."""


def folder(database: str) -> str:
    """The folder of a database: its folded name; the beginning of it and a hash where that is too long for a file."""
    return _fitting(fold(database), FILE_NAME_BYTES_MAX)


def file(directory: Path, database: str, id: str) -> Path:
    """The file of a database's copy. `id` is its topology's."""
    return directory / folder(database) / f"{id.replace('/', '_') or 'database'}.sqlite"


def away(directory: Path, database: str) -> Path:
    """Where the files of a copy go that is deleted softly now."""
    when = f"-{time.time_ns()}"
    return directory / REMOVED / (_fitting(fold(database), FILE_NAME_BYTES_MAX - len(when)) + when)


def remove(directory: Path) -> None:
    """Removes the folder and all in it; none is no error."""
    if directory.exists():
        shutil.rmtree(directory)


def move(directory: Path, place: Path) -> None:
    """Moves the folder there, if there is one."""
    if directory.exists():
        place.parent.mkdir(exist_ok=True)
        directory.rename(place)
        for changed in (place.parent, directory.parent):
            sync_directory(changed)


def _fitting(name: str, bytes_max: int) -> str:
    encoded = name.encode()
    if len(encoded) <= bytes_max:
        return name
    # No database's name has a tilde in it.
    hashed = f"~{xxhash.xxh3_64_hexdigest(encoded)}"
    return encoded[: bytes_max - len(hashed)].decode(errors="ignore") + hashed
