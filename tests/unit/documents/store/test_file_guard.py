"""Files that are deleted, replaced or damaged, under a running node and while it stands still."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from immutables import Map

from raftnode.documents.errors import StoreDamaged
from raftnode.documents.store.model import PutDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from tests.unit.documents.conftest import until
from tests.unit.documents.test_databases import CopyCluster, database, loaded, running

PAGE_BYTES = 4096


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[CopyCluster]:
    async with HttpClient() as http, running(CopyCluster(tmp_path / "databases", http)) as cluster:
        cluster.set(database(), database("Other"))
        await until(lambda: loaded(cluster) == ["northwind", "other"])
        yield cluster


def error(cluster: CopyCluster, name: str = "northwind") -> str:
    copy = cluster.databases.status()[name]
    return copy.error if copy.status == "Faulted" else ""


def file_of(cluster: CopyCluster, name: str = "northwind") -> Path:
    return cluster.directory / name / "t1.sqlite"


def delete(file: Path) -> None:
    file.unlink()


def delete_log(file: Path) -> None:
    file.with_name(file.name + "-wal").unlink()


def delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


def replace(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy(file, other)
    other.replace(file)


ACCIDENTS = pytest.mark.parametrize("accident", [delete, delete_log, delete_folder, replace])


@ACCIDENTS
async def test_a_write_into_a_file_that_nobody_will_find_is_not_acknowledged(
    cluster: CopyCluster, accident: Callable[[Path], None]
) -> None:
    store = await cluster.databases.store("Northwind")
    await store.put("a", {})
    accident(file_of(cluster))
    with pytest.raises(StoreDamaged, match=r"was (deleted|replaced).* while it was in use: .*restore it from a backup"):
        await store.put("b", {})


@ACCIDENTS
async def test_a_copy_that_loses_its_file_is_faulted_without_any_write_and_stays_so(
    cluster: CopyCluster, accident: Callable[[Path], None]
) -> None:
    accident(file_of(cluster))
    await until(lambda: "while it was in use" in error(cluster))
    file_of(cluster).parent.mkdir(exist_ok=True)
    file_of(cluster).touch()
    with pytest.raises(StoreDamaged, match="while it was in use"):
        await cluster.databases.store("Northwind")
    assert loaded(cluster) == ["other"]
    await (await cluster.databases.store("Other")).put("x", {})


async def test_damage_that_a_read_meets_makes_the_copy_faulted(cluster: CopyCluster) -> None:
    store = await cluster.databases.store("Northwind")
    await store.batch([put for n in range(300) for put in _puts(n)])
    cluster.set(database(disabled=True), database("Other"))
    await until(lambda: not (cluster.directory / "northwind" / "t1.sqlite-wal").exists())
    cluster.set(database(), database("Other"))
    await until(lambda: loaded(cluster) == ["northwind", "other"])
    with file_of(cluster).open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(b"\x5a" * (file_of(cluster).stat().st_size - PAGE_BYTES))
    store = await cluster.databases.store("Northwind")
    with pytest.raises(StoreDamaged, match="is damaged"):
        await store.page(size=300)
    await until(lambda: "is damaged" in error(cluster))
    with pytest.raises(StoreDamaged):
        await cluster.databases.store("Northwind")


def _puts(n: int) -> list[PutDocument]:
    return [PutDocument(id=f"d/{n}", document={"text": "x" * 500})]


async def test_a_file_that_is_gone_at_the_start_is_not_taken_for_a_new_database(tmp_path: Path) -> None:
    async with HttpClient() as http:
        async with running(CopyCluster(tmp_path, http)) as before:
            before.set(database())
            await (await before.databases.store("Northwind")).put("x", {})
        shutil.rmtree(tmp_path / "northwind")
        async with running(CopyCluster(tmp_path, http)) as after:
            after.set(database())
            await until(lambda: "was made here and is gone" in error(after))
            assert after.files() == []
            # The remedy: out of the group, and in again.
            after.set(database(members=("B",), deletion_in_progress=Map({"A": "HardDelete"})))
            await until(lambda: after.deleted == ["Northwind"])
            after.set(database(members=("B",), promotables=("A",)))
            await until(lambda: loaded(after) == ["northwind"])
            assert after.files() == ["northwind/t1.sqlite"]


async def test_a_file_that_goes_while_it_is_opened_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "n" / "t1.sqlite"
    monkeypatch.setattr("raftnode.documents.store.store.note_made", lambda mark: file.unlink())
    with pytest.raises(StoreDamaged, match="was deleted while it was opened"):
        await DocumentStore.open(file, tag="A", database="N", mark=tmp_path / "mark")


async def test_a_file_that_was_put_back_before_the_start_is_opened(tmp_path: Path) -> None:
    file, mark = tmp_path / "n" / "t1.sqlite", tmp_path / ".made" / "n" / "t1"
    store = await DocumentStore.open(file, tag="A", database="N")
    await store.put("x", {})
    await store.close()
    assert not mark.exists()
    # A file of before there were marks gets one.
    await (await DocumentStore.open(file, tag="A", database="N", mark=mark)).close()
    file.rename(tmp_path / "backup")
    with pytest.raises(StoreDamaged, match="is gone"):
        await DocumentStore.open(file, tag="A", database="N", mark=mark)
    (tmp_path / "backup").rename(file)
    store = await DocumentStore.open(file, tag="A", database="N", mark=mark)
    assert store.documents == 1
    await store.close()


async def test_a_copy_that_was_replaced_and_is_gone_has_nothing_to_hand_over(cluster: CopyCluster) -> None:
    file_of(cluster).unlink()
    await until(lambda: error(cluster) != "")
    leaving = database(members=("B",), rehabs=("A",), deletion_in_progress=Map({"A": "HardDelete"}))
    cluster.set(leaving, database("Other"))
    await until(lambda: cluster.deleted == ["Northwind"])
