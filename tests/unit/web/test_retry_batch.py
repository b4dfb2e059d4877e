"""An ETL that waits after an error goes on at once when RavenDB's route for that is called."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.web.client import Client
from tests.unit.web.test_two_nodes import eventually

DB = "/databases/Shop"
PAUSE_MS = "600000"
TRANSFORM = {"Name": "t", "ApplyToAllDocuments": True, "Script": ""}
ETL = {"EtlType": "Raven", "Name": "carry/all", "ConnectionStringName": "copy", "Transforms": [TRANSFORM]}


@pytest.mark.parametrize(
    "client", [{"tasks__backoff_min_ms": PAUSE_MS, "tasks__backoff_max_ms": PAUSE_MS}], indirect=True
)
async def test_check_15_a_task_whose_destination_is_back_goes_on_at_once_when_that_is_asked_for(client: Client) -> None:
    await client.database()
    string = {"Type": "Raven", "Name": "copy", "Database": "Copy", "TopologyDiscoveryUrls": [client.url]}
    assert (await client.put(f"{DB}/admin/connection-strings", string)).status == 200
    assert (await client.put(f"{DB}/docs?id=orders/1", {"Company": "x"})).status == 201
    assert (await client.put(f"{DB}/admin/etl", ETL)).status == 201

    async def info(fits: Callable[[Any], Any]) -> Any:
        async def fitting() -> Any:
            shown = (await client.get(f"{DB}/task?taskName=carry/all&type=RavenEtl")).json
            return shown if fits(shown) else None

        return await eventually("the task's info to fit", fitting)

    await info(lambda shown: "no node of the destination takes documents" in (shown["Error"] or ""))
    assert (await client.put("/admin/databases?name=Copy", {})).status == 201
    for name, reason in (("nope", "has no ETL 'nope'"), ("carry/all/nope", "no transform 'nope'")):
        assert reason in (await client.post(f"{DB}/etl/retry-batch?name={name}")).message
    assert (await client.post(f"{DB}/etl/retry-batch?name=carry/all/T")).status == 200
    shown = await info(lambda shown: shown["TaskConnectionStatus"] == "Active" and shown["Behind"] == 0)
    assert shown["Error"] is None
    assert (await client.get("/databases/Copy/docs?id=orders/1")).json["Results"][0]["Company"] == "x"
