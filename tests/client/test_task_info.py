"""The info of each kind of task as the official client reads it."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ravendb.documents.operations.connection_string.get_connection_string_operation import GetConnectionStringsOperation
from ravendb.documents.operations.connection_string.put_connection_string_operation import PutConnectionStringOperation
from ravendb.documents.operations.etl.configuration import RavenConnectionString
from ravendb.documents.operations.etl.sql import SqlConnectionString
from ravendb.documents.operations.ongoing_tasks import (
    DeleteOngoingTaskOperation,
    GetOngoingTaskInfoOperation,
    OngoingTask,
    OngoingTaskConnectionStatus,
    OngoingTaskState,
    OngoingTaskType,
    ToggleOngoingTaskStateOperation,
)

from tests.client.test_external_replication import Official, node
from tests.unit.web.client import Client

__all__ = ["node"]

TRANSFORM = {"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company})"}
TASKS: dict[OngoingTaskType, dict[str, Any]] = {
    OngoingTaskType.RAVEN_ETL: {"ConnectionStringName": "copy", "Transforms": [TRANSFORM]},
    OngoingTaskType.SQL_ETL: {
        "ConnectionStringName": "sql",
        "Transforms": [TRANSFORM],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    },
    OngoingTaskType.REPLICATION: {"ConnectionStringName": "copy"},
    OngoingTaskType.BACKUP: {"FullBackupFrequency": "0 2 * * *"},
}


async def test_check_40_the_info_of_each_kind_of_task_parses(node: Client, tmp_path: Path) -> None:
    """Whether the task runs, is off or fails."""
    with closing(sqlite3.connect(tmp_path / "target.sqlite")) as target:
        target.execute("CREATE TABLE Orders (Id TEXT, Company TEXT)")
    await node.put("/databases/Shop/docs?id=orders/1", {"Company": "x", "@metadata": {"@collection": "Orders"}})
    official = Official([node.url], "Shop")
    text = f"Data Source={tmp_path}/target.sqlite"
    await official.send(PutConnectionStringOperation(SqlConnectionString("sql", text, "System.Data.SQLite")))
    await official.send(PutConnectionStringOperation(RavenConnectionString("copy", "Copy", [node.url])))
    strings = await official.send(GetConnectionStringsOperation())
    assert (list(strings.sql_connection_strings), list(strings.raven_connection_strings)) == (["sql"], ["copy"])

    backups = {"LocalSettings": {"FolderPath": str(tmp_path / "backups")}}
    for kind, given in TASKS.items():
        more = {"TaskType": kind.value, "Name": f"a {kind.value}", "MentorNode": "A", "PinToMentorNode": True}
        put = await node.put("/databases/Shop/admin/tasks", given | more | (backups if kind.value == "Backup" else {}))
        assert put.status == 201, put.text
        await each_state_is_read(official, kind, put.json["TaskId"], more["Name"], node.url)


async def each_state_is_read(official: Official, kind: OngoingTaskType, id: int, name: str, url: str) -> None:
    async def read(task: int | str = id) -> OngoingTask | None:
        return await official.send(GetOngoingTaskInfoOperation(task, kind))

    async def is_read(status: OngoingTaskConnectionStatus, state: OngoingTaskState) -> None:
        async with asyncio.timeout(20):
            while (found := await read()) and found.task_connection_status is not status:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for info in (found, await read(name)):
            assert info is not None
            assert (info.task_id, info.task_type, info.task_name, info.task_state) == (id, kind, name, state)
            assert (info.mentor_node, info.pin_to_mentor_node, info.error) == ("A", True, None)
            assert info.responsible_node is not None
            assert (info.responsible_node.node_tag, info.responsible_node.node_url) == ("A", url)

    await is_read(OngoingTaskConnectionStatus.ACTIVE, OngoingTaskState.ENABLED)
    await official.send(ToggleOngoingTaskStateOperation(id, kind, True))
    await is_read(OngoingTaskConnectionStatus.NOT_ACTIVE, OngoingTaskState.DISABLED)
    await official.send(DeleteOngoingTaskOperation(id, kind))
    assert await read() is None


@pytest.mark.parametrize("kind", [OngoingTaskType.RAVEN_ETL, OngoingTaskType.REPLICATION])
async def test_check_40_the_error_of_a_task_is_read(node: Client, kind: OngoingTaskType) -> None:
    official = Official([node.url], "Shop")
    await official.send(PutConnectionStringOperation(RavenConnectionString("copy", "Copy", ["http://127.0.0.1:1"])))
    await node.put("/databases/Shop/docs?id=orders/1", {"Company": "x", "@metadata": {"@collection": "Orders"}})
    given = TASKS[kind] | {"TaskType": kind.value, "Name": "lost"}
    id = (await node.put("/databases/Shop/admin/tasks", given)).json["TaskId"]
    async with asyncio.timeout(20):
        while True:
            info = await official.send(GetOngoingTaskInfoOperation(id, kind))
            if info.error:
                break
            await asyncio.sleep(0.05)
    assert info.task_connection_status is OngoingTaskConnectionStatus.RECONNECT
    assert "127.0.0.1:1" in info.error
