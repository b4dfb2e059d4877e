"""What a node answers about databases and tasks of other nodes, here of a watcher that cannot be reached."""

import pytest

from raftnode.record.commands import ClaimTask
from tests.unit.web.client import Client
from tests.unit.web.conftest import free_port

ETL = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)})"}],
}


@pytest.fixture(autouse=True)
async def other(client: Client) -> str:
    url = f"http://127.0.0.1:{free_port()}"
    node = {"Tag": "B", "Url": url, "ClusterAddress": f"127.0.0.1:{free_port()}", "NodeId": "f" * 32, "Watcher": True}
    assert (await client.put("/admin/cluster/node", node)).status == 200
    reply = await client.put("/admin/databases?name=Far", {"Topology": {"Members": ["B"]}})
    assert reply.status == 201, reply.text
    return url


async def test_a_document_of_another_nodes_database_is_refused_with_who_has_it(client: Client) -> None:
    for method, path in (("GET", "docs?id=a"), ("PUT", "docs?id=a"), ("POST", "bulk_insert"), ("GET", "stats")):
        reply = await client.send(method, f"/databases/Far/{path}", b"{}")
        assert reply.status == 503
        assert reply.headers["Refresh-Topology"] == "true"
        assert "Ask one of its Members: B." in reply.message


async def test_the_topology_of_another_nodes_database_is_known_here(client: Client, other: str) -> None:
    [node] = (await client.get("/topology?name=far")).json["Nodes"]
    assert (node["ClusterTag"], node["Url"]) == ("B", other)


async def test_a_promotable_answers_reads_and_refuses_writes(client: Client) -> None:
    reply = await client.put("/admin/databases/node?name=Far&node=A")
    assert reply.json["Topology"]["Promotables"] == ["A"]
    assert (await client.get("/databases/Far/docs?id=a")).status == 404
    refused = await client.put("/databases/Far/docs?id=a", {"x": 1})
    assert refused.status == 503
    assert "is a Promotable" in refused.message


async def test_the_update_of_a_promotable_is_shown_with_its_mentor(client: Client) -> None:
    await client.put("/admin/databases/node?name=Far&node=A&mentor=B")
    far = (await client.get("/status?database=far")).json["Databases"]["Far"]
    assert far["Mentors"] == {"A": "B"}
    [update] = far["Tasks"]
    assert (update["TaskType"], update["TaskName"], update["ResponsibleNode"]["NodeTag"]) == ("Update", "A", "B")
    assert update["Placement"]["Rule"] == "Mentor"


async def test_any_node_says_who_is_responsible_for_a_task(client: Client, other: str) -> None:
    target = {"Type": "Sql", "Name": "target", "FactoryName": "Npgsql", "ConnectionString": "Host=h;Database=d"}
    assert (await client.put("/databases/Far/admin/connection-strings", target)).status == 200
    reply = await client.put("/databases/Far/admin/etl", ETL)
    assert (reply.status, reply.json["ResponsibleNode"]) == (201, "B")
    info = (await client.get("/databases/Far/task?taskName=orders&type=SqlEtl")).json
    assert info["ResponsibleNode"] == {"NodeTag": "B", "NodeUrl": other, "ResponsibleNode": None}
    assert info["TaskConnectionStatus"] == "NotOnThisNode"
    assert info["Placement"]["Ranking"][0]["Node"] == "B"


PATIENT = {"cluster__time_before_moving_to_rehab_ms": "600000"}
"""A claim of a node that is silent stays for as long as a test of it takes, however busy the machine is."""


@pytest.mark.parametrize("client", [PATIENT], indirect=True)
async def test_a_holder_that_does_not_answer_is_named(client: Client) -> None:
    target = {"Type": "Sql", "Name": "target", "FactoryName": "Npgsql", "ConnectionString": "Host=h;Database=d"}
    await client.put("/databases/Far/admin/connection-strings", target)
    await client.put("/databases/Far/admin/etl", ETL)
    claim = ClaimTask(database="Far", kind="SqlEtl", name="orders", tag="B", node_id="f" * 32, boot=0, session=3)
    epoch = (await client.node.replica.propose(claim)).value
    for info in (
        (await client.get("/databases/Far/task?taskName=orders")).json,
        (await client.get("/databases/Far/tasks")).json["OngoingTasks"][0],
    ):
        assert (info["Holder"], info["Epoch"], info["ClaimState"], info["Session"]) == ("B", str(epoch), "Held", 3)
        assert info["Run"] is None
        assert "Node B holds the task and does not answer at http:" in info["Error"]


async def test_a_forced_removal_takes_the_node_out_of_every_group(client: Client) -> None:
    reply = await client.delete("/admin/cluster/node?nodeTag=B&force=true")
    assert reply.status == 200, reply.text
    assert (await client.get("/databases?namesOnly=true")).json == {"Databases": []}
