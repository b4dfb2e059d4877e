"""Backups of real nodes, whose makers are killed and frozen in the middle."""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness.cluster import PATIENT, STEADY, Cluster, northwind

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tasks" / "backup.md"
DATABASE = "Northwind"
LONG_AGO = "2026-01-01T00:00:00.0000000Z"
"""A task that was made then is overdue."""
OPERATION_SEC = 300.0


def backup(folder: Path, **more: Any) -> dict[str, Any]:
    """A backup task into the folder."""
    given = {"Name": "nightly", "FullBackupFrequency": "0 2 * * *", "LocalSettings": {"FolderPath": str(folder)}}
    return given | more


async def put(cluster: Cluster, task: dict[str, Any]) -> int:
    """Adds or edits the task; its id."""
    return int((await cluster.call("POST", f"/databases/{DATABASE}/admin/periodic-backup", task))["TaskId"])


async def points(cluster: Cluster, folder: Path) -> list[dict[str, Any]]:
    """Every backup that was begun there."""
    answer = await cluster.call("POST", "/admin/restore/points?type=Local", {"FolderPath": str(folder)})
    return [point for found in answer["List"] for point in found["Files"]]


async def ended(cluster: Cluster, tag: str, id: int) -> dict[str, Any]:
    """An operation of a node, once it has ended well."""

    async def over() -> dict[str, Any] | None:
        state = await cluster.call("GET", f"/operations/state?id={id}", tag=tag)
        return state if state["Status"] != "InProgress" else None

    state: dict[str, Any] = await cluster.wait_until(over, f"operation {id} on {tag} to end", OPERATION_SEC)
    assert state["Status"] == "Completed", state
    return state


async def back_up(
    cluster: Cluster, task: int, *, full: bool, tag: str = "A", database: str = DATABASE
) -> dict[str, Any]:
    """A backup on demand, asked of a node that need not make it."""
    path = f"/databases/{database}/admin/backup/database?taskId={task}&isFullBackup={str(full).lower()}"
    begun = await cluster.call("POST", path, tag=tag)
    return await ended(cluster, begun["ResponsibleNode"], begun["OperationId"])


async def documents(cluster: Cluster, database: str, tag: str) -> dict[str, Any]:
    """All documents on a node, without what differs between databases."""
    answer = await cluster.call("GET", f"/databases/{database}/docs?start=0&pageSize=10000", tag=tag)
    found = {}
    for document in answer["Results"]:
        metadata = document.pop("@metadata")
        kept = ("@collection", "@last-modified")
        found[metadata["@id"]] = document | {name: metadata[name] for name in kept}
    return found


async def restore(cluster: Cluster, point: dict[str, Any], name: str, tag: str) -> dict[str, Any]:
    """Restores up to that backup, on that node; its documents."""
    wished = {"DatabaseName": name, "BackupLocation": point["Location"], "LastFileNameToRestore": point["FileName"]}
    begun = await cluster.call("POST", "/admin/restore/database", wished | {"DisableOngoingTasks": True}, tag)
    await ended(cluster, tag, begun["OperationId"])
    return await documents(cluster, name, tag)


async def test_a_pinned_node_that_is_killed_in_the_middle_makes_a_whole_backup_at_once_when_it_is_back(
    tmp_path: Path,
) -> None:
    """The backup runs nowhere else meanwhile, however long the node stays away. It runs on there when the node is cut
    off, and that is told when it is back."""
    folder = tmp_path / "backups"
    async with Cluster(tmp_path / "nodes", "ABC", flags=(*PATIENT, *STEADY)) as cluster:
        settings = {"Backup.MoveToNewResponsibleNodeGracePeriodInMin": "0"}
        group = {"Topology": {"Members": ["A", "B", "C"]}, "Settings": settings}
        await cluster.call("PUT", f"/admin/databases?name={DATABASE}", group)
        await cluster.import_documents(DATABASE, northwind(), "B")
        # Overdue, and slow enough to be met in the middle.
        slow = {"CreatedAt": LONG_AGO, "MaxReadOpsPerSecond": 500}
        id = await put(cluster, backup(folder, MentorNode="B", PinToMentorNode=True, **slow))
        await cluster.wait_until(lambda: any(folder.glob("*/*.in-progress")), "a backup to be begun")
        await cluster.kill("B")
        [torn] = await points(cluster, folder)
        assert not torn["IsWhole"]
        assert "no manifest" in torn["Problem"]

        async def away() -> bool:
            task = await cluster.task(DATABASE, "nightly", "AC")
            assert task["Placement"]["Node"] == task["LastHolder"] == "B"
            return "B" in (await cluster.topology(DATABASE, "AC"))["Rehabs"]

        await cluster.wait_until(away, "B to be lost")
        assert await points(cluster, folder) == [torn]
        await cluster.restart("B")
        await told(cluster, id, "B", "A")
        [whole] = await points(cluster, folder)
        assert (whole["IsWhole"], whole["NodeTag"]) == (True, "B"), "what was torn is gone"
        assert int(torn["Epoch"]) < int(whole["Epoch"])
        assert await restore(cluster, whole, "Again", "A") == await documents(cluster, DATABASE, "B")
        await goes_on_cut_off(cluster, id, folder)


