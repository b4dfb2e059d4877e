"""Scenarios 58, 59, 61 and 63: what the observer decides, and why, stands in the record and outlives its leader."""

import asyncio
import re
import time
from datetime import datetime
from typing import Any

import pytest

from raftnode.foundation.http_client import HttpFailed
from raftnode.record.observer_memory import DECISIONS_MAX
from tests.harness.cluster import Cluster
from tests.scenarios.conftest import Group
from tests.scenarios.decisions import becomes, decided, has_members, messages

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPLACE_MS = 5000
MOVE = r"E was (moved to Rehab|promoted to Member): "
STALE = r"The topology was not changed, reason ConcurrencyException: .* It was to be: "


@pytest.fixture(scope="module")
def more_flags() -> tuple[str, ...]:
    """Nodes that replace late enough for a leader to change meanwhile."""
    return ("--cluster.time-before-adding-replica-sec", str(REPLACE_MS // 1000))


async def test_scenario_58_a_suspended_observer_changes_nothing_until_it_is_resumed_whoever_leads(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB's suspension is in the leader's memory, so that a new leader decides again although nobody has resumed
    it. Here it stands in the record: maintenance ends when the operator says so, and not when a leader changes."""
    await group.add_task("onB", MentorNode="B")
    before = await group.held_by("onB", "B")
    await cluster.lead("C")
    await cluster.call("POST", "/admin/cluster/observer/suspend?value=true")
    try:
        await cluster.kill("B")
        await is_silent(cluster, "B")
        await cluster.lead("D")
        await is_silent(cluster, "B")
        assert (await cluster.topology(group.name))["Members"] == ["A", "B", "E"]
        assert await messages(group) == []
        task = await group.task("onB")
        assert (task["Holder"], task["Epoch"], task["ClaimState"]) == ("B", before["Epoch"], "Held")
        assert (await log(cluster, "A"))["Suspended"] is True
    finally:
        await cluster.call("POST", "/admin/cluster/observer/suspend?value=false")
    await decided(group, r"B was moved to Rehab: B has not been heard for (\d+) ms .*")
    assert (await group.held_elsewhere({"onB"}, "B"))["onB"] > int(before["Epoch"])
    assert (await log(cluster, "A"))["Suspended"] is False


async def test_scenario_59_a_decision_upon_a_record_that_was_edited_meanwhile_changes_nothing_and_is_made_anew(
    cluster: Cluster, group: Group
) -> None:
    """Users edit the topology so often that there is always an edit on its way when the observer decides, while a
    monitor says that a node is short of a resource and then again that it is not."""
    path = f"/admin/databases/dynamic-node-distribution?name={group.name}&enable="
    told = False

    async def edit() -> None:
        while not told:
            for value in ("true", "false"):
                await cluster.call("POST", path + value)

    async def undone() -> list[str]:
        await flag(cluster, "E", "OutOfCpuCredits")
        await becomes(group, "E in Rehab", lambda t: t["Rehabs"] == ["E"])
        await flag(cluster, "E", "")
        await has_members(group, "ABE")
        said = await messages(group)
        return [message for message in said if re.match(STALE + MOVE, message)]

    async with asyncio.TaskGroup() as editors:
        for _ in range(4):
            editors.create_task(edit())
        try:
            first, *_ = await cluster.wait_until(undone, "a decision upon a record that was edited meanwhile")
        finally:
            told = True
            await flag(cluster, "E", "")
    said = await messages(group)
    later = said[said.index(first) + 1 :]
    tried = re.sub(STALE, "", first).partition(":")[0]
    assert tried in {message.partition(":")[0] for message in later}, "it was decided anew, and done"
    await has_members(group, "ABE")


async def test_scenario_61_how_long_a_node_is_lost_is_counted_on_when_the_leader_changes(
    cluster: Cluster, group: Group
) -> None:
    """In RavenDB every grace begins anew with each leader, so that leaders that change often keep a lost node for
    ever. Here the record says since when the node is lost. Only its silence is judged anew, by who leads."""
    await cluster.call("POST", f"/admin/databases/dynamic-node-distribution?name={group.name}&enable=true")
    await cluster.lead("A")
    await cluster.kill("B")
    [demoted] = await decided(group, r"B was moved to Rehab: .*")
    lost = await entry(group, demoted[0])
    halfway_ms = at_ms(lost) + REPLACE_MS * 2 // 5
    await cluster.wait_until(lambda: time.time() * 1000 > halfway_ms, "a part of the grace to pass")
    changes_ms = time.time() * 1000
    await cluster.lead("E")
    [said] = await decided(
        group, r"[CD] was added as a Promotable: .*B has been lost for (\d+) ms \(limit (\d+) ms\): B has not .*"
    )
    assert int(said[1]) >= int(said[2]) == REPLACE_MS
    replaced = await entry(group, said[0])
    assert replaced["Term"] > lost["Term"]
    assert at_ms(replaced) - at_ms(lost) >= REPLACE_MS
    assert at_ms(replaced) - changes_ms < REPLACE_MS, "the new leader does not begin to count"


async def test_scenario_63_every_node_shows_the_decisions_also_those_of_leaders_before(
    cluster: Cluster, group: Group
) -> None:
    """RavenDB keeps the last 100 in the leader's memory and sends a client there. Here the last 1,000 stand in the
    record: any node answers, whoever leads, and a new leader forgets none."""
    await cluster.lead("C")
    await flag(cluster, "B", "OutOfCpuCredits")
    try:
        await decided(group, r"B was moved to Rehab: B is short of a resource: OutOfCpuCredits\.")
    finally:
        await flag(cluster, "B", "")
    await decided(group, r"B was promoted to Member: .*")
    await cluster.lead("D")
    shown = await log(cluster, "D")
    ours = [said for said in shown["ObserverLog"] if said["Database"] == group.name]
    assert len(ours) >= 2
    assert max(said["Term"] for said in ours) < shown["Term"], "they are those of leaders before"
    for tag in "ABCE":

        async def same(tag: str = tag) -> bool:
            there = await log(cluster, tag)
            return bool(there["LeaderNode"] == "D" and there["ObserverLog"] == shown["ObserverLog"])

        await cluster.wait_until(same, f"{tag} to show what D shows")
    newest = shown["ObserverLog"][-1:]
    assert (await cluster.call("GET", "/admin/cluster/observer/decisions?take=1"))["ObserverLog"] == newest
    assert len(shown["ObserverLog"]) <= DECISIONS_MAX
    with pytest.raises(HttpFailed, match=f"1 to {DECISIONS_MAX}"):
        await cluster.call("GET", f"/admin/cluster/observer/decisions?take={DECISIONS_MAX + 1}")


async def flag(cluster: Cluster, tag: str, flags: str) -> None:
    """Says which resources the node is short of."""
    await cluster.call("POST", f"/admin/cluster/node/flags?nodeTag={tag}&flags={flags}")


async def is_silent(cluster: Cluster, tag: str) -> None:
    """Waits until whoever leads now counts the node as silent."""

    async def silent() -> bool:
        leader = await cluster.leader()
        stats = await cluster.call("GET", "/admin/cluster/maintenance-stats", tag=leader)
        return tag in stats and stats[tag]["Silent"] is True

    await cluster.wait_until(silent, f"{tag} to be silent")


async def log(cluster: Cluster, tag: str) -> dict[str, Any]:
    """The observer's decisions as the node shows them."""
    answer: dict[str, Any] = await cluster.call("GET", "/admin/cluster/observer/decisions", tag=tag)
    return answer


async def entry(group: Group, message: str) -> dict[str, Any]:
    """The one decision about the database with this sentence."""
    shown = (await log(group.cluster, group.cluster.living()[0]))["ObserverLog"]
    found: list[dict[str, Any]] = [e for e in shown if (e["Database"], e["Message"]) == (group.name, message)]
    assert len(found) == 1
    return found[0]


def at_ms(entry: dict[str, Any]) -> int:
    """When it was decided."""
    return int(datetime.fromisoformat(entry["Date"]).timestamp() * 1000)
