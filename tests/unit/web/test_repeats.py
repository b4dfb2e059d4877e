"""A repeat of a request, under its id, gets the result of the first, whatever has become of what the request names."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from raftnode.record.commands import RemoveNode
from raftnode.web.requests import REQUEST_ID
from tests.unit.web.client import Client, HttpReply
from tests.unit.web.conftest import free_port, running, settings_in
from tests.unit.web.routes import ROUTES, Route
from tests.unit.web.test_two_nodes import eventually, pair

__all__ = ["pair"]

ETL = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "Disabled": True,
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)})"}],
}
TARGET = {"Type": "Sql", "Name": "target", "FactoryName": "Npgsql", "ConnectionString": "Host=h;Database=d"}
RAVEN = {"Type": "Raven", "Name": "other", "Database": "x", "TopologyDiscoveryUrls": ["http://127.0.0.1:1"]}
NO_COMMAND = {
    # What changes no record: documents, questions, and who leads.
    "/admin/cluster/reelect", "/cluster/what-if", "/databases/{database}/tasks/what-if", "/databases/{database}/docs",
    "/databases/{database}/bulk_docs", "/databases/{database}/bulk_insert", "/replication/{database}/documents",
    # What the copy on this node notes by itself: the fence refuses what is older.
    "/databases/{database}/etl/fence",
    # What ends an operation of this node: one that has ended stays as it is.
    "/operations/kill", "/databases/{database}/operations/kill",
    # What asks the task on the node that runs it, and proposes nothing itself.
    "/databases/{database}/admin/backup/database", "/admin/backup-task/delay",
    # A question, asked by POST for its body.
    "/admin/restore/points", "/databases/{database}/multi_get",
    "/databases/{database}/json-patch", "/databases/{database}/admin/etl/{kind}/test",
    # Documents of another group.
    "/external-replication/{database}/documents",
    # An operation of this node, which it knows by the request: test_backups.py.
    "/admin/restore/database",
}  # fmt: skip
OF_TWO_NODES = {"/admin/cluster/promote", "/admin/cluster/demote"}
AS_IT_IS_NOW = {"Topology", "NodesAddedTo", "Node", "Nodes", "Moves", "Waits", "Tasks", "ResponsibleNode", "Suspended",
                "Warnings"}  # fmt: skip
"""What an answer tells of the present state beside the result."""

Made = dict[str, str]


async def a_string(client: Client) -> Made:
    """A connection string that no task uses."""
    await done(client.put("/databases/Shop/admin/connection-strings", TARGET | {"Name": "spare"}))
    return {}


async def a_raven_string(client: Client) -> Made:
    await done(client.put("/databases/Shop/admin/connection-strings", RAVEN))
    return {}


async def a_copy_of_b(client: Client) -> Made:
    await done(client.put("/admin/databases/node?name=Shop&node=B"))
    return {}


async def a_removed_copy(client: Client) -> Made:
    await done(client.delete("/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": False}))
    [*_, removed] = (await client.get("/admin/databases/removed")).json["Removed"]
    return {"folder": removed["Folder"]}


async def no_database(client: Client) -> Made:
    await done(client.delete("/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": True}))
    return {}


@dataclass(frozen=True)
class Case:
    """A route with what is given to it, and what there must be before. The rest is as in ROUTES."""

    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    before: Callable[[Client], Awaitable[Made]] | None = None


def joining() -> dict[str, Any]:
    url, address = f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    return {"Url": url, "ClusterAddress": address, "NodeId": uuid.uuid4().hex, "Watcher": True}


JOINING = joining()
OTHER_TABLE = [{"TableName": "Orders", "DocumentIdColumn": "Other"}]
B = {"nodeTag": "B"}
CASES: dict[tuple[str, str], Case] = {
    ("PUT", "/admin/cluster/node"): Case(body=JOINING),
    ("DELETE", "/admin/cluster/node"): Case(B),
    ("POST", "/admin/cluster/drain"): Case(B),
    ("POST", "/admin/cluster/undrain"): Case(B),
    ("POST", "/admin/cluster/node/traits"): Case({**B, "weight": "2"}),
    ("POST", "/admin/cluster/node/flags"): Case({**B, "flags": "EarlyOutOfMemory"}),
    ("PUT", "/admin/databases"): Case(body={"DatabaseName": "Shop"}, before=no_database),
    ("DELETE", "/admin/databases"): Case(body={"DatabaseNames": ["Shop"], "FromNodes": ["A"], "HardDelete": True}),
    ("POST", "/admin/databases/set-lock"): Case(body={"DatabaseNames": ["Shop"], "Mode": "Unlock"}),
    ("POST", "/admin/databases/restore"): Case({"name": "Shop"}, before=a_removed_copy),
    ("PUT", "/admin/databases/node"): Case({"node": "B", "mentor": "A"}),
    ("POST", "/admin/databases/promote"): Case({"node": "B"}, before=a_copy_of_b),
    ("DELETE", "/databases/{database}/admin/connection-strings"): Case({"connectionString": "spare", "type": "Sql"},
                                                                       before=a_string),
    ("PUT", "/databases/{database}/admin/connection-strings"): Case(body=TARGET),
    ("PUT", "/databases/{database}/admin/etl"): Case(body=ETL | {"Name": "new", "SqlTables": OTHER_TABLE}),
    ("PUT", "/databases/{database}/admin/tasks"): Case(
        body=ETL | {"TaskType": "SqlEtl", "Name": "new", "SqlTables": OTHER_TABLE},
    ),
    ("POST", "/databases/{database}/admin/tasks/external-replication"): Case(before=a_raven_string),
    ("POST", "/databases/{database}/admin/etl"): Case({"configurationName": "orders", "transformationName": "t"}),
    ("POST", "/databases/{database}/etl/retry-batch"): Case({"name": "orders/t"}),
}  # fmt: skip
COMMANDS = [
    route for route in ROUTES if route.method not in ("GET", "HEAD") and route.path not in NO_COMMAND | OF_TWO_NODES
]


async def done(sent: Awaitable[HttpReply]) -> Any:
    reply = await sent
    assert reply.status in (200, 201), reply.text
    return reply.json


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A node of one, for all cases."""
    async with running(settings_in(tmp_path_factory.mktemp("repeats") / "data")) as one:
        yield one


