"""The licence over HTTP: RavenDB's shape, and what can be set."""

from tests.unit.web.client import Client

HAS = ("HasHighlyAvailableTasks", "HasDynamicNodesDistribution")


async def test_everything_is_permitted_until_it_is_set_otherwise(client: Client) -> None:
    status = (await client.get("/license/status")).json
    assert all(value for name, value in status.items() if name.startswith("Has"))
    assert (status["Expired"], status["ErrorMessage"], status["Type"]) == (False, None, "None")
    reply = await client.post("/admin/license/features?highlyAvailableTasks=false")
    assert (reply.json["HighlyAvailableTasks"], reply.json["DynamicNodesDistribution"]) == (False, True)
    status = (await client.get("/license/status")).json
    assert [status[name] for name in HAS] == [False, True]
    assert (status["Attributes"]["highlyAvailableTasks"], status["Attributes"]["sqlEtl"]) == (False, True)
    await client.post("/admin/license/features?dynamicNodesDistribution=false")
    assert [(await client.get("/license/status")).json[name] for name in HAS] == [False, False]
    cluster = (await client.get("/status")).json["Cluster"]
    assert (cluster["HighlyAvailableTasks"], cluster["DynamicNodesDistribution"]) == (False, False)


async def test_setting_nothing_or_nonsense_is_refused(client: Client) -> None:
    refused = await client.post("/admin/license/features")
    assert refused.status == 400
    assert "Give highlyAvailableTasks or dynamicNodesDistribution, true or false" in refused.message
    assert (await client.post("/admin/license/features?highlyAvailableTasks=perhaps")).status == 400
