"""What clients see of every route: names, what is left out, kinds of values, as `answers.json` has them.

A change that is meant is recorded with RAFTNODE_TEST_RECORD=1, and stands in CHANGELOG.md.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from raftnode.web import app
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_two_nodes import eventually

RECORDED = Path(__file__).with_name("answers.json")
RECORDING = "RAFTNODE_TEST_RECORD"
RANDOM = ("ServerId", "NodeId", "TopologyId", "ClusterId", "WireId", "DatabaseId", "DatabaseTopologyIdBase64")
"""Fields whose text is another each time, mostly with a digit in it."""
BY_ID = ("LastEtags",)
NOT_JSON = {
    ("GET", "/admin/cluster/snapshot"),
    ("POST", "/replication/{database}/documents"),
    ("POST", "/external-replication/{database}/documents"),
}

DB = "/databases/Shop"
ETL: dict[str, Any] = {
    "EtlType": "Sql", "Name": "orders", "ConnectionStringName": "target",
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company.trim()})"}],
}  # fmt: skip
INDEXES = {"Indexes": [{"Name": "i", "Maps": ["from o in docs.Orders select new { o.Company }"], "More": [1, None]}]}
ORDERS = {"@metadata": {"@collection": "Orders"}}

BEFORE: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "/admin/databases?name=Shop", {"Settings": {"Some.Password": "y"}}),
    ("PUT", f"{DB}/docs?id=orders/1", ORDERS | {"Company": "x"}),
    ("PUT", f"{DB}/docs?id=orders/2", ORDERS),
    ("PUT", f"{DB}/docs?id=orders/3", ORDERS | {"Company": "z"}),
    ("PUT", f"{DB}/admin/indexes", INDEXES),
    ("PUT", f"{DB}/indexes", INDEXES),
    ("PUT", f"{DB}/admin/connection-strings", {
        "Type": "Raven", "Name": "other", "Database": "x", "TopologyDiscoveryUrls": ["http://a"],
    }),
    ("PUT", f"{DB}/admin/etl", ETL),
    ("PUT", f"{DB}/admin/etl", ETL | {
        "Name": "pinned", "MentorNode": "A", "PinToMentorNode": True, "Requires": ["ssd"],
        "SqlTables": [{"TableName": "Others", "DocumentIdColumn": "Id"}],
        "Transforms": [{"Name": "t", "Collections": ["Others"], "Script": "loadToOthers({})"}],
    }),
)  # fmt: skip
BACKUP = {
    "Name": "backup",
    "Disabled": True,
    "FullBackupFrequency": "0 2 * * *",
    "LocalSettings": {"FolderPath": "/nowhere"},
    "S3Settings": {"Disabled": True, "AwsSecretKey": "secret"},
}
THEN: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/status", None),
    ("GET", "/status?database=nope", None),
    ("GET", "/status/runs", None),
    ("GET", "/status/runs?take=1", None),
    ("GET", "/status/runs?key=shop/SqlEtl/orders", None),
    ("GET", "/health/live", None),
    ("GET", "/health/ready", None),
    ("GET", "/setup/alive", None),
    ("GET", "/build/version", None),
    ("GET", "/cluster/node-info", None),
    ("GET", "/cluster/silence", None),
    ("GET", "/cluster/topology", None),
    ("GET", "/topology?name=Shop", None),
    ("GET", "/rachis/waitfor?index=1", None),
    ("GET", "/license/status", None),
    ("POST", "/admin/license/features?highlyAvailableTasks=true&dynamicNodesDistribution=true", None),
    ("POST", "/cluster/what-if", {"Lost": ["A"]}),
    ("POST", "/cluster/what-if", {"Added": [{"Tag": "F", "Weight": 100, "Labels": ["ssd"]}], "Databases": ["Shop"]}),
    ("POST", f"{DB}/tasks/what-if", {"Drained": ["A"], "Labels": {"A": ["ssd"]}}),
    ("GET", "/databases", None),
    ("GET", "/databases?namesOnly=true", None),
    ("GET", "/admin/databases?name=Shop", None),
    ("GET", f"{DB}/configuration/client", None),
    ("GET", f"{DB}/admin/connection-strings", None),
    ("GET", f"{DB}/admin/connection-strings?connectionStringName=target&type=Sql", None),
    ("GET", f"{DB}/docs?id=orders/1", None),
    ("GET", f"{DB}/docs?pageSize=1", None),
    ("POST", f"{DB}/docs", {"Ids": ["orders/1", "nope"]}),
    ("HEAD", f"{DB}/docs?id=orders/1", None),
    ("DELETE", f"{DB}/docs?id=orders/3", None),
    ("GET", f"{DB}/stats", None),
    ("GET", f"{DB}/collections/stats", None),
    ("POST", f"{DB}/etl/fence", {"Source": "c/x", "Task": 1, "Epoch": 5, "Sequence": 1, "Progress": {"Generation": 1}}),
    ("POST", f"{DB}/etl/fence", {"Source": "c/x", "Task": 1, "Epoch": 4, "Sequence": 1}),
    ("POST", f"{DB}/bulk_docs", {"Commands": [
        {"Type": "PUT", "Id": "x", "ChangeVector": None, "Document": {}},
        {"Type": "DELETE", "Id": "x", "ChangeVector": None},
    ]}),
    ("POST", f"{DB}/bulk_insert", {"Id": "y", "Type": "PUT", "Document": {}}),
    ("GET", f"{DB}/operations/next-operation-id", None),
    ("PATCH", f"{DB}/json-patch?id=orders/2", {"Operations": [{"op": "add", "path": "/n", "value": 1}]}),
    ("POST", f"{DB}/bulk_docs", {"Commands": [
        {"Type": "JsonPatch", "Id": "orders/2", "JsonPatch": {"Operations": [{"op": "remove", "path": "/n"}]},
         "ReturnDocument": True},
    ]}),
    ("POST", f"{DB}/multi_get", {"Requests": [
        {"Url": DB + "/docs", "Query": "?&id=orders%2F1", "Method": None, "Headers": {}, "Content": None},
        {"Url": DB + "/docs", "Query": "?&id=none", "Method": "GET"},
    ]}),
    ("GET", f"{DB}/hilo/next?tag=users&lastBatchSize=0&lastRangeAt=&identityPartsSeparator=/&lastMax=0", None),
    ("PUT", f"{DB}/hilo/return?tag=users&end=32&last=1", None),
    ("POST", f"{DB}/identity/next?name=users|", None),
    ("POST", f"{DB}/identity/seed?name=users|&value=5", None),
    ("GET", f"{DB}/debug/identities", None),
    ("GET", "/replication/Shop/accepted?source=x", None),
    ("GET", "/external-replication/Shop/accepted?source=x", None),
    ("POST", f"{DB}/admin/tasks/external-replication", {
        "Watcher": {"ConnectionStringName": "other", "Disabled": True, "DelayReplicationFor": "00:10:00"},
    }),
    ("GET", f"{DB}/task?taskName=External%20Replication%20to%20other&type=Replication", None),
    ("DELETE", f"{DB}/admin/tasks?taskName=External%20Replication%20to%20other", None),
    ("POST", f"{DB}/admin/periodic-backup", BACKUP),
    ("GET", f"{DB}/task?taskName=backup&type=Backup", None),
    ("POST", f"{DB}/admin/backup/database?taskId=999", None),
    ("POST", "/admin/backup-task/delay?taskId=999&duration=01:00:00&database=Shop", None),
    ("GET", "/periodic-backup/status?name=Shop&taskId=999", None),
    ("DELETE", f"{DB}/admin/tasks?taskName=backup", None),
    ("POST", "/admin/restore/points?type=Local", {"FolderPath": "/nowhere"}),
    ("POST", "/admin/restore/database", {"DatabaseName": "Shop", "BackupLocation": "/nowhere"}),
    ("GET", "/operations", None),
    ("GET", "/operations/state?id=1", None),
    ("POST", "/operations/kill?id=1", None),
    ("GET", f"{DB}/operations/state?id=1", None),
    ("POST", f"{DB}/operations/kill?id=1", None),
    ("GET", f"{DB}/indexes", None),
    ("GET", f"{DB}/indexes?name=i", None),
    ("GET", f"{DB}/tasks", None),
    ("GET", f"{DB}/task?taskName=orders", None),
    ("GET", f"{DB}/task?taskName=pinned&type=SqlEtl", None),
    ("GET", f"{DB}/task?taskName=nope", None),
    ("GET", f"{DB}/etl/progress", None),
    ("POST", f"{DB}/admin/etl/sql/test", {"DocumentId": "orders/1", "Configuration": ETL}),
    ("POST", f"{DB}/admin/etl/raven/test", {"DocumentId": "orders/1", "Configuration": {
        "ConnectionStringName": "other", "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": ""}],
    }}),
    ("GET", f"{DB}/tasks/orders/why", None),
    ("GET", f"{DB}/tasks/pinned/why", None),
    ("GET", f"{DB}/tasks/orders/failed", None),
    ("GET", f"{DB}/tasks/pinned/failed", None),
    ("POST", f"{DB}/admin/tasks/retry?taskName=orders", None),
    ("POST", f"{DB}/etl/retry-batch?name=orders/t", None),
    ("POST", f"{DB}/admin/etl?configurationName=orders", None),
    ("POST", f"{DB}/admin/tasks/reset?taskName=orders", None),
    ("PUT", f"{DB}/admin/tasks?id=999", {"TaskType": "SqlEtl"} | ETL),
    ("POST", f"{DB}/admin/tasks/pin?taskName=orders&node=A", None),
    ("POST", f"{DB}/admin/tasks/state?taskName=pinned&disable=true", None),
    ("GET", f"{DB}/task?taskName=pinned", None),
    ("GET", f"{DB}/tasks/pinned/why", None),
    ("GET", f"{DB}/tasks/pinned/failed", None),
    ("POST", "/admin/cluster/node/traits?nodeTag=A&weight=2&labels=ssd,eu", None),
    ("POST", "/admin/cluster/node/flags?nodeTag=A&flags=OutOfCpuCredits", None),
    ("POST", "/admin/cluster/node/flags?nodeTag=A&flags=", None),
    ("POST", "/admin/cluster/drain?nodeTag=A", None),
    ("POST", "/admin/cluster/undrain?nodeTag=A", None),
    ("POST", "/admin/cluster/promote?nodeTag=A", None),
    ("POST", "/admin/cluster/demote?nodeTag=A", None),
    ("POST", "/admin/cluster/reelect", None),
    ("GET", "/admin/cluster/maintenance-stats", None),
    ("GET", "/admin/cluster/observer/decisions", None),
    ("POST", "/admin/cluster/observer/suspend?value=true", None),
    ("PUT", "/admin/databases/node?name=Shop", None),
    ("POST", "/admin/databases/promote?name=Shop&node=A", None),
    ("POST", "/admin/databases/reorder?name=Shop", {"MembersOrder": ["A"], "Fixed": True}),
    ("POST", "/admin/databases/dynamic-node-distribution?name=Shop&enable=false", None),
    ("POST", "/admin/databases/set-lock", {"DatabaseNames": ["Shop"], "Mode": "Unlock"}),
    ("DELETE", f"{DB}/indexes?name=i", None),
    ("DELETE", f"{DB}/admin/tasks?taskName=pinned", None),
    ("DELETE", f"{DB}/admin/tasks?taskName=orders", None),
    ("DELETE", f"{DB}/admin/connection-strings?connectionString=other&type=Raven", None),
    ("POST", "/admin/databases/disable", {"DatabaseNames": ["Shop", "nope"]}),
    ("GET", "/status", None),
    ("POST", "/admin/databases/enable", {"DatabaseNames": ["Shop"]}),
    ("DELETE", "/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": False}),
    ("GET", "/admin/databases/removed", None),
)  # fmt: skip


@pytest.fixture(autouse=True)
def recorded() -> Any:
    """The answers by scene."""
    return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


class Scene:
    """Sends requests and keeps the shapes of the answers, to compare them all at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: dict[str, Any] = {}
        self.seen: set[tuple[str, str]] = set()

    async def send(self, client: Client, method: str, path: str, body: Any) -> Any:
        """One request; its answer as JSON."""
        reply = await client.send(method, path, body)
        shown = reply.json if reply.text else None
        key, times = re.sub(r"folder=.*", "folder=", f"{method} {path}"), 2
        while key in self.answers:
            key, times = f"{method} {path} (time {times})", times + 1
        self.answers[key] = [reply.status, shape(shown)]
        self.seen.add((method, urlsplit(path).path))
        return shown

    def compare(self, recorded: dict[str, Any]) -> None:
        """All answers are as they were recorded."""
        if os.environ.get(RECORDING):
            lines = [
                f"{json.dumps(name)}: {{\n"
                + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items())
                + "\n}"
                for name, answers in sorted((recorded | {self.name: self.answers}).items())
            ]
            RECORDED.write_text("{" + ",\n".join(lines) + "}\n")
            return
        for key, expected in recorded[self.name].items():
            assert list(differences(self.answers[key], expected)) == [], key
        assert list(self.answers) == list(recorded[self.name])


