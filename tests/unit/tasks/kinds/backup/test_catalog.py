"""What a place has, and what of it is whole."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tasks.kinds.backup import catalog, manifest, names
from tasks.kinds.backup.catalog import BackupFolder
from tasks.kinds.backup.manifest import Manifest, ManifestInvalid
from tasks.kinds.backup.names import BackupPart
from tasks.sinks.objects.folder import FolderTarget

START = datetime(2026, 5, 1, tzinfo=UTC)


class Shelf:
    """A folder with backups whose files hold nothing of use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = names.folder(START, "Shop", "A", 7)

    def put(self, minute: int, part: BackupPart, *, epoch: int = 7, **more: Any) -> Manifest:
        """A backup that is whole, but for what is given."""
        file = names.file(START + timedelta(minutes=minute), epoch, part, encrypted=False)
        (self.path / self.name).mkdir(parents=True, exist_ok=True)
        (self.path / self.name / file).write_bytes(b"12345")
        made = Manifest(
            part=part, database="Shop", database_id="id", cluster_id="c", node="A", task="t", epoch=str(epoch),
            started_at="s", finished_at="f", file=file, size_bytes=5, sha256="x", encrypted=False, after_etag=0,
            last_etag=minute, change_vector="", documents=1, tombstones=0, document_bytes=1,
        )  # fmt: skip
        sealed, data = manifest.sealed(msgspec.structs.replace(made, **more))
        (self.path / self.name / (file + names.MANIFEST)).write_bytes(data)
        return sealed

    async def folder(self) -> BackupFolder:
        [found] = await catalog.folders(FolderTarget(self.path))
        return found

    async def problems(self) -> list[str]:
        return [point.problem for point in (await self.folder()).points]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def chained(shelf: Shelf) -> list[Manifest]:
    """A full backup and two that go on from it."""
    made = [shelf.put(1, "Full")]
    for minute in (2, 3):
        before = made[-1]
        made.append(shelf.put(minute, "Incremental", previous=before.checksum, after_etag=before.last_etag))
    return made


async def test_a_chain_is_whole_and_is_restored_in_its_order(shelf: Shelf) -> None:
    made = chained(shelf)
    assert await shelf.problems() == ["", "", ""]
    folder = await shelf.folder()
    assert [point.file for point in folder.chain(None)] == [one.file for one in made]
    assert [point.file for point in folder.chain(made[1].file)] == [one.file for one in made[:2]]
    with pytest.raises(ValueError, match=r"there is no file 'nope'; there are: 2026-05-01-00-01-00\.7\.full-backup"):
        folder.chain("nope")


@pytest.mark.parametrize("broken", [0, 1])
async def test_what_goes_on_from_something_that_is_not_whole_is_not_whole(shelf: Shelf, broken: int) -> None:
    made = chained(shelf)
    (shelf.path / shelf.name / made[broken].file).unlink()
    problems = await shelf.problems()
    assert [bool(problem) for problem in problems] == [False] * broken + [True] * (3 - broken)
    assert problems[broken] == "its file is missing"
    assert made[broken].file in problems[2], "who is to blame is named"


async def test_order_is_told_by_checksums_and_not_by_clocks(shelf: Shelf) -> None:
    full = shelf.put(10, "Full")
    second = shelf.put(5, "Incremental", previous=full.checksum, after_etag=10, last_etag=11)
    shelf.put(1, "Incremental", previous=second.checksum, after_etag=11, last_etag=12)
    folder = await shelf.folder()
    assert [point.problem for point in folder.points] == ["", "", ""]
    assert [point.named.at.minute for point in folder.chain(None)] == [10, 5, 1]


