"""A client that repeats a command at another node, as the first one does not answer: the command takes effect once."""

import asyncio

import pytest

from tests.partition.lab import Lab
from tests.partition.scene import idle_candidate
from tests.scenarios.conftest import Group

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def flags() -> tuple[str, ...]:
    """A node that is cut off proposes what it was asked for as soon as it is back, however long that takes."""
    return ("--cluster.proposal-timeout-ms", "60000")


async def test_a_command_repeated_under_its_id_takes_no_effect_when_the_cut_off_node_brings_it_late(
    lab: Lab, group: Group
) -> None:
    path = f"/databases/{group.name}/admin/connection-strings"

    async def put(value: int, tag: str) -> int:
        target = f"Data Source=/nowhere/{value}"
        string = {"Name": "s", "Type": "Sql", "FactoryName": "System.Data.SQLite", "ConnectionString": target}
        answer = await lab.call("PUT", f"{path}?raft-request-id=value-{value}", string, tag)
        index: int = answer["RaftCommandIndex"]
        return index

    lab.network.isolate("C")
    await idle_candidate(lab, "C")
    async with asyncio.TaskGroup() as asking:
        late = asking.create_task(put(1, "C"))
        first = await put(1, "A")
        await put(2, "A")
        assert not late.done()
        lab.network.heal()
    assert late.result() == first
    # C has applied what it proposed late, and so everything before that.
    stands = (await lab.call("GET", path, tag="C"))["SqlConnectionStrings"]["s"]["ConnectionString"]
    assert stands == "Data Source=/nowhere/2"
