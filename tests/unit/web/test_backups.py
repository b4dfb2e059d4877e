"""Backup and restore over HTTP, on a real node with a real folder."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli
from raftnode.documents.store.building import StoreBuilder
from raftnode.web.requests import REQUEST_ID
from tasks.kinds.backup.requests import BackupNow
from tasks.kinds.backup.restoring import BackupRestoring
from tests import objects
from tests.unit.web.client import Client

NIGHTLY = "0 2 * * *"
KEY = base64.b64encode(bytes(range(32))).decode()
ENCRYPTED = {"BackupEncryptionSettings": {"EncryptionMode": "UseProvidedKey", "Key": KEY}}


def task(folder: Path, **more: Any) -> dict[str, Any]:
    """The configuration of a backup task."""
    given = {"Name": "nightly", "FullBackupFrequency": NIGHTLY, "IncrementalBackupFrequency": "0 * * * *"}
    return given | {"LocalSettings": {"FolderPath": str(folder)}} | more


async def put_task(client: Client, folder: Path, **more: Any) -> int:
    reply = await client.post("/databases/Shop/admin/periodic-backup", task(folder, **more))
    assert reply.status in (200, 201), reply.text
    id = int(reply.json["TaskId"])
    await eventually(client, f"/databases/Shop/task?key={id}&type=Backup", lambda shown: shown["State"] == "Running")
    return id


async def ended(client: Client, path: str, id: int) -> dict[str, Any]:
    """The operation, once it has ended."""
    return await eventually(client, f"{path}/state?id={id}", lambda state: state["Status"] != "InProgress")


async def eventually(client: Client, path: str, condition: Callable[[Any], Any]) -> dict[str, Any]:
    """The answer, once it fulfils a condition."""
    async with asyncio.timeout(20):
        while True:
            shown = (await client.get(path)).json
            if condition(shown):
                return dict(shown)
            await asyncio.sleep(0.02)


async def back_up(client: Client, id: int, *, full: bool = True) -> dict[str, Any]:
    reply = await client.post(f"/databases/Shop/admin/backup/database?taskId={id}&isFullBackup={str(full).lower()}")
    assert reply.status == 200, reply.text
    return await ended(client, "/databases/Shop/operations", reply.json["OperationId"])


async def restored(client: Client, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Restore and return the operation, once it has ended."""
    reply = await client.post("/admin/restore/database", {"DatabaseName": name, "BackupLocation": str(folder)} | more)
    assert reply.status == 200, reply.text
    return await ended(client, "/operations", reply.json["OperationId"])


async def documents(client: Client, database: str) -> dict[str, Any]:
    """Every document without what differs between databases."""
    reply = await client.get(f"/databases/{database}/docs?start=0&pageSize=1000")
    found = {}
    for document in reply.json["Results"]:
        metadata = document.pop("@metadata")
        found[metadata["@id"]] = document | {"@collection": metadata["@collection"]}
    return found


async def put(client: Client, id: str, **fields: Any) -> None:
    body = fields | {"@metadata": {"@collection": "Orders"}}
    assert (await client.put(f"/databases/Shop/docs?id={id}", body)).status == 201


async def test_a_full_and_an_incremental_backup_restore_to_what_was_there(client: Client, tmp_path: Path) -> None:
    await client.database()
    for number in range(20):
        await put(client, f"orders/{number}", Number=number)
    id = await put_task(client, tmp_path / "backups")
    first = await back_up(client, id)
    assert first["Status"] == "Completed", first
    await put(client, "orders/3", Number=33)
    await put(client, "orders/new", Number=99)
    await client.delete("/databases/Shop/docs?id=orders/4")
    after = await documents(client, "Shop")
    second = await back_up(client, id, full=False)
    assert second["Status"] == "Completed", second
    assert second["Result"]["Documents"]["ReadCount"] == 2
    folder = tmp_path / "backups" / second["Result"]["Folder"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        file for name in (first["Result"]["File"], second["Result"]["File"]) for file in (name, f"{name}.manifest")
    )
    done = await restored(client, "Again", folder)
    assert done["Status"] == "Completed", done
    assert await documents(client, "Again") == after
    assert (await client.get("/databases/Again/stats")).json["CountOfDocuments"] == 20


