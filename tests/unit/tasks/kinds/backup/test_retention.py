"""Which backups may go."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from tasks.kinds.backup import names
from tasks.kinds.backup.catalog import BackupFolder, BackupPoint
from tasks.kinds.backup.manifest import Manifest
from tasks.kinds.backup.names import BackupPart
from tasks.kinds.backup.retention import BackupSource, EverythingIsOld, gone

NOW = datetime(2026, 5, 20, tzinfo=UTC)
KEPT = timedelta(days=7)


def folder(age_days: int, *incremental_days: int, database: str = "Shop", problem: str = "") -> BackupFolder:
    """A backup of that age, with incremental ones of those ages."""
    at = NOW - timedelta(days=age_days)
    name = names.folder(at, database, "A", 7)
    points = [_point(name, at, "Full", problem)]
    points += [_point(name, NOW - timedelta(days=days), "Incremental", "") for days in incremental_days]
    return BackupFolder(name, names.read_folder(name), points, [])


def _point(folder: str, at: datetime, part: BackupPart, problem: str) -> BackupPoint:
    file = names.file(at, 7, part, encrypted=False)
    named = names.read_file(file)
    assert named is not None
    return BackupPoint(folder, file, named, 1, None, problem)


def ages(*folders: BackupFolder) -> list[int]:
    found = gone(folders, BackupSource("c", "shop"), NOW, KEPT)
    return [(NOW - folder.named.at).days for folder in found if folder.named is not None]


def test_what_is_older_goes_and_what_is_younger_stays() -> None:
    assert ages(folder(30), folder(8), folder(7), folder(6), folder(1)) == [30, 8, 7]


def test_a_folder_whose_newest_incremental_backup_is_young_stays_as_a_whole() -> None:
    assert ages(folder(30), folder(20, 19, 3), folder(10), folder(1)) == [30, 10]


def test_it_ends_at_the_first_that_is_young() -> None:
    assert ages(folder(1), folder(3), folder(30)) == [30]


def test_other_databases_and_what_has_no_whole_full_backup_stay() -> None:
    torn = folder(30, problem="it has no manifest")
    assert ages(torn, folder(29, database="Other"), folder(28), folder(1)) == [28]


def test_what_another_cluster_has_made_there_stays() -> None:
    old = folder(30)
    made = Manifest(
        part="Full", database="Shop", database_id="id", cluster_id="another", node="A", task="t", epoch="7",
        started_at="s", finished_at="f", file="f", size_bytes=1, sha256="x", encrypted=False, after_etag=0,
        last_etag=1, change_vector="", documents=1, tombstones=0, document_bytes=1,
    )  # fmt: skip
    others = old._replace(points=[old.points[0]._replace(manifest=made)])
    mine = old._replace(points=[old.points[0]._replace(manifest=replace(made, cluster_id="c"))])
    assert ages(others, folder(1)) == []
    assert ages(mine, folder(1)) == [30]


def test_if_everything_would_go_nothing_does() -> None:
    with pytest.raises(EverythingIsOld):
        ages(folder(30), folder(20))
    assert ages() == []
