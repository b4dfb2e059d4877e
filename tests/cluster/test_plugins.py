"""A kind of task that only some nodes have, on real processes."""

from pathlib import Path

import pytest

from raftnode.http import HttpFailed
from tests.harness import hostile_tasks
from tests.harness.cluster import PATIENT, Cluster
from tests.harness.plugins import install

DATABASE = "Plugged"


async def test_any_node_takes_a_task_of_a_kind_that_another_has_and_the_others_say_what_to_install(
    tmp_path: Path,
) -> None:
    cluster = Cluster(tmp_path, "AB", flags=PATIENT)
    cluster.nodes["A"].prefix += install(tmp_path / "packages", Path(hostile_tasks.__file__), "hostile_etl")
    async with cluster:
        await cluster.create_database(DATABASE, "AB")
        task = {"EtlType": "Hostile", "Name": "t"}
        answer = await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", task, "B")
        assert answer["ResponsibleNode"] == "A"

        async def held() -> bool:
            return await cluster.holder(DATABASE, "t") == "A"

        await cluster.wait_until(held, "A to run the task")
        with pytest.raises(HttpFailed, match=r"KeyError: 'Name'\. Is that field missing"):
            await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", {"EtlType": "Hostile"}, "B")
        with pytest.raises(HttpFailed, match=r"no node of the cluster has the task kind 'NoneSuchEtl'.*pip install"):
            await cluster.call("PUT", f"/databases/{DATABASE}/admin/etl", {"EtlType": "NoneSuch", "Name": "n"}, "B")
        await cluster.call("DELETE", f"/databases/{DATABASE}/admin/tasks?taskName=t", None, "B")
        await cluster.create_database("Alone", "B")
        answer = await cluster.call("PUT", "/databases/Alone/admin/etl", task, "A")
        assert answer["ResponsibleNode"] is None
        why = await cluster.call("GET", "/databases/Alone/tasks/t/why", None, "B")
        assert "Install the package that has it on B" in str(why)
