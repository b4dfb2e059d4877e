"""Databases in which nothing happens, and tasks that have nothing to do, cost nothing: nobody looks at each of them
again and again."""

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from observer.rules import decide
from raftnode.documents.databases import Databases
from raftnode.documents.store import reads
from raftnode.documents.store.store import DocumentStore
from raftnode.documents.store.writes import Writer
from tasks.etl import runner as etl_runner
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in

DATABASES = 30
TASKS = 8
TURNS = 20


def counted(monkeypatch: pytest.MonkeyPatch, calls: Counter[str], where: Any, name: str) -> None:
    """Counts the calls of that function."""
    function = getattr(where, name)

    def counting(*given: Any) -> Any:
        calls[name] += 1
        return function(*given)

    monkeypatch.setattr(where, name, counting)


async def test_nobody_looks_at_each_idle_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    settings = settings_in(tmp_path / "data", cluster__stabilization_time_sec="1")
    async with running(settings) as client, asyncio.timeout(60):
        for number in range(DATABASES):
            await client.database(f"idle{number}")
        observer = client.node.assembly.observer
        while observer._settled.read is None:  # noqa: ASYNC110 (the observer tells nobody that all is at rest)
            await asyncio.sleep(0.02)
        counted(monkeypatch, calls, decide, "_topology")
        counted(monkeypatch, calls, Databases, "_shown")
        begun = observer.iteration
        while observer.iteration < begun + TURNS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls == {}, f"in {TURNS} turns of the observer"
        reply = await client.put("/databases/idle7/docs?id=orders/1", {})
        assert reply.status == 201
        while calls["_topology"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls["_topology"] < DATABASES, "one that is busy wakes no other"
        counted(monkeypatch, calls, Databases, "_aim")
        reply = await client.put("/databases/idle7/indexes", {"Indexes": [{"Name": "i", "Maps": ["from o in docs"]}]})
        assert reply.status == 201
        while calls["_aim"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls["_aim"] < DATABASES, "a change of one concerns no other"


async def test_nobody_wakes_for_a_task_that_has_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl_runner, "IDLE_S", 0.01)
    with sqlite3.connect(tmp_path / "target.sqlite") as target:
        target.execute("CREATE TABLE Orders (Id TEXT)")
    calls: Counter[str] = Counter()
    async with running(settings_in(tmp_path / "data")) as client, asyncio.timeout(60):
        for number in range(TASKS):
            await client.database(f"idle{number}")
            await put_task(client, f"idle{number}", tmp_path / "target.sqlite")
        waiting = waiting_without_end(monkeypatch)
        for number in range(TASKS):
            assert (await client.put(f"/databases/idle{number}/docs?id=products/1", {})).status == 201
        while len(waiting) < TASKS:  # noqa: ASYNC110 (a task at rest tells nobody)
            await asyncio.sleep(0.02)
        counted(monkeypatch, calls, reads, "after")
        counted(monkeypatch, calls, Writer, "save")
        observer = client.node.assembly.observer
        begun = observer.iteration
        while observer.iteration < begun + TURNS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls == {}, "a task at rest looks at its database"
        assert (await client.put("/databases/idle3/docs?id=orders/1", order())).status == 201
        while calls["after"] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert calls["after"] < TASKS, "one that is busy wakes no other"


def waiting_without_end(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The databases of which somebody waits for a change, for however long it takes."""
    waiting: set[str] = set()
    wait_changed = DocumentStore.wait_changed

    async def noted(store: DocumentStore, after_etag: int, timeout_s: float | None) -> int:
        if timeout_s is None:
            waiting.add(store.database)
        return await wait_changed(store, after_etag, timeout_s)

    monkeypatch.setattr(DocumentStore, "wait_changed", noted)
    return waiting


def order() -> dict[str, Any]:
    return {"Company": "companies/1", "@metadata": {"@collection": "Orders"}}


async def put_task(client: Client, database: str, file: Path) -> None:
    """A SQL ETL of the database's orders."""
    string = {"Name": "target", "Type": "Sql", "FactoryName": "Microsoft.Data.Sqlite"}
    path = f"/databases/{database}/admin"
    reply = await client.put(f"{path}/connection-strings", string | {"ConnectionString": f"Data Source={file}"})
    assert reply.status == 200, reply.text
    etl = {
        "EtlType": "Sql", "Name": database, "ConnectionStringName": "target",
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": True}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({});"}],
    }  # fmt: skip
    reply = await client.put(f"{path}/etl", etl)
    assert reply.status == 201, reply.text