async def test_check_35_a_restore_up_to_a_file_leaves_later_ones_out_disables_tasks_and_takes_no_name_twice(
    client: Client, tmp_path: Path
) -> None:
    await client.database()
    await put(client, "orders/1", Number=1)
    id = await put_task(client, tmp_path / "backups")
    await back_up(client, id)
    await put(client, "orders/2", Number=2)
    second = (await back_up(client, id, full=False))["Result"]
    await put(client, "orders/3", Number=3)
    await back_up(client, id, full=False)
    folder = tmp_path / "backups" / second["Folder"]
    wished = {"LastFileNameToRestore": second["File"], "DisableOngoingTasks": True}
    assert (await restored(client, "Again", folder, **wished))["Status"] == "Completed"
    assert set(await documents(client, "Again")) == {"orders/1", "orders/2"}
    [task] = (await client.get("/databases/Again/tasks")).json["OngoingTasks"]
    assert (task["TaskName"], task["TaskState"]) == ("nightly", "Disabled")
    again = await client.post("/admin/restore/database", {"DatabaseName": "again", "BackupLocation": str(folder)})
    assert again.status == 409
    assert "Database 'again' exists" in again.message


async def test_whoever_asks_for_a_backup_that_is_about_to_be_made_gets_that_one(client: Client, tmp_path: Path) -> None:
    await client.database()
    id = await put_task(client, tmp_path / "backups")
    path = f"/databases/Shop/admin/backup/database?taskId={id}"
    replies = await asyncio.gather(*(client.post(path) for _ in range(20)))
    [operation] = {reply.json["OperationId"] for reply in replies}
    assert (await ended(client, "/databases/Shop/operations", operation))["Status"] == "Completed"
    assert len(list((tmp_path / "backups").glob("*/*.manifest"))) == 1


async def test_what_a_run_was_asked_for_and_has_not_begun_fails_when_it_ends(client: Client, tmp_path: Path) -> None:
    await client.database()
    for number in range(5):
        await put(client, f"orders/{number}")
    id = await put_task(client, tmp_path / "backups", MaxReadOpsPerSecond=1)
    await client.post(f"/databases/Shop/admin/backup/database?taskId={id}")
    supervisor = client.node.assembly.supervisor
    waiting = supervisor.operations.begin("another", type="DatabaseBackup")
    assert supervisor.ask("shop/Backup/nightly", BackupNow(True, waiting))
    assert (await client.delete(f"/databases/Shop/admin/tasks?id={id}&type=Backup")).status == 200
    state = await ended(client, "/operations", waiting.id)
    assert (state["Status"], "ask again" in state["Result"]["Message"]) == ("Faulted", True)


async def test_a_repeat_of_a_restore_gets_the_operation_of_the_first(client: Client, tmp_path: Path) -> None:
    await client.database()
    folder = (
        tmp_path / "backups" / (await back_up(client, await put_task(client, tmp_path / "backups")))["Result"]["Folder"]
    )
    wished = {"DatabaseName": "Again", "BackupLocation": str(folder)}
    id = {REQUEST_ID: "mine"}
    first = await client.post("/admin/restore/database", wished, **id)
    assert (await ended(client, "/operations", first.json["OperationId"]))["Status"] == "Completed"
    again = await client.post("/admin/restore/database", wished, **id)
    assert (again.status, again.json) == (200, first.json)
    other = await client.post("/admin/restore/database", wished | {"DatabaseName": "Other"}, **id)
    assert other.status == 409
    assert "was used for another request" in other.message
    assert (await client.get("/databases?namesOnly=true")).json["Databases"] == ["Again", "Shop"]


async def test_definitions_come_back_and_what_cannot_is_told(client: Client, tmp_path: Path) -> None:
    await client.database()
    raven = {"Type": "Raven", "Name": "other", "Database": "x", "TopologyDiscoveryUrls": ["http://127.0.0.1:1"]}
    assert (await client.put("/databases/Shop/admin/connection-strings", raven)).status == 200
    index = {"Indexes": [{"Name": "i", "Maps": ["from o in docs.Orders select new { o.Company }"]}]}
    assert (await client.put("/databases/Shop/admin/indexes", index)).status == 201
    await put_task(client, tmp_path / "other", Name="encrypted", **ENCRYPTED)
    for _ in range(3):
        await client.post("/databases/Shop/identity/next?name=users|")
    id = await put_task(client, tmp_path / "backups")
    folder = tmp_path / "backups" / (await back_up(client, id))["Result"]["Folder"]
    done = await restored(client, "Again", folder)
    record = (await client.get("/admin/databases?name=Again")).json
    assert record["RavenConnectionStrings"]["other"]["Database"] == "x"
    assert set(record["Indexes"]) == {"i"}
    assert (await client.post("/databases/Again/identity/next?name=users|")).json == {"NewIdentityValue": 4}
    assert [task["Name"] for task in record["PeriodicBackups"]] == ["nightly"]
    # No backup that anybody can read holds the key of another.
    [skipped] = done["Result"]["Skipped"]
    assert skipped["Name"] == "encrypted"
    assert "Key" in skipped["Reason"]
    assert KEY.encode() not in b"".join(file.read_bytes() for file in folder.iterdir())


