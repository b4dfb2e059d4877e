"""Trying a script of an ETL on one document: what it would make, and that nothing is stored."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tasks.conftest import until
from tests.unit.web.client import Client, HttpReply
from tests.unit.web.conftest import running, settings_in

DB = "/databases/Shop"
ORDER = {"Company": "it's", "Lines": [{"N": 1}, {"N": 12345678901234567890}], "@metadata": {"@collection": "Orders"}}
SCRIPT = """
output("seen"); output({n: this.Lines.length});
loadToOrders({Company: this.Company, Raw: this.Lines[0], Paid: false, Note: null});
for (const line of this.Lines) loadToLines({N: line.N});
"""


def sql(script: str = SCRIPT, **more: Any) -> dict[str, Any]:
    return {
        "Name": "t",
        "ConnectionStringName": "target",
        "SqlTables": [
            {"TableName": "Orders", "DocumentIdColumn": "Id"},
            {"TableName": "Lines", "DocumentIdColumn": "OrderId", "InsertOnlyMode": True},
        ],
        "Transforms": [{"Name": "a", "Collections": ["Orders"], "Script": script}],
        **more,
    }


def raven(script: str, **more: Any) -> dict[str, Any]:
    transform = {"Name": "a", "Collections": ["Orders"], "Script": script, **more}
    return {"Name": "t", "ConnectionStringName": "copy", "Transforms": [transform]}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Client]:
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as target:
        target.executescript(
            "CREATE TABLE Orders (Id, Company, Raw, Paid, Note); CREATE TABLE Lines (OrderId, N INTEGER)"
        )
    async with running(settings_in(tmp_path / "data")) as client:
        await client.put("/admin/databases?name=Shop", {})
        await client.put(f"{DB}/docs?id=orders/1", ORDER)
        await client.put(f"{DB}/docs?id=companies/1", {"Name": "c", "@metadata": {"@collection": "Companies"}})
        string = {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite"}
        string |= {"ConnectionString": f"Data Source={tmp_path / 't.sqlite'}"}
        await client.put(f"{DB}/admin/connection-strings", string)
        other = {"Name": "copy", "Type": "Raven", "Database": "Copy", "TopologyDiscoveryUrls": ["http://127.0.0.1:1"]}
        await client.put(f"{DB}/admin/connection-strings", other)
        yield client


async def tried(node: Client, kind: str, configuration: dict[str, Any], **more: Any) -> HttpReply:
    body = {"DocumentId": "orders/1", "Configuration": configuration} | more
    return await node.post(f"{DB}/admin/etl/{kind}/test", body)


def stored(tmp_path: Path) -> int:
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as target:
        [(count,)] = target.execute("SELECT (SELECT count(*) FROM Orders) + (SELECT count(*) FROM Lines)")
        return int(count)


def rows(tmp_path: Path) -> int:
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as target:
        tables = {name for (name,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"Orders", "Lines"}
    return stored(tmp_path)


async def test_a_script_of_an_sql_etl_shows_its_statements_and_stores_nothing(node: Client, tmp_path: Path) -> None:
    shown = (await tried(node, "sql", sql(), PerformRolledBackTransaction=True)).json
    statements = {table["TableName"]: [c["CommandText"] for c in table["Commands"]] for table in shown["Summary"]}
    assert statements == {
        "Orders": [
            """DELETE FROM "Orders" WHERE "Id" IN ('orders/1')""",
            """INSERT INTO "Orders" ("Id", "Company", "Raw", "Paid", "Note") """
            """VALUES ('orders/1', 'it''s', '{"N":1}', FALSE, NULL)""",
        ],
        "Lines": [
            """INSERT INTO "Lines" ("OrderId", "N") VALUES ('orders/1', 1)""",
            """INSERT INTO "Lines" ("OrderId", "N") VALUES ('orders/1', 12345678901234567890)""",
        ],
    }
    assert shown["DebugOutput"] == ["seen", '{"n":2}']
    assert shown["TransformationErrors"] == shown["SlowSqlWarnings"] == []
    [refused] = shown["LoadErrors"]
    assert refused["DocumentId"] == "orders/1"
    assert "Lines" in refused["Error"]
    assert rows(tmp_path) == 0
    assert (await node.get(f"{DB}/tasks")).json["OngoingTasks"] == []


async def test_what_the_target_takes_is_rolled_back(node: Client, tmp_path: Path) -> None:
    fine = sql("loadToOrders({Company: this.Company}); loadToLines({N: 1});")
    shown = (await tried(node, "sql", fine, PerformRolledBackTransaction=True)).json
    assert shown["LoadErrors"] == shown["TransformationErrors"] == []
    assert rows(tmp_path) == 0
    missing = sql("loadToOrders({Nope: 1}); loadToLines({N: 1});")
    shown = (await tried(node, "sql", missing, PerformRolledBackTransaction=True)).json
    assert "has no column 'Nope'" in shown["LoadErrors"][0]["Error"]
    assert (await tried(node, "sql", missing)).json["LoadErrors"] == []


async def test_a_target_that_is_not_there_is_not_made(node: Client, tmp_path: Path) -> None:
    file = tmp_path / "none.sqlite"
    given = {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite"}
    given |= {"ConnectionString": f"Data Source={file}"}
    shown = (await tried(node, "sql", sql(), Connection=given, PerformRolledBackTransaction=True)).json
    assert f"there is no file {file} on node A" in shown["LoadErrors"][0]["Error"]
    assert not file.exists()


async def test_a_script_that_loads_without_measure_is_told_so(node: Client) -> None:
    endless = sql("for (let i = 0; i < 300000; i++) loadToOrders({N: i}); loadToLines({N: 1});")
    [failure] = (await tried(node, "sql", endless)).json["TransformationErrors"]
    assert "it loads more than 100000 rows or documents; load fewer" in failure["Error"]
    large = sql("loadToOrders({N: new Array(600000).fill(0)}); loadToLines({N: 1});")
    [failure] = (await tried(node, "sql", large)).json["TransformationErrors"]
    assert "loads more than 500000 values for this document; load fewer" in failure["Error"]


async def test_a_deletion_and_a_script_that_throws(node: Client) -> None:
    shown = (await tried(node, "sql", sql(), IsDelete=True)).json
    assert [[c["CommandText"] for c in table["Commands"]] for table in shown["Summary"]] == [
        ["""DELETE FROM "Orders" WHERE "Id" IN ('orders/1')"""],
        [],
    ]
    script = "output('before');\nloadToOrders({X: this.Missing.Name}); loadToLines({N: 1});"
    shown = (await tried(node, "sql", sql(script))).json
    [failure] = shown["TransformationErrors"]
    assert failure["DocumentId"] == "orders/1"
    assert "script 'a', line 2: TypeError" in failure["Error"]
    assert (shown["Summary"], shown["DebugOutput"]) == ([], ["before"])
    other = (await tried(node, "sql", sql(), DocumentId="companies/1")).json
    assert "in the collection 'Companies'" in other["TransformationErrors"][0]["Error"]


async def test_a_script_of_a_ravendb_etl_shows_its_commands(node: Client) -> None:
    script = "const c = load('companies/1'); output(c.Name); loadToOrders({A: 1}); loadToPeople({B: c.Name});"
    shown = (await tried(node, "raven", raven(script))).json
    assert [(c["Type"], c["Id"], c.get("Document")) for c in shown["Commands"]] == [
        ("DELETE", "orders/1/people/", None),
        ("PUT", "orders/1", {"A": 1, "@metadata": {"@collection": "Orders"}}),
        ("PUT", "orders/1/people/", {"B": "c", "@metadata": {"@collection": "People"}}),
    ]
    assert (shown["DebugOutput"], shown["TransformationErrors"]) == (["c"], [])
    as_it_is = (await tried(node, "raven", raven("", DocumentIdPostfix="-x"))).json["Commands"]
    assert [(c["Type"], c["Id"]) for c in as_it_is] == [("PUT", "orders/1-x")]
    gone = (await tried(node, "raven", raven(script), IsDelete=True)).json["Commands"]
    assert sorted((c["Type"], c["Id"]) for c in gone) == [("DELETE", "orders/1"), ("DELETE", "orders/1/people/")]
    endless = (await tried(node, "raven", raven("while (true); loadToX({});"))).json
    assert "script 'a'" in endless["TransformationErrors"][0]["Error"]


async def test_a_connection_string_that_is_not_stored_is_used_and_stays_so(node: Client, tmp_path: Path) -> None:
    string = {"Name": "new", "Type": "Sql", "FactoryName": "System.Data.SQLite"}
    string |= {"ConnectionString": f"Data Source={tmp_path / 't.sqlite'}"}
    fine = sql("loadToOrders({Company: 1}); loadToLines({N: 1});", ConnectionStringName="new")
    shown = await tried(node, "sql", fine, Connection=string, PerformRolledBackTransaction=True)
    assert (shown.status, shown.json["LoadErrors"]) == (200, [])
    assert "new" not in (await node.get(f"{DB}/admin/connection-strings")).json["SqlConnectionStrings"]


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("sql", {"DocumentId": "orders/9"}, "there is no document 'orders/9'"),
        ("sql", {"Configuration": sql("loadToNowhere({})")}, "loads to 'Nowhere', which is not in SqlTables"),
        ("sql", {"Configuration": sql("loadToOrders({")}, "Transforms.Script"),
        ("raven", {"Configuration": raven("var x = 1;")}, "loads nothing"),
        ("sql", {"Configuration": sql(Transforms=[])}, "Transforms: has 0 entries"),
        ("sql", {"Connection": {"Name": "x", "Type": "Sql"}}, "ConnectionString: is missing"),
        ("carrier", {}, "The path has 'carrier', which is no type of ETL. Write one of: raven, sql."),
    ],
)
async def test_what_cannot_be_tried_is_named(node: Client, kind: str, body: dict[str, Any], says: str) -> None:
    given = {"DocumentId": "orders/1", "Configuration": sql()} | body
    reply = await node.post(f"{DB}/admin/etl/{kind}/test", given)
    assert reply.status >= 400
    assert says.lower() in reply.message.lower()


async def test_scripts_that_are_tried_and_never_end_keep_no_task_waiting(tmp_path: Path) -> None:
    limits = {"tasks__script_processes_max": "1", "tasks__script_time_ms_max": "4000"}
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as target:
        target.executescript("CREATE TABLE Orders (Id); CREATE TABLE Lines (OrderId)")
    async with running(settings_in(tmp_path / "data", **limits)) as client:
        await client.put("/admin/databases?name=Shop", {})
        await client.put(f"{DB}/docs?id=orders/1", ORDER)
        string = {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite"}
        await client.put(
            f"{DB}/admin/connection-strings", string | {"ConnectionString": f"Data Source={tmp_path / 't.sqlite'}"}
        )
        endless = sql("for (;;); loadToOrders({}); loadToLines({});")
        trials = [asyncio.create_task(tried(client, "sql", endless)) for _ in range(3)]
        await asyncio.sleep(0.5)
        task = sql("loadToOrders({}); loadToLines({});")
        assert (await client.put(f"{DB}/admin/etl", {"EtlType": "Sql", "TaskId": 0, **task})).status == 201
        await until(lambda: stored(tmp_path) == 2)
        assert not trials[-1].done()
        await asyncio.gather(*trials)
