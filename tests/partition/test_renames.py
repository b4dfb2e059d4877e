"""A task is renamed, and another takes its name, while its holder is cut off: each goes on from its own place."""

import asyncio
import sqlite3

import pytest

from tests.harness.cluster import PATIENT
from tests.harness.runs import Interval, assert_no_overlap
from tests.partition.lab import Lab
from tests.partition.scene import idle_candidate, insert_only, key, lead
from tests.scenarios.conftest import Group, etl

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

OTHERS = {
    "SqlTables": [{"TableName": "Others", "DocumentIdColumn": "Id", "InsertOnlyMode": True}],
    "Transforms": [{"Name": "t", "Collections": ["Items"], "Script": "loadToOthers({Value: this.Value});"}],
}


@pytest.fixture(scope="module")
def flags() -> tuple[str, ...]:
    """Leases that outlast the stalls of a busy machine: this is not about time."""
    return PATIENT


@pytest.mark.parametrize("reset", [False, True], ids=["renamed", "renamed and reset"])
async def test_a_task_renamed_while_its_holder_is_cut_off_and_one_that_takes_its_name_do_not_meet(
    lab: Lab, group: Group, *, reset: bool
) -> None:
    """Both write into one target, where a document that is loaded twice leaves two rows."""
    await lead(lab, "C")
    with sqlite3.connect(group.targets["onB"]) as target:
        target.execute("CREATE TABLE Others (Id TEXT, Value INTEGER)")
    await group.write(1, 20, "A")
    await group.has_rows("onB", 20)
    former_epoch = int((await lab.task(group.name, "onB", "A"))["Epoch"])
    await asyncio.to_thread(lab.network.isolate, "B")
    path, renamed = f"/databases/{group.name}/admin/etl", {**etl("onB"), **insert_only(), "Name": "renamed"}
    if reset:
        renamed["SqlTables"][0]["InsertOnlyMode"] = False
    await lab.call("PUT", f"{path}?id={group.ids['onB']}{'&reset=t' if reset else ''}", renamed, "A")
    await lab.call("PUT", path, {**etl("onB"), **OTHERS}, "A")

    def others() -> list[int]:
        with sqlite3.connect(group.targets["onB"]) as target:
            return [value for (value,) in target.execute("SELECT Value FROM Others ORDER BY Value")]

    await lab.wait_until(lambda: others() == list(range(1, 21)), "the new task to have carried everything")
    await group.write(21, 30, "A")
    await idle_candidate(lab, "B")
    lab.network.heal()
    await group.has_rows("onB", 30)
    await lab.wait_until(lambda: others() == list(range(1, 31)), "the new task to go on")
    runs = told_apart(lab.runs(), key(group, "onB"), key(group, "renamed"), former_epoch)
    assert_no_overlap(runs, [key(group, name) for name in ("onB", "renamed")])


def told_apart(
    runs: dict[str, list[Interval]], name: str, renamed: str, former_epoch: int
) -> dict[str, list[Interval]]:
    """The journals' intervals by task, as they are by name: up to that epoch the name was the renamed task's."""
    former = [one for one in runs[name] if one.epoch <= former_epoch]
    later = [one for one in runs[name] if one.epoch > former_epoch]
    return {**runs, name: later, renamed: sorted([*former, *runs[renamed]])}
