"""What a run of a backup task makes, and what it goes on from."""

import asyncio
import base64
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftnode.documents.store.model import DeleteDocument, PutDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation import timestamps
from raftnode.record.model import Progress
from tasks.kinds.backup import task as backup_task
from tasks.kinds.backup.destinations import S3Settings
from tasks.kinds.backup.requests import BackupDelay, BackupNow
from tasks.kinds.backup.restoring import BackupRefused
from tasks.runtime.context import TaskContext
from tasks.sinks.objects import remote
from tasks.sinks.objects.remote import BucketTarget
from tasks.sinks.objects.target import ObjectTargetFailed
from tests import objects
from tests.unit.tasks.conftest import northwind, put_all, until
from tests.unit.tasks.kinds.backup.conftest import BackupBench, content

KEY = bytes(range(32))
ENCRYPTED: dict[str, Any] = {
    "BackupEncryptionSettings": {"EncryptionMode": "UseProvidedKey", "Key": base64.b64encode(KEY).decode()}
}


async def put(store: DocumentStore, id: str, **fields: Any) -> None:
    await store.put(id, fields, collection="Orders")


@pytest.mark.parametrize(("more", "key"), [({}, None), (ENCRYPTED, KEY)], ids=["plain", "encrypted"])
async def test_northwind_comes_back_as_it_was(
    bench: BackupBench, store: DocumentStore, more: dict[str, Any], key: bytes | None
) -> None:
    await put_all(store, northwind())
    bench.start(10, **more)
    made = await bench.make(full=True)
    assert made.status == "Completed"
    assert made.result is not None
    assert await bench.restored(made.result["Folder"], key=key) == await content(store)


