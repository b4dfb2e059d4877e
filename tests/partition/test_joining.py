"""A sixth node comes in over the network, and gets a copy of a database while others come and go."""

from typing import Any

import pytest

from tests.harness.runs import assert_no_overlap
from tests.partition.lab import Lab
from tests.partition.scene import MEMBERS, all_good, lead, returned, same_documents
from tests.scenarios.conftest import Group

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

COUNT = 500


@pytest.fixture(scope="module")
def guests() -> str:
    """The sixth."""
    return "F"


async def test_what_is_written_on_any_member_is_read_on_every_other(lab: Lab, group: Group) -> None:
    for first, tag in zip((1, 101, 201), MEMBERS, strict=True):
        await group.write(first, first + 99, tag)
    assert await same_documents(group, 300) == {f"items/{n}": n for n in range(1, 301)}


async def test_a_sixth_node_joins_and_one_mentor_at_a_time_fills_its_copy_though_the_first_is_cut_off(
    lab: Lab, group: Group
) -> None:
    await lead(lab, "C")
    await group.write(1, COUNT, "A")
    await same_documents(group, COUNT)
    await lab.add("F")
    await lab.wait_until(lambda: all_good(lab), "all six to follow one leader")

    lab.network.partition("F", MEMBERS)
    await lab.call("PUT", f"/admin/databases/node?name={group.name}&node=F")
    first = await mentor(lab, group, set(MEMBERS))
    assert (await lab.topology(group.name))["Promotables"] == ["F"]
    lab.network.isolate(first)
    second = await mentor(lab, group, set(MEMBERS) - {first})
    assert (await lab.call("GET", f"/databases/{group.name}/stats", tag="F"))["CountOfDocuments"] == 0
    lab.network.heal()
    await group.is_member("F")
    await returned(group)

    runs = lab.runs()
    fillings = runs[f"{group.name.lower()}/Update/f"]
    assert [fillings[0].node, second] == [first, next(i.node for i in fillings if i.node != first)]
    assert_no_overlap(runs, [])
    assert (await lab.call("GET", f"/databases/{group.name}/stats", tag="F"))["CountOfDocuments"] == COUNT
    await group.write(COUNT + 1, COUNT + 10, "F")
    await same_documents(group, COUNT + 10)


async def mentor(lab: Lab, group: Group, among: set[str]) -> str:
    """Waits until one of these nodes holds the task that fills the Promotable; who."""

    async def holder() -> Any:
        view = await lab.view(among | {"C", "D"})
        found = [t for t in view["Databases"][group.name]["Tasks"] if t["TaskType"] == "Update"] if view else []
        assert len(found) <= 1
        return found[0]["Holder"] if found and found[0]["Holder"] in among else None

    return str(await lab.wait_until(holder, f"one of {sorted(among)} to fill the Promotable"))