def shape(value: Any, name: str = "") -> Any:
    """The value, with the type alone of what differs from run to run: numbers, and texts
    with a digit in them."""
    match value:
        case dict():
            return {"<id>" if name in BY_ID else key: shape(member, key) for key, member in value.items()}
        case list() if name == "Kinds":  # each new kind would change them
            return [f"<{type(value).__name__}>"]
        case list() if name == "Ranking":  # by scores, and an update's key has a random part
            return [shape(item) for item in sorted(value, key=lambda item: str(item["Node"]))]
        case list():
            return [shape(item, name) for item in value]
        case None | bool():
            return value
        case str() if name not in RANDOM and not any(letter.isdigit() for letter in value):
            return value
    return f"<{type(value).__name__}>"


def differences(seen: Any, expected: Any, at: str = "") -> Iterator[str]:
    """Where two shapes differ."""
    match seen, expected:
        case dict(), dict():
            for name in sorted(seen.keys() | expected.keys()):
                yield from differences(seen.get(name, "(left out)"), expected.get(name, "(left out)"), f"{at}.{name}")
        case list(), list() if len(seen) == len(expected):
            for place, (one, other) in enumerate(zip(seen, expected, strict=True)):
                yield from differences(one, other, f"{at}[{place}]")
        case _ if seen != expected:
            yield f"{at}: {seen!r}, recorded: {expected!r}"


