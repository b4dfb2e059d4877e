"""External replication as the official client makes it and reads it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ravendb import DocumentStore
from ravendb.documents.operations.connection_string.get_connection_string_operation import GetConnectionStringsOperation
from ravendb.documents.operations.connection_string.put_connection_string_operation import PutConnectionStringOperation
from ravendb.documents.operations.etl.configuration import RavenConnectionString
from ravendb.documents.operations.ongoing_tasks import (
    DeleteOngoingTaskOperation,
    GetOngoingTaskInfoOperation,
    OngoingTask,
    OngoingTaskConnectionStatus,
    OngoingTaskState,
    OngoingTaskType,
    ToggleOngoingTaskStateOperation,
)
from ravendb.documents.operations.replication.definitions import ExternalReplication
from ravendb.documents.operations.replication.pull_replication import UpdateExternalReplicationOperation

from tests.cluster.test_external_replication import Side
from tests.harness.cluster import PATIENT, Cluster, northwind
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in

REPLICATION = OngoingTaskType.REPLICATION


class Official:
    """The client, which waits, in a thread."""

    def __init__(self, urls: list[str], database: str) -> None:
        self.store = DocumentStore(urls, database)
        self.store.initialize()

    async def send(self, operation: Any) -> Any:
        return await asyncio.to_thread(self.store.maintenance.send, operation)

    async def info(self, task: int | str) -> OngoingTask | None:
        return await self.send(GetOngoingTaskInfoOperation(task, REPLICATION))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(settings_in(tmp_path / "data")) as client:
        for name in ("Shop", "Copy"):
            await client.put(f"/admin/databases?name={name}", {})
        yield client


async def test_check_40_replication_info_and_connection_strings_parse(node: Client) -> None:
    official = Official([node.url], "Shop")
    await official.send(PutConnectionStringOperation(RavenConnectionString("copy", "Copy", [node.url])))
    watcher = ExternalReplication("Copy", "copy", timedelta(hours=25), name="late", mentor_node="A")
    made = await official.send(UpdateExternalReplicationOperation(watcher))
    assert made.responsible_node == "A"
    info = await official.info("late")
    assert info is not None
    assert (info.task_id, info.task_type, info.task_name) == (made.task_id, REPLICATION, "late")
    assert (info.task_state, info.mentor_node, info.pin_to_mentor_node) == (OngoingTaskState.ENABLED, "A", False)
    assert info.responsible_node is not None
    assert (info.responsible_node.node_tag, info.responsible_node.node_url) == ("A", node.url)
    strings = await official.send(GetConnectionStringsOperation())
    assert strings.raven_connection_strings["copy"].topology_discovery_urls == [node.url]
    shown = (await node.get("/databases/Shop/task?taskName=late")).json
    assert (shown["DelayReplicationFor"], shown["DestinationDatabase"]) == ("1.01:00:00", "Copy")

    edited = ExternalReplication("Copy", "copy", name="at once", task_id=made.task_id, pin_to_mentor_node=True)
    assert (await official.send(UpdateExternalReplicationOperation(edited))).task_id == made.task_id
    await official.send(ToggleOngoingTaskStateOperation(made.task_id, REPLICATION, True))
    info = await official.info(made.task_id)
    assert info is not None
    assert (info.task_name, info.task_state, info.pin_to_mentor_node) == ("at once", OngoingTaskState.DISABLED, True)
    assert info.task_connection_status is OngoingTaskConnectionStatus.NOT_ACTIVE
    await official.send(DeleteOngoingTaskOperation(made.task_id, REPLICATION))
    assert await official.info(made.task_id) is None


async def test_a_database_that_would_replicate_to_itself_says_so(node: Client) -> None:
    official = Official([node.url], "Shop")
    another_name = node.url.replace("127.0.0.1", "localhost")
    await official.send(PutConnectionStringOperation(RavenConnectionString("self", "shop", [another_name])))
    made = await official.send(UpdateExternalReplicationOperation(ExternalReplication("shop", "self")))
    async with asyncio.timeout(20):
        while True:
            info = await official.info(made.task_id)
            assert info is not None
            if info.error:
                break
            await asyncio.sleep(0.05)
    assert "Database 'Shop' would replicate to itself" in info.error
    assert info.task_connection_status is OngoingTaskConnectionStatus.RECONNECT


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_northwind_travels_between_two_clusters_of_three_and_a_lost_node_on_each_side_stops_nothing(
    tmp_path: Path,
) -> None:
    flags = ("--cluster.stabilization-time-sec", "0", *PATIENT)
    async with (
        Cluster(tmp_path / "one", "ABC", flags=flags) as one,
        Cluster(tmp_path / "two", "DEF", flags=flags) as two,
    ):
        here, there = await Side(one, "Shop").create("ABC"), await Side(two, "Copy").create("DEF")
        await one.import_documents("Shop", northwind(), "A")
        official = Official(here.urls, "Shop")
        await official.send(PutConnectionStringOperation(RavenConnectionString("copy", "Copy", there.urls)))
        made = await official.send(UpdateExternalReplicationOperation(ExternalReplication("Copy", "copy", name="copy")))
        assert len(await here.same_as(there)) == len(northwind())
        to = (await here.info(made.task_id))["DestinationUrl"]
        receiver = next(tag for tag, node in two.nodes.items() if node.url == to)
        await two.kill(receiver)
        await here.write(0, 10)
        assert len(await here.same_as(there)) == len(northwind()) + 10
        assert (await here.info(made.task_id))["DestinationUrl"] != to
        holder = await one.wait_until(lambda: one.holder("Shop", "copy"), "somebody to hold the task")
        await one.kill(holder)
        await here.delete("items/0", "items/1", tag=one.living()[0])
        assert len(await here.same_as(there)) == len(northwind()) + 8
        await one.restart(holder)
        await two.restart(receiver)
        assert len(await here.same_as(there)) == len(northwind()) + 8