async def undone(client: Client) -> None:
    """There is no database and no other node any more."""
    for tag in set(client.node.replica.record.nodes) - {"A"}:
        await done(client.delete(f"/admin/cluster/node?nodeTag={tag}&force=true"))
    names = (await client.get("/databases?namesOnly=true")).json["Databases"]
    if names:
        await done(client.delete("/admin/databases", {"DatabaseNames": names, "HardDelete": True}))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("route", COMMANDS, ids=lambda route: f"{route.method} {route.path}")
async def test_a_repeat_gets_the_first_result_though_all_it_names_is_gone(client: Client, route: Route) -> None:
    case = CASES.get(route.id, Case())
    await undone(client)
    await done(client.put("/admin/cluster/node", joining() | {"Tag": "B"}))
    await client.database()
    await done(client.put("/databases/Shop/admin/connection-strings", TARGET))
    task = (await done(client.put("/databases/Shop/admin/etl", ETL)))["TaskId"]
    made = await case.before(client) if case.before else {}
    url, body = route.url(task, **case.query | made), case.body or route.body
    id = uuid.uuid4().hex
    first = await client.send(route.method, url, body, {REQUEST_ID: id})
    assert first.status < 300, first.text
    index = client.node.raft.status.applied_index
    again = await client.send(route.method, url, body, {REQUEST_ID: id})
    assert result(again) == result(first), again.text
    await undone(client)
    for repeat in (
        await client.send(route.method, url, body, {REQUEST_ID: id}),
        await client.send(route.method, f"{url}&?{REQUEST_ID}={id}", body),
    ):
        assert result(repeat) == result(first), repeat.text
    assert set(client.node.replica.record.nodes) == {"A"}
    assert list(client.node.replica.record.databases) == []
    assert index < client.node.raft.status.applied_index
    other = await client.send(route.method, f"{url}&other=1", body, {REQUEST_ID: id})
    assert "was used for another request" in other.text