async def test_every_route_answers_as_before(tmp_path: Path, recorded: dict[str, Any]) -> None:
    scene = Scene("one node")
    async with running(settings_in(tmp_path / "data")) as client:
        for method, path, body in BEFORE:
            if path.endswith("/admin/etl") and body is ETL:
                await scene.send(client, "PUT", f"{DB}/admin/connection-strings", _target(tmp_path))
            await scene.send(client, method, path, body)
        await eventually("the task has passed a document over", lambda: _told(client))
        for method, path, body in THEN:
            await eventually("no task is on its way", lambda: _settled(client))
            await scene.send(client, method, path, body)
        [removed] = (await client.get("/admin/databases/removed")).json["Removed"]
        await scene.send(client, "POST", f"/admin/databases/restore?folder={removed['Folder']}", None)
        await scene.send(client, "DELETE", "/admin/databases", {"DatabaseNames": ["Shop"], "HardDelete": True})
        await scene.send(client, "PUT", "/admin/cluster/node", {"Url": "http://127.0.0.1:1"})
        await scene.send(client, "DELETE", "/admin/cluster/node?nodeTag=A", None)
    missing = {
        (route.method, route.path) for area in app.AREAS for route in area.routes() if not _met(scene, route)
    } - NOT_JSON
    assert not missing, "send them here, so that their answers are looked at"
    scene.compare(recorded)