async def test_of_two_that_go_on_from_one_backup_the_higher_epoch_stands(shelf: Shelf) -> None:
    full = shelf.put(1, "Full")
    newer = shelf.put(2, "Incremental", epoch=9, previous=full.checksum, after_etag=1)
    late = shelf.put(3, "Incremental", epoch=8, previous=full.checksum, after_etag=1)
    shelf.put(4, "Incremental", epoch=8, previous=late.checksum, after_etag=3)
    problems = await shelf.problems()
    assert [bool(problem) for problem in problems] == [False, False, True, True]
    assert newer.file in problems[2]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"after_etag": 2}, "does not go on where"),
        ({"database_id": "other"}, "does not go on where"),
        ({"previous": "x"}, "missing, or not whole"),
        ({"previous": ""}, "goes on from nothing"),
        ({"file": "another"}, "its manifest is that of another"),
        ({"size_bytes": 6}, "has 5 bytes, and must have 6"),
        ({"format": 99}, "upgrade"),
    ],
)
async def test_what_does_not_fit_is_said(shelf: Shelf, more: dict[str, Any], says: str) -> None:
    full = shelf.put(1, "Full")
    given: dict[str, Any] = {"previous": full.checksum, "after_etag": 1} | more
    shelf.put(2, "Incremental", **given)
    first, second = await shelf.problems()
    assert first == ""
    assert says in second


async def test_other_files_are_passed_over(shelf: Shelf, tmp_path: Path) -> None:
    chained(shelf)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "2026-05-01-00-01-00.7.full-backup").write_text("x")
    (tmp_path / shelf.name / "notes.txt").write_text("x")
    assert await shelf.problems() == ["", "", ""]


async def test_a_backups_folder_is_a_place_as_well(shelf: Shelf, tmp_path: Path) -> None:
    made = chained(shelf)
    [folder] = await catalog.folders(FolderTarget(tmp_path / shelf.name))
    assert (folder.name, [point.key for point in folder.points]) == ("", [one.file for one in made])
    assert await catalog.stands(FolderTarget(tmp_path), shelf.name, made[1].checksum)
    assert not await catalog.stands(FolderTarget(tmp_path), shelf.name, "x")


def test_a_manifest_that_was_changed_anywhere_is_refused(shelf: Shelf) -> None:
    made = shelf.put(1, "Full")
    data = (shelf.path / shelf.name / (made.file + names.MANIFEST)).read_bytes()
    assert manifest.read(data) == made
    for place in range(len(data)):
        for wrong in (data[:place], data[:place] + b"~" + data[place + 1 :]):
            with suppress(ManifestInvalid):
                assert manifest.read(wrong) == made, "only white space may differ"


@pytest.mark.parametrize("database", ["Shop", "a-b.c_d", "ü-1-backup"])
def test_names_tell_what_they_were_made_of(database: str) -> None:
    found = names.read_folder(names.folder(START, database, "AB", 7 << 40))
    assert found == (START, database, "AB", 7 << 40)
    for encrypted in (False, True):
        assert names.read_file(names.file(START, 7, "Incremental", encrypted=encrypted)) == (
            START, 7, encrypted, "Incremental",
        )  # fmt: skip
    for other in ("x", "2026-05-01.raftnode-Shop-A-7-backup", ""):
        assert (names.read_folder(other), names.read_file(other)) == (None, None)


async def test_what_only_looks_like_a_backup_is_no_backup(shelf: Shelf) -> None:
    """Anybody may put anything there."""
    shelf.put(1, "Full")
    for name in ("2026-13-45-99-99-99.1.full-backup", "0000-01-01-00-00-00.1.full-backup.manifest"):
        (shelf.path / shelf.name / name).write_bytes(b"x")
    (shelf.path / "2026-02-30-00-00-00.raftnode-Shop-A-7-backup").mkdir()
    assert await shelf.problems() == [""]


@pytest.mark.parametrize("epoch", ["²", "٣", "9" * 5000, "-1", ""])
async def test_an_epoch_that_is_no_number_is_damage(shelf: Shelf, epoch: str) -> None:
    made = shelf.put(1, "Full")
    _, data = manifest.sealed(msgspec.structs.replace(made, epoch=epoch))
    with pytest.raises(ManifestInvalid, match="changed or damaged"):
        manifest.read(data)