async def test_a_damaged_backup_is_refused_with_the_files_name_and_leaves_nothing(
    client: Client, tmp_path: Path
) -> None:
    await client.database()
    await put(client, "orders/1", Text="x" * 1000)
    id = await put_task(client, tmp_path / "backups")
    result = (await back_up(client, id))["Result"]
    file = tmp_path / "backups" / result["Folder"] / result["File"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + bytes(20))
    refused = await restored(client, "Again", file.parent)
    assert refused["Status"] == "Faulted"
    assert result["File"] in refused["Result"]["Message"]
    file.write_bytes(whole[:-1])
    refused = await restored(client, "Again", file.parent)
    assert f"{result['File']} is not whole: its file has" in refused["Result"]["Message"]
    assert (await client.get("/databases?namesOnly=true")).json["Databases"] == ["Shop"]
    await nothing_left(client, tmp_path)


async def test_few_restores_read_at_a_time_and_one_that_waits_can_be_ended(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.database()
    await put(client, "orders/1")
    id = await put_task(client, tmp_path / "backups")
    folder = tmp_path / "backups" / (await back_up(client, id))["Result"]["Folder"]
    active, most, go = 0, 0, asyncio.Event()
    read = BackupRestoring.into

    async def slowly(restoring: BackupRestoring, builder: StoreBuilder) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await go.wait()
        await read(restoring, builder)
        active -= 1

    monkeypatch.setattr(BackupRestoring, "into", slowly)
    begun = []
    for number in range(5):
        wished = {"DatabaseName": f"R{number}", "BackupLocation": str(folder), "DisableOngoingTasks": True}
        begun.append((await client.post("/admin/restore/database", wished)).json["OperationId"])
    assert (await client.post(f"/operations/kill?id={begun[-1]}")).status == 204
    assert (await ended(client, "/operations", begun[-1]))["Status"] == "Canceled"
    go.set()
    assert {(await ended(client, "/operations", one))["Status"] for one in begun[:-1]} == {"Completed"}
    assert most <= 2


async def test_a_newer_backup_that_is_not_whole_is_told_of(client: Client, tmp_path: Path) -> None:
    """What is restored then is older than whoever asks may think."""
    await client.database()
    await put(client, "orders/1")
    id = await put_task(client, tmp_path / "backups")
    await back_up(client, id)
    await put(client, "orders/2")
    result = (await back_up(client, id, full=False))["Result"]
    file = tmp_path / "backups" / result["Folder"] / result["File"]
    file.write_bytes(file.read_bytes()[:-1])
    done = await restored(client, "Again", file.parent, DisableOngoingTasks=True)
    assert done["Status"] == "Completed"
    assert set(await documents(client, "Again")) == {"orders/1"}
    [skipped] = done["Result"]["Skipped"]
    assert skipped["Name"] == result["File"]
    assert "it is not whole, and what it holds was not restored: its file has" in skipped["Reason"]
    wished = {"LastFileNameToRestore": result["File"]}
    assert (await restored(client, "Other", file.parent, **wished))["Status"] == "Faulted"


async def test_an_encrypted_backup_needs_its_key_which_is_shown_nowhere(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.database()
    await put(client, "orders/1", Number=1)
    id = await put_task(client, tmp_path / "backups", **ENCRYPTED)
    folder = tmp_path / "backups" / (await back_up(client, id))["Result"]["Folder"]
    for wrong, says in ((None, "give its key"), (base64.b64encode(bytes(32)).decode(), "the key is another")):
        refused = await restored(client, "Again", folder, EncryptionKey=wrong)
        assert says in refused["Result"]["Message"]
    bad = {"DatabaseName": "Again", "BackupLocation": str(folder), "EncryptionKey": "c2hvcnQ="}
    reply = await client.post("/admin/restore/database", bad)
    assert (reply.status, "c2hvcnQ=" in reply.text) == (400, False)
    assert (await restored(client, "Again", folder, EncryptionKey=KEY))["Status"] == "Completed"
    assert await documents(client, "Again") == await documents(client, "Shop")
    shown = [
        f"/databases/Shop/task?key={id}&type=Backup",
        "/databases/Shop/tasks",
        "/admin/databases?name=Shop",
        f"/periodic-backup/status?name=Shop&taskId={id}",
        "/operations",
        "/status",
    ]
    for path in shown:
        assert KEY not in (await client.get(path)).text
    said = capsys.readouterr().out
    assert "A backup was made." in said
    assert KEY not in said
    assert (await client.get(f"/periodic-backup/status?name=Shop&taskId={id}")).json["Status"]["IsEncrypted"]


async def test_a_place_is_listed_with_what_is_whole_and_what_is_not(client: Client, tmp_path: Path) -> None:
    await client.database()
    await put(client, "orders/1", Number=1)
    id = await put_task(client, tmp_path / "backups")
    result = (await back_up(client, id))["Result"]
    torn = tmp_path / "backups" / "2026-01-01-00-00-00.raftnode-Shop-A-3-backup"
    torn.mkdir()
    (torn / "2026-01-01-00-00-00.3.full-backup").write_bytes(b"half of it")
    (tmp_path / "backups" / "notes.txt").write_text("something else")
    listed = (await client.post("/admin/restore/points?type=Local", {"FolderPath": str(tmp_path / "backups")})).json
    first, second = listed["List"]
    assert (first["Files"][0]["IsWhole"], second["Files"][0]["IsWhole"]) == (False, True)
    assert second["Files"][0]["FileName"] == result["File"]
    assert first["DatabaseName"] == second["DatabaseName"] == "Shop"
    assert first["Files"][0]["Problem"] is not None
    # Whoever names the place and not the backup is told which there are.
    refused = await restored(client, "Again", tmp_path / "backups")
    assert result["Folder"] in refused["Result"]["Message"]


async def test_points_are_shown_below_the_folder_that_a_restore_takes(client: Client, tmp_path: Path) -> None:
    place = tmp_path / ("long-" * 40)
    (place / "2026-01-01-00-00-00.raftnode-Shop-A-3-backup").mkdir(parents=True)

    async def shown() -> list[str]:
        words = ["backup", "points", "--folder", str(place), "--url", client.url]
        done = await asyncio.to_thread(CliRunner().invoke, cli, words)
        return [line.rstrip() for line in done.output.splitlines()]

    assert "No backups." in await shown()
    await client.database()
    await put(client, "orders/1", Number=1)
    result = (await back_up(client, await put_task(client, place)))["Result"]
    lines = await shown()
    below = lines.index(f"{place}/{result['Folder']}")
    assert f"{result['File']}  whole" in lines[below + 2]


async def test_a_backup_that_runs_answers_for_itself_and_can_be_delayed_and_ended(
    client: Client, tmp_path: Path
) -> None:
    await client.database()
    for number in range(20):
        await put(client, f"orders/{number}", Number=number)
    slow = {"MaxReadOpsPerSecond": 1, "CreatedAt": "2026-01-01T00:00:00.0000000Z"}
    id = await put_task(client, tmp_path / "backups", **slow)
    info = f"/databases/Shop/task?key={id}&type=Backup"
    going = (await eventually(client, info, lambda shown: shown["OnGoingBackup"]))["OnGoingBackup"]
    operation = going["RunningBackupTaskId"]
    reply = await client.post(f"/databases/Shop/admin/backup/database?taskId={id}&isFullBackup=true")
    assert reply.json == {"ResponsibleNode": "A", "OperationId": operation}
    state = (await client.get(f"/databases/Shop/operations/state?id={operation}")).json
    assert (state["Status"], state["Killable"]) == ("InProgress", True)
    path = f"/admin/backup-task/delay?taskId={operation}&duration=02:00:00&database=Shop"
    assert (await client.post(path)).status == 200
    assert (await ended(client, "/operations", operation))["Status"] == "Canceled"
    shown = (await client.get(info)).json
    assert (shown["OnGoingBackup"], shown["LastFullBackup"]) == (None, None)
    assert shown["NextBackup"]["TimeSpan"].startswith("01:59:")
    begun = (await client.post(f"/databases/Shop/admin/backup/database?taskId={id}")).json["OperationId"]
    await eventually(client, f"/operations/state?id={begun}", lambda shown: shown["Killable"])
    assert (await client.post(f"/databases/Shop/operations/kill?id={begun}")).status == 204
    assert (await ended(client, "/operations", begun))["Status"] == "Canceled"
    status = (await client.get(f"/periodic-backup/status?name=Shop&taskId={id}")).json["Status"]
    assert status["Error"]["Exception"] == "it was ended by a user"
    reply = await client.post(f"/admin/backup-task/delay?taskId={id}&duration=-1&database=Shop")
    assert reply.status == 400


async def test_a_task_that_does_not_run_says_why_no_backup_is_made(client: Client, tmp_path: Path) -> None:
    await client.database()
    reply = await client.post("/databases/Shop/admin/periodic-backup", task(tmp_path / "backups", Disabled=True))
    reply = await client.post(f"/databases/Shop/admin/backup/database?taskId={reply.json['TaskId']}")
    assert reply.status == 503
    assert "raftnode task enable nightly" in reply.message


async def test_a_restore_that_is_ended_or_refused_in_the_middle_leaves_nothing(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.database()
    await put(client, "orders/1", Number=1)
    id = await put_task(client, tmp_path / "backups")
    folder = tmp_path / "backups" / (await back_up(client, id))["Result"]["Folder"]
    begun, go_on, into = asyncio.Event(), asyncio.Event(), BackupRestoring.into

    async def slow(self: BackupRestoring, builder: StoreBuilder) -> None:
        await into(self, builder)
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(BackupRestoring, "into", slow)
    wished = {"DatabaseName": "Again", "BackupLocation": str(folder)}
    operation = (await client.post("/admin/restore/database", wished)).json["OperationId"]
    await begun.wait()
    told = await eventually(client, f"/operations/state?id={operation}", read_one_document)
    assert told["Status"] == "InProgress"
    assert (await client.post(f"/operations/kill?id={operation}")).status == 204
    assert (await ended(client, "/operations", operation))["Status"] == "Canceled"
    await nothing_left(client, tmp_path)
    begun.clear()
    operation = (await client.post("/admin/restore/database", wished)).json["OperationId"]
    await begun.wait()
    await client.database("Again")
    go_on.set()
    refused = await ended(client, "/operations", operation)
    assert refused["Status"] == "Faulted"
    assert "'Again' exists already" in refused["Result"]["Message"]
    await nothing_left(client, tmp_path)


def read_one_document(state: dict[str, Any]) -> bool:
    return bool(state["Progress"] and state["Progress"]["Documents"]["ReadCount"] == 1)


async def nothing_left(client: Client, tmp_path: Path) -> None:
    """No file of a restore is on the node."""
    assert (await client.get("/admin/databases/removed")).json["Removed"] == []
    assert list((tmp_path / "data" / "databases" / ".restoring").iterdir()) == []


async def test_a_bucket_is_listed_and_restored_from_where_the_listing_says(client: Client, tmp_path: Path) -> None:
    await client.database()
    await put(client, "orders/1", Number=1)
    with objects.s3() as settings:
        id = await put_task(client, tmp_path, LocalSettings=None, S3Settings=settings, **ENCRYPTED)
        result = (await back_up(client, id))["Result"]
        shown = (await client.get(f"/databases/Shop/task?key={id}&type=Backup")).json
        assert shown["BackupDestinations"] == ["AmazonS3"]
        assert shown["Configuration"]["S3Settings"]["AwsSecretKey"] == "********"
        status = (await client.get(f"/periodic-backup/status?name=Shop&taskId={id}")).json["Status"]
        assert status["UploadToS3"]["UploadProgress"]["UploadState"] == "Done"
        [folder] = (await client.post("/admin/restore/points?type=S3", settings)).json["List"]
        [point] = folder["Files"]
        assert (point["FileName"], point["IsWhole"]) == (result["File"], True)
        wished = {
            "DatabaseName": "Again",
            "Settings": {"S3Settings": settings | {"RemoteFolderName": point["Location"]}},
            "EncryptionKey": KEY,
        }
        begun = (await client.post("/admin/restore/database", wished)).json["OperationId"]
        assert (await ended(client, "/operations", begun))["Status"] == "Completed"
        assert await documents(client, "Again") == await documents(client, "Shop")
        gone = settings | {"BucketName": "nope"}
        refused = await client.post("/admin/restore/points?type=S3", gone)
        assert refused.status == 400
        assert "s3://nope" in refused.message
        assert settings["AwsSecretKey"] not in refused.message
