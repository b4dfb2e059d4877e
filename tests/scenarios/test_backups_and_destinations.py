"""Backups that move, come back and die; an ETL whose destination dies; and a licence that keeps every task in place."""

import itertools
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import messages

pytestmark = pytest.mark.asyncio(loop_scope="module")

YEARLY = "0 2 1 1 *"
LONG_AGO = "2020-01-01T00:00:00.0000000Z"
"""A backup that was made then is overdue, and runs as soon as it can."""
DOCUMENTS = 300
PER_SEC = 150


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes."""
    flags = (*PATIENT, "--cluster.stabilization-time-sec", "0")
    async with Cluster(tmp_path_factory.mktemp("cluster"), "ABC", flags=flags) as three:
        yield three
        assert_no_overlap({key: runs for key, runs in three.runs().items() if "/Backup/" not in key}, [])


_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def group(cluster: Cluster) -> Group:
    """A database on A, B and C, each of which has all documents."""
    for tag in set(cluster.nodes) - set(cluster.living()):
        await cluster.restart(tag)
    made = await Group(cluster, f"Db{next(_numbers)}", "ABC").create()
    await made.write(1, DOCUMENTS, "A")
    for tag in "ABC":
        await cluster.wait_until(partial(has_documents, made, tag, DOCUMENTS), f"all documents on {tag}")
    return made


async def has_documents(group: Group, tag: str, count: int) -> bool:
    """Whether the node has that many documents of the database."""
    stats = await group.cluster.call("GET", f"/databases/{group.name}/stats", tag=tag)
    return bool(stats["CountOfDocuments"] == count)


async def put(group: Group, folder: Path, **more: Any) -> int:
    """A backup task into that folder; its id."""
    given = {"Name": "nightly", "FullBackupFrequency": YEARLY, "LocalSettings": {"FolderPath": str(folder)}}
    answer = await group.cluster.call("POST", f"/databases/{group.name}/admin/periodic-backup", given | more)
    return int(answer["TaskId"])


async def points(group: Group, folder: Path) -> list[dict[str, Any]]:
    """The backups in the folder, in order."""
    answer = await group.cluster.call("POST", "/admin/restore/points?type=Local", {"FolderPath": str(folder)})
    return [file | {"Folder": found["Folder"]} for found in answer["List"] for file in found["Files"]]


async def moved(group: Group, id: int, tag: str) -> None:
    """The task belongs to that node from now on, and runs there."""
    await group.cluster.pin(group.name, id, tag, pinned=True)
    await group.held_by("nightly", tag)


async def back_up(group: Group, id: int, *, full: bool, folder: Path) -> dict[str, Any]:
    """Has the task make a backup; that one."""
    before = [(one["Location"], one["FileName"]) for one in await points(group, folder)]
    path = f"/databases/{group.name}/admin/backup/database?taskId={id}&isFullBackup={str(full).lower()}"
    await group.cluster.wait_until(lambda: group.cluster.call("POST", path), "the backup to begin")

    async def made() -> dict[str, Any] | None:
        found = [one for one in await points(group, folder) if (one["Location"], one["FileName"]) not in before]
        return found[0] if len(found) == 1 and found[0]["IsWhole"] else None

    newest: dict[str, Any] = await group.cluster.wait_until(made, "the backup to be whole")
    return newest


async def test_scenario_40_a_backup_that_is_back_on_its_node_goes_on_from_what_that_has_made(
    cluster: Cluster, group: Group, tmp_path: Path
) -> None:
    id = await put(group, tmp_path)
    await moved(group, id, "A")
    first = await back_up(group, id, full=True, folder=tmp_path)
    await group.write(DOCUMENTS + 1, DOCUMENTS + 5, "A")
    await moved(group, id, "B")
    there = await back_up(group, id, full=False, folder=tmp_path)
    assert [(one["NodeTag"], one["IsIncremental"]) for one in (first, there)] == [("A", False), ("B", False)]
    await group.write(DOCUMENTS + 6, DOCUMENTS + 9, "A")
    await moved(group, id, "A")
    back = await back_up(group, id, full=False, folder=tmp_path)
    assert (back["NodeTag"], back["IsIncremental"]) == ("A", True)
    assert back["Folder"] == first["Folder"] != there["Folder"]
    assert back["Documents"] == 9


async def test_a_pinned_backup_whose_node_dies_in_the_middle_runs_nowhere_else_and_is_whole_after_its_return(
    cluster: Cluster, group: Group, tmp_path: Path
) -> None:
    pinned = {"MentorNode": "B", "PinToMentorNode": True, "CreatedAt": LONG_AGO, "MaxReadOpsPerSecond": PER_SEC}
    id = await put(group, tmp_path, **pinned)
    await cluster.wait_until(lambda: any(tmp_path.rglob("*")), "B to have begun its backup")
    await cluster.kill("B")
    assert [point for point in await points(group, tmp_path) if point["IsWhole"]] == []
    await group.is_rehab("B")
    task = await group.task("nightly")
    assert (task["Placement"]["Node"], task["Placement"]["Rule"]) == ("B", "PinnedMentor")
    await cluster.restart("B")

    async def whole() -> list[dict[str, Any]]:
        return [point for point in await points(group, tmp_path) if point["IsWhole"]]

    [point] = await cluster.wait_until(whole, "B to have made its backup")
    assert (point["NodeTag"], point["Documents"]) == ("B", DOCUMENTS)
    assert {run.node for run in cluster.runs()[f"{group.name.lower()}/Backup/nightly"]} == {"B"}
    await group.is_member("B")

    async def told() -> bool:
        info = await cluster.call("GET", f"/databases/{group.name}/task?key={id}&type=Backup")
        return bool(info["LastExecutingNodeTag"] == "B")

    await cluster.wait_until(told, "B to have told of it")


async def test_scenario_28_when_the_destination_in_use_dies_documents_go_to_another_of_its_nodes(
    cluster: Cluster, group: Group
) -> None:
    """Each of the two dies once, so that the one in use does."""
    there = await Group(cluster, f"{group.name}there", "BC").create()
    string = {"Name": "there", "Type": "Raven", "Database": there.name}
    urls = [cluster.nodes[tag].url for tag in "BC"]
    await cluster.put_connection_string(group.name, string | {"TopologyDiscoveryUrls": urls})
    transform = {"Name": "items", "Collections": ["Items"], "Script": "loadToItems(this)"}
    etl = {"EtlType": "Raven", "Name": "carry", "ConnectionStringName": "there", "Transforms": [transform]}
    await cluster.put_etl(group.name, etl | {"MentorNode": "A"})

    for tag in "BC":
        await cluster.wait_until(partial(has_documents, there, tag, DOCUMENTS), f"all documents on {tag}")
    for lost, left, count in (("B", "C", DOCUMENTS + 5), ("C", "B", DOCUMENTS + 10)):
        await cluster.kill(lost)
        await group.write(count - 4, count, "A")
        await cluster.wait_until(partial(has_documents, there, left, count), f"{count} documents on {left}")
        await cluster.restart(lost)
        await cluster.wait_until(partial(has_documents, there, lost, count), f"{count} documents on {lost}")


async def test_without_highly_available_tasks_a_task_waits_for_its_node_and_moves_when_that_leaves_the_group(
    cluster: Cluster, group: Group
) -> None:
    await cluster.call("POST", "/admin/license/features?highlyAvailableTasks=false")
    try:
        await group.add_task("orders")
        holder = (await group.holders())["orders"]
        await group.has_rows("orders", DOCUMENTS)
        await cluster.kill(holder)
        await group.is_rehab(holder)

        async def waits() -> bool:
            task = await group.task("orders")
            return (task["WaitsFor"], task["Placement"]["Rule"]) == (holder, "LicenceKeepsLast")

        await cluster.wait_until(waits, f"the task to wait for {holder}")
        said = f"SqlEtl 'orders' (epoch {(await group.task('orders'))['Epoch']}) waits for {holder}, which is a Rehab"
        left = next(tag for tag in "ABC" if tag != holder)
        await group.write(DOCUMENTS + 1, DOCUMENTS + 10, left)
        await cluster.restart(holder)
        await group.has_rows("orders", DOCUMENTS + 10)
        assert (await group.holders())["orders"] == holder
        await group.is_member(holder)
        assert len([message for message in await messages(group) if said in message]) == 1
        gone = {"DatabaseNames": [group.name], "FromNodes": [holder], "HardDelete": True}
        await cluster.call("DELETE", "/admin/databases", gone)
        await group.held_elsewhere({"orders"}, holder)
        await group.write(DOCUMENTS + 11, DOCUMENTS + 20, left)
        await group.has_rows("orders", DOCUMENTS + 20)
    finally:
        await cluster.call("POST", "/admin/license/features?highlyAvailableTasks=true")