def result(reply: HttpReply) -> tuple[int, Any]:
    """What was done, without what is shown of the present."""
    told = {key: value for key, value in reply.json.items() if key not in AS_IT_IS_NOW} if reply.text else None
    return reply.status, told


def test_every_case_is_a_route() -> None:
    assert set(CASES) <= {route.id for route in COMMANDS}


@pytest.mark.parametrize("to", ["promote", "demote"])
async def test_a_repeat_of_a_change_of_kind_changes_no_kind(pair: tuple[Client, Client], to: str) -> None:
    back = {"promote": "demote", "demote": "promote"}[to]

    async def changed(how: str, id: str) -> Any:
        reply = await pair[0].post(f"/admin/cluster/{how}?nodeTag=B", **{REQUEST_ID: id})
        return reply.json if reply.status == 200 else None

    if to == "promote":
        await eventually("B is a watcher", lambda: changed(back, "before"))
    first = await eventually("B is changed", lambda: changed(to, "mine"))
    await eventually("B is what it was", lambda: changed(back, "after"))
    for node in pair:
        again = await done(node.post(f"/admin/cluster/{to}?nodeTag=B", **{REQUEST_ID: "mine"}))
        assert again["RaftCommandIndex"] == first["RaftCommandIndex"]
        assert node.node.replica.record.nodes["B"].kind == ("Watcher" if to == "promote" else "Member")
        [peer] = [peer for peer in node.node.raft.status.peers if peer.tag == "B"]
        assert peer.voter is (to == "demote")


async def test_a_repeated_removal_does_not_remove_the_node_that_has_joined_since(
    pair: tuple[Client, Client],
) -> None:
    a, b = pair
    watcher = joining() | {"Tag": "C"}
    path, id = "/admin/cluster/node?nodeTag=C&force=true", {REQUEST_ID: "mine"}
    await done(a.put("/admin/cluster/node", watcher))
    first = await done(b.delete(path, **id))
    await done(a.put("/admin/cluster/node", joining() | {"Tag": "C"}))
    for node in pair:
        assert (await done(node.delete(path, **id)))["RaftCommandIndex"] == first["RaftCommandIndex"]
        assert "C" in node.node.replica.record.nodes
    # A leader that is asked by a node which has not heard of the first one leaves Raft's membership alone, too.
    command = a.node.replica._encoded(RemoveNode(tag="C"), "mine")
    assert a.node.replica.refuses(command) == "a request of this id took effect already"
    assert "C" in {peer.tag for peer in a.node.raft.status.peers}


async def test_a_node_that_may_lag_asks_the_leader_before_it_refuses_a_repeat(
    pair: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, follower = pair
    await leader.database()
    await done(leader.put("/databases/Shop/admin/connection-strings", TARGET))
    path, id = "/databases/Shop/admin/connection-strings?connectionString=target", {REQUEST_ID: "mine"}
    first = await done(leader.delete(path, **id))
    raft, replica = follower.node.raft, follower.node.replica
    barrier, first_result = raft.barrier, replica.first_result

    async def heard(*, timeout_ms: int | None = None) -> int:
        monkeypatch.setattr(replica, "first_result", first_result)
        return await barrier(timeout_ms=timeout_ms)

    monkeypatch.setattr(replica, "first_result", lambda *_: None)  # as if the log had not come so far here
    monkeypatch.setattr(raft, "barrier", heard)
    assert (await done(follower.delete(path, **id)))["RaftCommandIndex"] == first["RaftCommandIndex"]
    monkeypatch.setattr(replica, "first_result", lambda *_: None)
    refused = await follower.delete(path, **{REQUEST_ID: "another"})
    assert (refused.status, "has no connection string 'target'" in refused.message) == (404, True)
