"""Which backups may go: RavenDB's rule. It is asked after a full backup.

Folders are looked at from the oldest. It ends at the first that is younger than what is kept. One whose newest
incremental backup is younger stays whole, as does what is another database's, or another cluster's, or has no full
backup that is whole: that may be in the making. If everything would go, nothing does, as somebody has meddled with the
folder, or with the clock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from raftnode.foundation.names import fold
from tasks.kinds.backup import catalog, names
from tasks.kinds.backup.catalog import BackupFolder
from tasks.sinks.objects.target import ObjectTarget

log = structlog.get_logger(__name__)


class EverythingIsOld(Exception):
    """Every backup would go."""


class BackupSource(NamedTuple):
    """Whose backups they are."""

    cluster_id: str
    database: str

    def made(self, folder: BackupFolder) -> bool:
        """Whether the folder is this one's, as far as it tells."""
        named = folder.named is not None and fold(folder.named.database) == fold(self.database)
        return named and all(p.manifest is None or p.manifest.cluster_id == self.cluster_id for p in folder.points)


def gone(
    folders: Sequence[BackupFolder], source: BackupSource, now: datetime, kept_for: timedelta
) -> list[BackupFolder]:
    """The folders that may go, oldest first. Raises EverythingIsOld."""
    mine = [folder for folder in folders if source.made(folder)]
    mine.sort(key=lambda one: (one.named.at, one.name) if one.named else (now, one.name))
    found = []
    for folder in mine:
        assert folder.named is not None
        if now - folder.named.at < kept_for:
            break
        whole = [point for point in folder.points if not point.problem]
        if not any(point.named.part == "Full" for point in whole):
            continue
        if now - max(point.named.at for point in folder.points) >= kept_for:
            found.append(folder)
    if found and len(found) == len(mine):
        raise EverythingIsOld("every backup is older than RetentionPolicy.MinimumBackupAgeToKeep, so none is deleted")
    return found


async def apply(target: ObjectTarget, source: BackupSource, now: datetime, kept_for: timedelta) -> int:
    """Delete what may go. Manifests go first: what is left of a folder, if this ends in the middle, is no backup.
    Returns how many folders went. Raises ObjectTargetFailed, EverythingIsOld."""
    old = gone(await catalog.folders(target), source, now, kept_for)
    for folder in old:
        for key in sorted(folder.keys, key=lambda key: not key.endswith(names.MANIFEST)):
            await target.delete(key)
        log.info(
            "A backup was deleted, as it is older than what is kept.", database=source.database, folder=folder.name
        )
    return len(old)
