"""A wall clock that is set back or forward by an hour under a running node."""

from pathlib import Path
from typing import Any

from tests.harness.cluster import PATIENT, Cluster
from tests.harness.runs import assert_no_overlap
from tests.harness.wall_clock import WallClock
from tests.scenarios.conftest import Group

HOUR_SEC = 3600


async def node_of(cluster: Cluster, tag: str) -> dict[str, Any]:
    status = await cluster.wait_until(lambda: cluster.status(tag), f"{tag} to answer")
    node: dict[str, Any] = status["Node"]
    return node


async def test_a_wall_clock_set_back_by_an_hour_changes_nothing_and_one_set_forward_ends_the_session(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, "ABC", flags=("--cluster.stabilization-time-sec", "0", *PATIENT))
    clock = WallClock(cluster, "B", tmp_path / "clock")
    async with cluster:
        group = await Group(cluster, "Clock", "ABC").create()
        await group.add_task("onB", MentorNode="B")
        before = await group.held_by("onB", "B")
        session = (await node_of(cluster, "B"))["Session"]
        await group.write(1, 10, "B")
        await group.has_rows("onB", 10)

        clock.set_sec(-HOUR_SEC)
        await group.write(11, 20, "B")
        await group.has_rows("onB", 20)
        document = await cluster.call("GET", "/databases/Clock/docs?id=items/20", tag="B")
        first = await cluster.call("GET", "/databases/Clock/docs?id=items/1", tag="B")
        times = [d["Results"][0]["@metadata"]["@last-modified"] for d in (document, first)]
        assert times[0] < times[1], "the node's wall clock really went back"
        task = await group.task("onB")
        assert (task["Holder"], task["Epoch"]) == ("B", before["Epoch"])
        assert (await node_of(cluster, "B"))["Session"] == session

        # To the lease this looks like a machine that was suspended: whatever it held before counts no more.
        clock.set_sec(0)

        async def anew() -> bool:
            node, task = await node_of(cluster, "B"), await group.task("onB")
            held = task["Holder"] == "B" and task["ClaimState"] == "Held"
            return bool(held and int(task["Epoch"]) > int(before["Epoch"]) and node["Session"] > session)

        await cluster.wait_until(anew, "B to claim its task again in a new session")
        await group.write(21, 30, "A")
        await group.has_rows("onB", 30)
        assert cluster.living() == ["A", "B", "C"]
        assert_no_overlap(cluster.runs(), ["onB"])
