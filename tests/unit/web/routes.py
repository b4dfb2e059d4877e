"""Every route with what it takes, for tests that attack all of them. A route that is missing here fails a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

GOOD = {
    "database": "Shop", "node": "A", "flag": "true", "integer": "1", "optional": "1", "span": "00:00:01",
    "task": "{task}", "name": "orders", "text": "x",
}  # fmt: skip
"""A value of each kind of query value. `{task}` becomes the id of the one task."""

_LONG = "x" * 10_000
_INTEGERS = ("x", "-1", "1e9", "9" * 30, "１")
BAD: Mapping[str, tuple[str, ...]] = {
    "database": ("nope", "../etc", _LONG, "a\x00b", "a\r\nX: y", "\udc80"),
    "node": ("Z", "../A", _LONG, "é", "\r\n"),
    "flag": ("perhaps", "2", _LONG),
    "integer": ("", *_INTEGERS),
    "optional": _INTEGERS,
    "span": ("soon", "-1", "1:99", "9" * 30),
    "task": ("999999", *_INTEGERS),
    "name": ("nope", "../etc", _LONG, "a\x00b"),
    "text": (),
}
"""Values that each kind of query value must refuse."""


@dataclass(frozen=True)
class Route:
    """A route: its query values by name, each of a kind in GOOD, and a body that fits. `free` are the fields of the
    body that may be anything, `texts` those that may be any text, and `names` those that are mere names, never a path,
    and may be left empty where that is in `blank`."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    free: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    extra: str = ""

    @property
    def id(self) -> tuple[str, str]:
        """How the router names it."""
        return self.method, self.path

    def url(self, task: int, *, database: str = "Shop", given: str | None = None, **query: str) -> str:
        """The path with good values, but for those given."""
        values = {name: GOOD[kind].replace("{task}", str(task)) for name, kind in self.query.items()} | query
        path = self.path.replace("{database}", quote(database, safe="", errors="surrogateescape"))
        path = path.replace("{kind}", "sql")
        path = path.replace("{task}", quote(str(task) if given is None else given, safe=""))
        return f"{path}?{urlencode(values, errors='surrogateescape')}&{self.extra}"


DB = "/databases/{database}"
_CONNECTION = {
    "Type": "Sql", "Name": "new", "FactoryName": "Microsoft.Data.Sqlite", "ConnectionString": "Data Source=/nowhere/x"
}  # fmt: skip
_ETL = {
    "EtlType": "Sql",
    "Name": "new",
    "ConnectionStringName": "target",
    "Disabled": True,
    "MentorNode": "A",
    "PinToMentorNode": False,
    "Requires": ["ssd"],
    "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
    "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)})"}],
}
_TASK = {"TaskType": "SqlEtl"} | {key: value for key, value in _ETL.items() if key != "EtlType"}
_WATCHER = {"Name": "replication", "Disabled": True, "ConnectionStringName": "other"}
_PLACE = {"Disabled": False, "FolderPath": "/nowhere"}
_BACKUP = {
    "Name": "backup", "Disabled": True, "FullBackupFrequency": "0 2 * * *", "LocalSettings": _PLACE,
    "RetentionPolicy": {"Disabled": True}, "BackupEncryptionSettings": {"EncryptionMode": "None"},
}  # fmt: skip
_SUPPOSED: dict[str, Any] = {"Lost": [], "Added": [], "Drained": [], "Undrained": [], "Weights": {}, "Labels": {}}
_NAMES = {"DatabaseNames": ["Shop"]}
_INDEX = {"Indexes": [{"Name": "i", "Maps": ["from o in docs.Orders select new { o.Company }"]}]}
_JOINING = {
    "Tag": "B", "Url": "http://127.0.0.1:1", "ClusterAddress": "127.0.0.1:2", "NodeId": "f" * 32, "Watcher": True
}  # fmt: skip
_PAGE = {"start": "optional", "pageSize": "optional"}
_PLACED = {"nodeTag": "node"}

