"""The names of a backup's folder and files, which tell what stands in them.

<time>.raftnode-<database>-<node>-<epoch>-backup/        a full backup and the incremental ones that go on from it
    <time>.<epoch>.full-backup                           the data; `encrypted-full-backup` with a key
    <time>.<epoch>.full-backup.manifest                  it stands: made once, last
    <time>.<epoch>.incremental-backup …

Times are UTC. The epoch is that of the run: two runs never write one name.
"""

import re
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from raftnode.foundation.names import fold

BackupPart = Literal["Full", "Incremental"]

MANIFEST = ".manifest"
_TIME = "%Y-%m-%d-%H-%M-%S"
_FOLDER = re.compile(r"(\d{4}(?:-\d\d){5})\.raftnode-(.+)-([A-Z]{1,4})-(\d{1,20})-backup\Z", re.ASCII)
_FILE = re.compile(r"(\d{4}(?:-\d\d){5})\.(\d{1,20})\.(encrypted-)?(full|incremental)-backup\Z", re.ASCII)


class FolderName(NamedTuple):
    """What a folder's name says."""

    at: datetime
    database: str
    node: str
    epoch: int


class FileName(NamedTuple):
    """What a file's name says."""

    at: datetime
    epoch: int
    encrypted: bool
    part: BackupPart


def folder(at: datetime, database: str, node: str, epoch: int) -> str:
    """The folder of a full backup."""
    return f"{at.astimezone(UTC):{_TIME}}.raftnode-{database}-{node}-{epoch}-backup"


def file(at: datetime, epoch: int, part: BackupPart, *, encrypted: bool) -> str:
    """The file of a backup within its folder."""
    return f"{at.astimezone(UTC):{_TIME}}.{epoch}.{'encrypted-' if encrypted else ''}{fold(part)}-backup"


def read_folder(name: str) -> FolderName | None:
    """What the name of a folder says; None for one that is no backup's."""
    found = _FOLDER.match(name)
    at = None if found is None else _time(found[1])
    return None if found is None or at is None else FolderName(at, found[2], found[3], int(found[4]))


def read_file(name: str) -> FileName | None:
    """What the name of a file says; None for one that is no backup's."""
    found = _FILE.match(name)
    at = None if found is None else _time(found[1])
    if found is None or at is None:
        return None
    part: BackupPart = "Full" if found[4] == "full" else "Incremental"
    return FileName(at, int(found[2]), bool(found[3]), part)


def _time(text: str) -> datetime | None:
    """The time; None for what is none: anybody may put a file of any name there."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
