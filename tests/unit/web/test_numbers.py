"""JavaScript and jq keep 53 bits of a number: what can take more is text, wherever JSON is sent."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from raftnode.cluster import recovery
from raftnode.record.model import GENERATION_STRIDE
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.routes import ROUTES

EXACT_MAX = 2**53 - 1
ETL = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({});"}],
}


async def shop(client: Client, directory: Path) -> int:
    """Makes a database with a running task; the task's id."""
    with closing(sqlite3.connect(directory / "target.sqlite")) as target:
        target.execute("CREATE TABLE Orders (Id TEXT)")
    await client.database()
    connection = {
        "Type": "Sql", "Name": "target", "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": f"Data Source={directory}/target.sqlite",
    }  # fmt: skip
    assert (await client.put("/databases/Shop/admin/connection-strings", connection)).status == 200
    reply = await client.put("/databases/Shop/admin/etl", ETL)
    assert reply.status == 201, reply.text
    id: int = reply.json["TaskId"]
    return id


async def runs(client: Client, id: int, documents: int) -> dict[str, Any]:
    """Waits until the task has carried so many documents; its info."""
    for number in range(documents):
        await client.put(f"/databases/Shop/docs?id=orders/{number}", {"@metadata": {"@collection": "Orders"}})
    async with asyncio.timeout(30):
        while True:
            info: dict[str, Any] = (await client.get(f"/databases/Shop/task?key={id}")).json
            if info["Progress"] and info["Run"] and info["Progress"]["Processed"] >= documents:
                return info
            await asyncio.sleep(0.02)


def rounded(value: Any, path: str = "") -> Iterator[str]:
    """Every number in the JSON that would be read as another one."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from rounded(member, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from rounded(item, f"{path}[]")
    elif isinstance(value, int) and abs(value) > EXACT_MAX:
        yield f"{path} = {value}"


async def test_after_a_recovery_no_answer_holds_a_number_that_readers_round(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    async with running(settings) as client:
        id = await shop(client, tmp_path)
        await runs(client, id, 3)
    with recovery.survivor(settings) as survivor:
        recovery.force_new_cluster(settings, survivor)
    async with running(settings) as client:
        info = await runs(client, id, 5)
        assert int(info["Epoch"]) // GENERATION_STRIDE > 0
        assert info["Epoch"] == info["Run"]["Epoch"] == info["Run"]["Progress"]["Epoch"] == info["Progress"]["Epoch"]
        why = (await client.get(f"/databases/Shop/tasks/{id}/why")).json
        assert why["Runs"][0]["Epoch"] == why["Epoch"] == info["Epoch"]
        asked = 0
        for route in ROUTES:
            if route.method != "GET" or "snapshot" in route.path:
                continue
            for path in (route.url(id), route.path.replace("{database}", "Shop").replace("{task}", str(id))):
                reply = await client.get(path)
                if reply.status == 200:
                    asked += 1
                    assert list(rounded(reply.json)) == [], path
        assert asked > 40
        command = [sys.executable, "-m", "raftnode", "tasks", "--url", client.url, "--json"]
        shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert json.loads(shown.stdout)["Shop"][0]["Epoch"] == info["Epoch"]
        assert list(rounded(json.loads(shown.stdout))) == []