def _met(scene: Scene, route: Any) -> bool:
    path = route.path.replace("{database}", "Shop")
    return (route.method, path) in scene.seen or (
        route.method,
        path.replace("{task}", "orders").replace("{kind}", "sql"),
    ) in scene.seen


async def test_nodes_of_a_cluster_answer_as_before(tmp_path: Path, recorded: dict[str, Any]) -> None:
    scene = Scene("two nodes")
    async with (
        running(settings_in(tmp_path / "a")) as a,
        running(settings_in(tmp_path / "b", node__tag="B"), join=a.url) as b,
    ):
        await eventually("the node that joined is a voter", lambda: _votes(a, "B"))
        await scene.send(a, "PUT", "/admin/databases?name=Shop", {"Topology": {"Members": ["A"]}})
        await eventually("the other node has reported", lambda: _reported(a))
        for path in ("/cluster/topology", "/cluster/silence", "/status", f"{DB}/docs?id=x"):
            await scene.send(b, "GET", path, None)
        await scene.send(b, "GET", "/admin/cluster/maintenance-stats", None)
        # Suspended, or it promotes the node at a moment of its own.
        await scene.send(b, "POST", "/admin/cluster/observer/suspend?value=true", None)
        await scene.send(b, "PUT", "/admin/databases/node?name=Shop", None)
        await eventually("the node is being filled", lambda: _settled(b))
        for path in ("/status", f"{DB}/tasks", f"{DB}/tasks/B/why?type=Update", f"{DB}/tasks/B/failed?type=Update"):
            await scene.send(b, "GET", path, None)
        await scene.send(b, "POST", "/admin/cluster/drain?nodeTag=B", None)
        again = {"Tag": "B", "Url": b.url, "NodeId": b.node.http.node_id}
        again |= {"ClusterAddress": b.node.replica.record.nodes["B"].cluster_address}
        await scene.send(a, "PUT", "/admin/cluster/node", again)
        await scene.send(a, "POST", "/admin/cluster/demote?nodeTag=B", None)
        await scene.send(a, "DELETE", "/admin/cluster/node?nodeTag=B&force=true", None)
    scene.compare(recorded)