ROUTES = (
    Route("GET", "/cluster/node-info"),
    Route("GET", "/cluster/silence"),
    Route("PUT", "/admin/cluster/node", body=_JOINING, blank=("NodeId",)),
    Route("DELETE", "/admin/cluster/node", {**_PLACED, "force": "flag"}),
    Route("POST", "/admin/cluster/promote", _PLACED),
    Route("POST", "/admin/cluster/demote", _PLACED),
    Route("POST", "/admin/cluster/drain", {**_PLACED, "value": "flag"}),
    Route("POST", "/admin/cluster/undrain", _PLACED),
    Route("POST", "/admin/cluster/node/traits", {**_PLACED, "weight": "integer"}),
    Route("POST", "/admin/cluster/node/flags", {**_PLACED, "flags": "text"}),
    Route("POST", "/admin/cluster/reelect", _PLACED),
    Route("GET", "/admin/cluster/snapshot", {"local": "flag"}),
    Route("GET", "/rachis/waitfor", {"index": "integer", "timeout": "span"}),
    Route("GET", "/admin/cluster/observer/decisions", {"take": "optional", "database": "text"}),
    Route("POST", "/admin/cluster/observer/suspend", {"value": "flag"}),
    Route("GET", "/admin/cluster/maintenance-stats"),
    Route("GET", "/license/status"),
    Route("POST", "/admin/license/features", {"highlyAvailableTasks": "flag", "dynamicNodesDistribution": "flag"}),
    Route("POST", "/cluster/what-if", body={**_SUPPOSED, "Databases": ["Shop"]}),
    Route("PUT", "/admin/databases", {"replicationFactor": "optional"}, {
        "DatabaseName": "New", "Topology": {"Members": ["A"]}, "Settings": {}, "Disabled": False, "Encrypted": False,
    }),
    Route("GET", "/admin/databases", {"name": "database"}),
    Route("DELETE", "/admin/databases", body={
        **_NAMES, "HardDelete": True, "FromNodes": ["A"], "TimeToWaitForConfirmation": "00:00:01",
    }),
    Route("POST", "/admin/databases/enable", body=_NAMES),
    Route("POST", "/admin/databases/disable", body=_NAMES),
    Route("POST", "/admin/databases/set-lock", body={**_NAMES, "Mode": "Unlock"}),
    Route("GET", "/admin/databases/removed"),
    Route("POST", "/admin/databases/restore", {"folder": "name", "name": "text"}),
    Route("GET", "/databases", {**_PAGE, "namesOnly": "flag"}),
    Route("PUT", "/admin/databases/node", {"name": "database", "node": "node", "mentor": "text"}),
    Route("POST", "/admin/databases/promote", {"name": "database", "node": "node"}),
    Route("POST", "/admin/databases/reorder", {"name": "database"}, {"MembersOrder": ["A"], "Fixed": False}),
    Route("POST", "/admin/databases/dynamic-node-distribution", {"name": "database", "enable": "flag"}),
    Route("GET", "/topology", {"name": "database"}),
    Route("GET", "/cluster/topology"),
    Route("GET", f"{DB}/configuration/client"),
    Route("PUT", f"{DB}/admin/connection-strings", body=_CONNECTION, texts=("ConnectionString",), names=("Name",)),
    Route("GET", f"{DB}/admin/connection-strings", {"connectionStringName": "text", "type": "text"}),
    Route("DELETE", f"{DB}/admin/connection-strings", {"connectionString": "text", "type": "text"}),
    Route("GET", f"{DB}/docs", {**_PAGE, "metadataOnly": "flag"}),
    Route("POST", f"{DB}/docs", {"metadataOnly": "flag"}, {"Ids": ["orders/1"]}, texts=("Ids",)),
    Route("PUT", f"{DB}/docs", {"id": "text"}, {"Company": "x"}, free=("Company",)),
    Route("DELETE", f"{DB}/docs", {"id": "text"}),
    Route("HEAD", f"{DB}/docs", {"id": "text"}),
    Route("GET", f"{DB}/stats"),
    Route("GET", f"{DB}/collections/stats"),
    Route("POST", f"{DB}/bulk_docs", body={
        "Commands": [{"Type": "PUT", "Id": "x", "ChangeVector": None, "Document": {}}], "TransactionMode": "SingleNode",
    }),
    Route("POST", f"{DB}/etl/fence", body={
        "Source": "cluster/shop", "Task": 1, "Epoch": 2**62, "Sequence": 2**62, "Progress": {},
    }, texts=("Source",), free=("Progress",)),
    Route("POST", f"{DB}/bulk_insert", body={"Id": "x", "Type": "PUT", "Document": {}}, texts=("Id",)),
    Route("GET", f"{DB}/operations/next-operation-id"),
    Route("PATCH", f"{DB}/json-patch", {"id": "text"}, {"Operations": [{"op": "add", "path": "/x", "value": 1}]}),
    Route("POST", f"{DB}/multi_get", body={"Requests": [{"Url": "/databases/Shop/docs", "Query": "?id=orders/1"}]}),
    Route("GET", f"{DB}/hilo/next", {"tag": "text", "lastBatchSize": "optional", "lastMax": "optional"}),
    Route("PUT", f"{DB}/hilo/return", {"tag": "text", "end": "integer", "last": "integer"}),
    Route("POST", f"{DB}/identity/next", {"name": "text"}),
    Route("POST", f"{DB}/identity/seed", {"name": "text", "value": "integer", "force": "flag"}),
    Route("GET", f"{DB}/debug/identities"),
    Route("GET", f"{DB}/operations/state", {"id": "integer"}),
    Route("POST", f"{DB}/operations/kill", {"id": "integer"}),
    Route("GET", "/operations"),
    Route("GET", "/operations/state", {"id": "integer"}),
    Route("POST", "/operations/kill", {"id": "integer"}),
    Route("POST", f"{DB}/admin/periodic-backup", body=_BACKUP, names=("Name",), blank=("Name",)),
    Route("POST", f"{DB}/admin/backup/database", {"taskId": "task", "isFullBackup": "flag"}),
    Route("POST", "/admin/backup-task/delay", {"taskId": "integer", "duration": "span"}, extra="database=Shop"),
    Route("GET", "/periodic-backup/status", {"taskId": "task", "name": "database"}),
    Route("POST", "/admin/restore/points", body=_PLACE, extra="type=Local"),
    Route("POST", "/admin/restore/database", body={"DatabaseName": "Shop", "Settings": {"LocalSettings": _PLACE}}),
    Route("PUT", f"{DB}/admin/indexes", body=_INDEX),
    Route("PUT", f"{DB}/indexes", body=_INDEX),
    Route("GET", f"{DB}/indexes", {"name": "text"}),
    Route("DELETE", f"{DB}/indexes", {"name": "text"}),
    Route("PUT", f"{DB}/admin/etl", body=_ETL, names=("Name", "Requires"), blank=("Name", "MentorNode")),
    Route("POST", f"{DB}/admin/etl/{{kind}}/test", body={
        "DocumentId": "orders/1", "Configuration": _ETL, "Connection": None, "IsDelete": False,
        "PerformRolledBackTransaction": False,
    }),
    Route("GET", f"{DB}/etl/progress"),
    Route("POST", f"{DB}/admin/tasks/external-replication", body={"Watcher": _WATCHER}),
    Route("PUT", f"{DB}/admin/tasks", body=_TASK, names=("Name", "Requires"), blank=("Name", "MentorNode")),
    Route("POST", f"{DB}/admin/tasks/reset", {"key": "task"}),
    Route("POST", f"{DB}/admin/etl", {"configurationName": "name", "transformationName": "text"}),
    Route("GET", f"{DB}/tasks"),
    Route("GET", f"{DB}/task", {"key": "task"}, extra="type=SqlEtl"),
    Route("GET", f"{DB}/tasks/{{task}}/why"),
    Route("GET", f"{DB}/tasks/{{task}}/failed"),
    Route("POST", f"{DB}/admin/tasks/retry", {"key": "task"}),
    Route("POST", f"{DB}/etl/retry-batch", {"name": "name"}),
    Route("POST", f"{DB}/tasks/what-if", body=_SUPPOSED),
    Route("POST", f"{DB}/admin/tasks/state", {"key": "task", "disable": "flag"}),
    Route("POST", f"{DB}/admin/tasks/pin", {"key": "task", "node": "node", "pinned": "flag"}),
    Route("DELETE", f"{DB}/admin/tasks", {"id": "task"}, extra="type=SqlEtl"),
    Route("GET", "/replication/{database}/accepted", {"source": "text"}),
    Route("POST", "/replication/{database}/documents", body=b"\x00\x80"),
    Route("GET", "/external-replication/{database}/accepted", {"source": "text"}),
    Route("POST", "/external-replication/{database}/documents", {"destination": "text"}, body=b"\x00\x80"),
    Route("GET", "/status", {"database": "text"}),
    Route("GET", "/status/runs", {"after": "text", "take": "optional", "key": "text"}),
    Route("GET", "/health/live"),
    Route("GET", "/health/ready"),
    Route("GET", "/setup/alive"),
    Route("GET", "/build/version"),
)  # fmt: skip