async def test_what_is_made_under_load_is_exactly_the_documents_of_its_etag(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers change, delete and add documents without a pause. What stood at each etag is known from the writes."""
    monkeypatch.setattr("tasks.kinds.backup.writing.SLICE_BYTES", 500)
    states: dict[int, dict[str, Any]] = {0: {}}
    going = True

    async def write() -> None:
        live: dict[str, Any] = {}
        number = 0
        while going:
            number += 1
            id = f"orders/{number % 97}"
            if number % 5 == 0 and id in live:
                await store.delete(id)
                live = {key: value for key, value in live.items() if key != id}
            else:
                await put(store, id, Number=number, Text="x" * 50)
                live = live | {id: number}
            states[store.last_etag] = live

    writing = asyncio.create_task(write())
    await until(lambda: store.last_etag > 200)
    bench.start(10)
    results = [(await bench.make(full=full)).result for full in (True, False, False)]
    before = store.last_etag
    going = False
    await writing
    etags = []
    for result in results:
        assert result is not None
        restored = await bench.restored(result["Folder"], last=result["File"])
        expected = states[result["LastEtag"]]
        assert {id: body["Number"] for id, (_, body, _) in restored.items()} == expected
        etags.append(result["LastEtag"])
    assert etags == sorted(set(etags))
    assert before > etags[-1] or store.last_etag >= etags[-1]


async def test_an_incremental_backup_holds_what_has_changed_and_what_was_deleted(
    bench: BackupBench, store: DocumentStore
) -> None:
    for number in range(5):
        await put(store, f"orders/{number}", Number=number)
    bench.start(10)
    full = (await bench.make(full=True)).result
    await put(store, "orders/1", Number=11)
    await store.delete("orders/2")
    incremental = (await bench.make(full=False)).result
    await store.delete("orders/1")
    await put(store, "Orders/2", Number=22)
    again = (await bench.make(full=False)).result
    assert full is not None
    assert incremental is not None
    assert again is not None
    assert (incremental["Documents"]["ReadCount"], incremental["Tombstones"]["ReadCount"]) == (1, 1)
    assert incremental["Folder"] == again["Folder"] == full["Folder"]
    numbers = {}
    for result in (full, incremental, again):
        found = await bench.restored(full["Folder"], last=result["File"])
        numbers[result["File"]] = {id: body["Number"] for id, (_, body, _) in found.items()}
    assert list(numbers.values()) == [
        {f"orders/{number}": number for number in range(5)},
        {"orders/0": 0, "orders/1": 11, "orders/3": 3, "orders/4": 4},
        {"orders/0": 0, "Orders/2": 22, "orders/3": 3, "orders/4": 4},
    ]
    assert await bench.restored(full["Folder"]) == await content(store)


async def test_check_33_an_incremental_backup_of_no_change_makes_no_file_and_the_status_time_advances(
    bench: BackupBench, store: DocumentStore
) -> None:
    await put(store, "orders/1")
    bench.start(10)
    await bench.make(full=True)
    files = sorted(bench.folder.rglob("*"))
    assert bench.state.last_incremental is None
    assert (await bench.make(full=False)).status == "Completed"
    assert sorted(bench.folder.rglob("*")) == files
    assert bench.state.last_incremental is not None


async def test_check_34_a_new_owner_makes_a_full_backup_in_a_new_folder_with_its_tag(
    bench: BackupBench, tmp_path: Path, store: DocumentStore
) -> None:
    """RavenDB's scenario 40 as well: the first owner goes on with its own folder when it gets the task back."""
    await put(store, "orders/1")
    bench.start(10)
    first = (await bench.make(full=True)).result
    await bench.stop()
    await put(store, "orders/2")
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Shop")
    await put(other, "orders/1")
    mine, bench.store = bench.store, other
    bench.start(20, node="B")
    second = (await bench.make(full=False)).result
    await bench.stop()
    await other.close()
    bench.store = mine
    bench.start(30)
    third = (await bench.make(full=False)).result
    assert first is not None
    assert second is not None
    assert third is not None
    assert (second["IsFull"], third["IsFull"]) == (True, False)
    assert "-B-20-backup" in second["Folder"]
    assert third["Folder"] == first["Folder"]
    assert set(bench.state.nodes) == {"A", "B"}
    assert await bench.restored(first["Folder"]) == await content(store)


async def test_tombstones_stay_until_the_next_backup_has_them(bench: BackupBench, store: DocumentStore) -> None:
    await put(store, "orders/1")
    bench.start(10)
    await bench.make(full=True)
    etag, vector = store.last_etag, store.change_vector
    await bench.stop()
    await store.delete("orders/1")
    assert dict(bench.progress.last_etags) == {store.database_id: etag}
    assert bench.progress.change_vector == vector


@pytest.mark.parametrize(
    "change",
    [ENCRYPTED, {"LocalSettings": {"FolderPath": "/tmp/raftnode-other"}}],
    ids=["another key", "another folder"],
)
async def test_with_another_key_or_folder_the_next_backup_is_a_full_one(
    bench: BackupBench, store: DocumentStore, tmp_path: Path, change: dict[str, Any]
) -> None:
    change = {k: {"FolderPath": str(tmp_path / "other")} if "Folder" in str(v) else v for k, v in change.items()}
    await put(store, "orders/1")
    bench.start(10)
    await bench.make(full=True)
    await bench.stop()
    bench.start(11, **change)
    result = (await bench.make(full=False)).result
    assert result is not None
    assert result["IsFull"]


async def test_if_the_backup_before_is_gone_or_torn_the_next_one_is_a_full_one(
    bench: BackupBench, store: DocumentStore
) -> None:
    await put(store, "orders/1")
    bench.start(10)
    result = (await bench.make(full=True)).result
    assert result is not None
    (bench.folder / result["Folder"] / result["File"]).unlink()
    await put(store, "orders/2")
    again = (await bench.make(full=False)).result
    assert again is not None
    assert again["IsFull"]
    assert again["Folder"] != result["Folder"]


async def test_a_backup_that_is_overdue_is_made_at_once_and_only_once(bench: BackupBench, store: DocumentStore) -> None:
    await put(store, "orders/1")
    bench.start(10, CreatedAt="2020-01-01T00:00:00.0000000Z")
    await until(lambda: bench.state.version == 1, bench.body)
    assert bench.state.last_full is not None
    await asyncio.sleep(0)
    assert len(await bench.points()) == 1


async def test_what_fails_is_told_and_tried_again_after_growing_pauses(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.folder.write_text("a file is no folder")
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    monkeypatch.setattr(backup_task, "now", lambda: moment)
    context = bench.start(10, CreatedAt="2020-01-01T00:00:00.0000000Z")
    await until(lambda: bench.state.failures == 1, bench.body)
    assert "backups" in (context.info.error or "")
    assert (bench.state.version, bench.state.last_full) == (1, None)
    assert bench.state.retry_at == timestamps.of(moment + timedelta(minutes=1))
    moment += timedelta(minutes=1)
    bench.ask(None)
    await until(lambda: bench.state.failures == 2, bench.body)
    assert bench.state.retry_at == timestamps.of(moment + timedelta(minutes=2))
    bench.folder.unlink()
    moment += timedelta(minutes=2)
    bench.ask(None)
    await until(lambda: bench.state.failures == 0, bench.body)
    assert (bench.state.error, context.info.error) == ("", None)


async def test_one_on_demand_that_fails_is_not_tried_again(bench: BackupBench, store: DocumentStore) -> None:
    bench.folder.write_text("a file is no folder")
    bench.start(10)
    operation = await bench.make(full=True)
    assert operation.status == "Faulted"
    assert operation.error == bench.state.error
    assert (bench.state.retry_at, bench.state.failures) == (None, 0)


async def test_a_delayed_backup_waits(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    monkeypatch.setattr(backup_task, "now", lambda: moment)
    bench.start(10, FullBackupFrequency="0 2 * * *", CreatedAt=timestamps.of(moment))
    bench.ask(BackupDelay(moment + timedelta(hours=5)))
    await until(lambda: bench.state.delay_until is not None, bench.body)
    assert bench.state.original_time == timestamps.of(moment + timedelta(hours=2))
    moment += timedelta(hours=4)
    bench.ask(BackupDelay(moment + timedelta(hours=2)))
    await until(lambda: (bench.state.delay_until or "") == timestamps.of(moment + timedelta(hours=2)), bench.body)
    assert bench.state.version == 0
    moment += timedelta(hours=2)
    bench.ask(None)
    await until(lambda: bench.state.version == 1, bench.body)
    assert bench.state.delay_until is None


async def test_a_backup_that_a_user_ends_leaves_nothing_and_the_task_goes_on(
    bench: BackupBench, store: DocumentStore
) -> None:
    await put_all(store, northwind())
    bench.start(10, MaxReadOpsPerSecond=100)
    operation = bench.operations.begin("a backup", type="DatabaseBackup")
    bench.ask(BackupNow(True, operation))
    await until(lambda: operation.cancel is not None and any(bench.folder.rglob("*.in-progress")), bench.body)
    assert operation.cancel is not None
    operation.cancel()
    await until(lambda: operation.status == "Canceled", bench.body)
    await until(lambda: bench.state.version == 1, bench.body)
    assert list(bench.folder.rglob("*")) == []
    assert bench.body is not None
    assert not bench.body.done()


def _waits(context: TaskContext) -> bool:
    """Whether the run waits for its next backup."""
    return context.info.next_run is not None


async def test_what_a_killed_process_left_in_the_folder_goes_with_the_next_run(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file in the making, and one whose manifest was still to come; not what stands, nor what is another's."""
    await put_all(store, northwind())
    bench.start(10)
    stands = (await bench.make(full=True)).result
    await bench.stop()
    for number, moment in enumerate(("uploading", "with no manifest yet")):
        bench.start(11 + number, MaxReadOpsPerSecond=100)
        bench.ask(BackupNow(True, bench.operations.begin("a backup", type="DatabaseBackup")))
        await until(lambda: any(bench.folder.rglob("*.in-progress")), bench.body)
        # A process that is killed cleans nothing.
        with monkeypatch.context() as killed:
            killed.setattr(Path, "unlink", lambda *_, **__: None)
            killed.setattr(Path, "rmdir", lambda *_: None)
            await bench.stop()
        [staged] = bench.folder.rglob("*.in-progress")
        if moment != "uploading":
            staged.rename(staged.with_name(staged.name.removesuffix(".in-progress")))
        context = bench.start(21 + number)
        await until(partial(_waits, context), bench.body)
        await bench.stop()
        assert stands is not None
        assert [path.name for path in bench.folder.iterdir()] == [stands["Folder"]], moment
    assert [point.problem for point in await bench.points()] == [""]


async def test_a_slow_backup_does_not_keep_its_database_from_being_closed(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is damaged is closed while the task still runs, and all databases of the node wait for that."""
    monkeypatch.setattr("tasks.kinds.backup.writing.REST_S", 0.01)
    await put_all(store, northwind())
    bench.start(10, MaxReadOpsPerSecond=1)
    operation = bench.operations.begin("a backup", type="DatabaseBackup")
    bench.ask(BackupNow(True, operation))
    await until(lambda: any(bench.folder.rglob("*.in-progress")), bench.body)
    async with asyncio.timeout(10):
        await store.close()
    await until(lambda: operation.status == "Faulted")


async def test_what_is_asked_of_a_run_that_is_over_is_left_to_whoever_ends_it(bench: BackupBench) -> None:
    context = bench.start(10)
    await until(lambda: context.info.next_run is not None, bench.body)
    bench.owned = False
    asked = BackupNow(True, bench.operations.begin("a backup", type="DatabaseBackup"))
    bench.ask(asked)
    await until(lambda: bench.body is not None and bench.body.done())
    assert bench.left() == [asked]


async def test_a_run_that_is_over_in_the_middle_leaves_no_manifest(bench: BackupBench, store: DocumentStore) -> None:
    await put_all(store, northwind())
    bench.start(10, MaxReadOpsPerSecond=5_000)
    operation = bench.operations.begin("a backup", type="DatabaseBackup")
    bench.ask(BackupNow(True, operation))
    await until(lambda: any(bench.folder.rglob("*.in-progress")), bench.body)
    bench.owned = False
    await until(lambda: bench.body is not None and bench.body.done())
    assert [point for point in await bench.points() if not point.problem] == []
    assert operation.status == "Faulted"


async def test_without_a_majority_it_goes_on_and_the_cluster_is_told_later(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_task, "TELL_S", 0.01)
    await put(store, "orders/1")
    bench.checkpoint_hangs = True
    bench.start(10)
    assert (await bench.make(full=True)).status == "Completed"
    await put(store, "orders/2")
    again = (await bench.make(full=False)).result
    assert again is not None
    assert not again["IsFull"], "it knows what it has made itself"
    assert len(await bench.points()) == 2


async def test_two_runs_of_one_time_are_both_listed_and_neither_overwrites_the_other(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_task, "now", lambda: datetime(2026, 5, 1, tzinfo=UTC))
    await put(store, "orders/1")
    bench.start(10, CreatedAt="2026-05-01T00:00:00.0000000Z")
    await bench.make(full=True)
    first = {path: path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()}
    await bench.stop()
    bench.progress = Progress(generation=1)  # the second one does not know of the first
    bench.start(11, CreatedAt="2026-05-01T00:00:00.0000000Z")
    await bench.make(full=True)
    again = await bench.make(full=True)
    assert again.status == "Completed", "one run names its own by the next second"
    found = [(point.named.epoch, point.named.at.second, point.problem) for point in await bench.points()]
    assert found == [(10, 0, ""), (11, 0, ""), (11, 1, "")]
    assert {path: path.read_bytes() for path in first} == first


async def test_an_incremental_backup_of_a_run_that_wakes_late_does_not_stand(
    bench: BackupBench, store: DocumentStore
) -> None:
    """Both go on from the same full backup. The late one comes first by the time in its name, or last: the epoch
    decides."""
    await put(store, "orders/1")
    bench.start(10)
    await bench.make(full=True)
    await bench.stop()
    known = bench.progress
    await put(store, "orders/2")
    bench.start(20)
    await bench.make(full=False)
    await put(store, "orders/3")
    newest = (await bench.make(full=False)).result
    await bench.stop()
    bench.progress = known
    bench.start(10)
    late = (await bench.make(full=False)).result
    assert newest is not None
    assert late is not None
    found = {point.file: point.problem for point in await bench.points()}
    assert len(found) == 4
    assert [file for file, problem in found.items() if problem] == [late["File"]]
    assert "superseded" in found[late["File"]]
    assert set(await bench.restored(newest["Folder"])) == {"orders/1", "orders/2", "orders/3"}


async def test_damage_is_refused_with_the_name_of_the_file(bench: BackupBench, store: DocumentStore) -> None:
    await put_all(store, northwind())
    bench.start(10)
    await bench.make(full=True)
    await put(store, "orders/1")
    result = (await bench.make(full=False)).result
    assert result is not None
    folder = bench.folder / result["Folder"]
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        for changed in (whole[:-2], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(BackupRefused, match=path.name.removesuffix(".manifest")):
                await bench.restored(result["Folder"], last=result["File"])
        path.unlink()
        with pytest.raises(BackupRefused):
            await bench.restored(result["Folder"], last=result["File"])
        path.write_bytes(whole)
    assert await bench.restored(result["Folder"]) == await content(store)


async def test_another_key_is_refused(bench: BackupBench, store: DocumentStore) -> None:
    await put(store, "orders/1")
    bench.start(10, **ENCRYPTED)
    result = (await bench.make(full=True)).result
    assert result is not None
    with pytest.raises(BackupRefused, match=f"{result['File']}: .*the key is another"):
        await bench.restored(result["Folder"], key=os.urandom(32))
    with pytest.raises(BackupRefused, match=f"{result['File']}: .*give its key"):
        await bench.restored(result["Folder"])


async def test_old_backups_go_after_a_full_one(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    monkeypatch.setattr(backup_task, "now", lambda: moment)
    await store.batch([PutDocument(id="orders/1", document={}), DeleteDocument(id="orders/1")])
    kept: dict[str, Any] = {
        "RetentionPolicy": {"MinimumBackupAgeToKeep": "2.00:00:00"},
        "CreatedAt": timestamps.of(moment),
    }
    bench.start(10, **kept)
    for _ in range(4):
        await put(store, "orders/1", At=str(moment))
        await bench.make(full=True)
        moment += timedelta(days=1)
    assert [point.named.at.day for point in await bench.points()] == [3, 4]
    assert len(list(bench.folder.iterdir())) == 2
    assert bench.state.retention_error == ""


async def test_a_bucket_gets_the_same_as_a_folder_and_no_file_stays_on_the_node(
    bench: BackupBench, store: DocumentStore
) -> None:
    await put_all(store, northwind("Orders"))
    with objects.s3() as settings:
        bench.place = msgspec.convert(settings, S3Settings).target
        context = bench.start(10, LocalSettings=None, S3Settings=settings, **ENCRYPTED)
        await bench.make(full=True)
        await store.delete("orders/10248-A")
        result = (await bench.make(full=False)).result
        assert result is not None
        assert not result["IsFull"]
        assert [point.problem for point in await bench.points()] == ["", ""]
        assert await bench.restored(result["Folder"], key=KEY) == await content(store)
        assert bench.state.destinations["AmazonS3"].bytes == result["SizeInBytes"]
        assert [path for path in context.directory.rglob("*") if path.is_file()] == []


async def test_what_fails_at_one_destination_is_told_and_keeps_nothing_from_the_others(
    bench: BackupBench, store: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES_MAX", 0)
    await put(store, "orders/1")
    with objects.s3() as settings:
        nowhere = {"BucketName": "nope", "CustomServerUrl": settings["CustomServerUrl"]}
        target = msgspec.convert(settings | nowhere, S3Settings).target

        async def prepare(_: BucketTarget) -> None:
            """The bucket is deleted between this and the upload."""

        monkeypatch.setattr(BucketTarget, "prepare", prepare)
        bench.start(10, S3Settings=settings | nowhere)
        operation = await bench.make(full=True)
        assert operation.status == "Faulted"
        assert "AmazonS3: s3://nope" in operation.error
        with pytest.raises(ObjectTargetFailed):
            await target().objects()
    assert [point.problem for point in await bench.points()] == [""]
    assert bench.state.destinations["Local"].exception is None
    assert "nope" in (bench.state.destinations["AmazonS3"].exception or "")
    assert bench.state.chains == {}, "nothing goes on from what does not stand everywhere"
