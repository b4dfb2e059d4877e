"""Backup and restore over HTTP, on a real node with a real folder."""

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.web.client import Client

NIGHTLY = "0 2 * * *"


def task(folder: Path, **more: Any) -> dict[str, Any]:
    """The configuration of a backup task."""
    given = {"Name": "nightly", "FullBackupFrequency": NIGHTLY, "IncrementalBackupFrequency": "0 * * * *"}
    return given | {"LocalSettings": {"FolderPath": str(folder)}} | more


async def put_task(client: Client, folder: Path, **more: Any) -> int:
    reply = await client.post("/databases/Shop/admin/periodic-backup", task(folder, **more))
    assert reply.status in (200, 201), reply.text
    id = int(reply.json["TaskId"])
    async with asyncio.timeout(20):
        while True:
            if (await client.get(f"/databases/Shop/task?key={id}&type=Backup")).json["State"] == "Running":
                return id
            await asyncio.sleep(0.02)


async def ended(client: Client, path: str, id: int) -> dict[str, Any]:
    """The operation, once it has ended."""
    async with asyncio.timeout(20):
        while True:
            state = (await client.get(f"{path}/state?id={id}")).json
            if state["Status"] != "InProgress":
                return dict(state)
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