async def goes_on_cut_off(cluster: Cluster, id: int, folder: Path) -> None:
    """Without a majority B goes on with its backups, and the cluster is told of them later."""
    for tag in "AC":
        await cluster.freeze(tag)

    async def cut_off() -> bool:
        status = await cluster.status("B")
        return status is not None and not status["Node"]["HasLease"]

    await cluster.wait_until(cut_off, "B to be cut off")
    made = await back_up(cluster, id, full=True, tag="B")
    for tag in "AC":
        cluster.thaw(tag)

    async def known() -> bool:
        status = await cluster.call("GET", f"/periodic-backup/status?name={DATABASE}&taskId={id}", tag="A")
        return bool(status["Status"]["FileName"] == made["Result"]["File"])

    await cluster.wait_until(known, "A to know of it")
    assert [point["IsWhole"] for point in await points(cluster, folder)] == [True, True]


async def test_a_frozen_node_that_wakes_late_changes_nothing_of_what_its_successor_has_made(tmp_path: Path) -> None:
    """Any node is asked for a backup and tells what was made. Then the holder is frozen in the middle of one, and
    another node makes one. What the frozen one makes when it wakes, if anything, stands beside that and is whole."""
    folder = tmp_path / "backups"
    async with Cluster(tmp_path / "nodes", "ABC", flags=PATIENT) as cluster:
        settings = {"Backup.MoveToNewResponsibleNodeGracePeriodInMin": "0"}
        group = {"Topology": {"Members": ["A", "B", "C"]}, "Settings": settings}
        await cluster.call("PUT", f"/admin/databases?name={DATABASE}", group)
        await cluster.import_documents(DATABASE, northwind(), "A")
        id = await put(cluster, backup(folder, MaxReadOpsPerSecond=700))
        holder = await held(cluster)
        assert holder != "A", "not on the preferred node"
        await replicated(cluster, len(northwind()), holder)
        assert (await back_up(cluster, id, full=True))["Result"]["Documents"]["ReadCount"] == len(northwind())
        await cluster.call("DELETE", f"/databases/{DATABASE}/docs?id=orders/10248-A", tag=holder)
        assert (await back_up(cluster, id, full=False))["Result"]["Tombstones"]["ReadCount"] == 1
        present = await documents(cluster, DATABASE, holder)
        for tag in "ABC":
            await replicated(cluster, len(present), tag)
        for tag in "ABC":
            await told(cluster, id, holder, tag)
        full, incremental = await points(cluster, folder)
        assert await restore(cluster, incremental, "Again", "A") == present

        began = await cluster.call("POST", f"/databases/{DATABASE}/admin/backup/database?taskId={id}")
        assert began["ResponsibleNode"] == holder
        await cluster.wait_until(lambda: any(folder.glob("*/*.in-progress")), "a backup to be begun")
        await cluster.freeze(holder)
        others = [tag for tag in "ABC" if tag != holder]
        successor = await held(cluster, others)
        made = await back_up(cluster, id, full=False, tag=successor)
        assert made["Result"]["IsFull"], "a new owner has nothing to go on from"
        cluster.thaw(holder)
        await cluster.ready(holder)
        await cluster.wait_until(lambda: not any(folder.glob("*/*.in-progress")), "the late backup to end")
        late = [
            p for p in await points(cluster, folder) if p["FileName"] not in (full["FileName"], incremental["FileName"])
        ]
        assert made["Result"]["File"] in [point["FileName"] for point in late if point["IsWhole"]]
        for number, point in enumerate(late):
            if point["IsWhole"]:
                assert await restore(cluster, point, f"Again{number}", "A") == present
        await told(cluster, id, successor, holder)


async def replicated(cluster: Cluster, count: int, tag: str) -> None:
    """Waits until a node has so many documents."""

    async def there() -> bool:
        return bool((await cluster.call("GET", f"/databases/{DATABASE}/stats", tag=tag))["CountOfDocuments"] == count)

    await cluster.wait_until(there, f"{count} documents on {tag}")


async def held(cluster: Cluster, among: Sequence[str] = "ABC") -> str:
    """One of these nodes, which runs the task."""

    async def running() -> str | None:
        task = await cluster.task(DATABASE, "nightly", among)
        return str(task["Holder"]) if task["State"] == "Running" and task["Holder"] in among else None

    return str(await cluster.wait_until(running, f"one of {among} to run the task"))


async def told(cluster: Cluster, id: int, maker: str, tag: str) -> None:
    """Waits until a node tells that the newest backup is the maker's."""

    async def known() -> bool:
        answer = await cluster.call("GET", f"/periodic-backup/status?name={DATABASE}&taskId={id}", tag=tag)
        status = answer["Status"]
        return status["NodeTag"] == maker and status["Nodes"][maker]["Backups"] > 0 and status["Error"] is None

    await cluster.wait_until(known, f"{tag} to know of {maker}'s backup")


async def test_the_example_of_the_page_can_be_typed(tmp_path: Path) -> None:
    [block] = re.findall(r"(?ms)^## Example\n.*?^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    script = block.replace("/tmp/raftnode-backups", str(tmp_path / "backups"))
    async with Cluster(tmp_path / "nodes", "A", flags=PATIENT) as cluster:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"RAFTNODE_URL": cluster.nodes["A"].url, "PATH": path}
        process = await asyncio.create_subprocess_exec(
            "bash", "-e", "-c", script, env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0
        assert b"Database Again is there, on A; documents: 1,053." in said
        assert await documents(cluster, "Again", "A") == await documents(cluster, DATABASE, "A")