async def _reported(a: Client) -> bool:
    told = (await a.get("/admin/cluster/maintenance-stats")).json
    return bool(told.get("B") and told["B"]["HasLease"] and told["B"]["Report"])


async def _votes(node: Client, tag: str) -> bool:
    return tag in (await node.get("/cluster/topology")).json["Topology"]["Members"]


async def _settled(client: Client) -> bool:
    shown = (await client.get("/status")).json["Databases"].values()
    if any(database["Copy"] and database["Copy"]["Status"] == "Loading" for database in shown):
        return False
    tasks = [task for database in shown for task in database["Tasks"]]
    return all(t["State"] == "Running" or (t["State"] == "Disabled" and t["Holder"] is None) for t in tasks)


async def _told(client: Client) -> bool:
    """The failed document is in the record, both tasks run and nothing is behind."""
    tasks = (await client.get("/status")).json["Databases"]["Shop"]["Tasks"]
    [orders, pinned] = tasks
    progress = orders["Progress"] or {}
    told = progress.get("Failures") and progress["Processed"] == 3 and pinned["Progress"]["At"]
    return bool(told) and all(task["State"] == "Running" and task["Behind"] == 0 for task in (orders, pinned))


def _target(tmp_path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(tmp_path / "0.sqlite")) as target:
        target.executescript("CREATE TABLE Orders (Id, Company); CREATE TABLE Others (Id)")
    return {
        "Type": "Sql", "Name": "target", "FactoryName": "Microsoft.Data.Sqlite",
        "ConnectionString": f"Data Source={tmp_path}/0.sqlite",
    }  # fmt: skip
