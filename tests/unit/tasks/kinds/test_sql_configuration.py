"""The configuration of SQL ETL: what is accepted, and what is refused at the door."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raftnode.record.model import Database
from tasks.kinds import registry as kinds
from tasks.kinds.registry import ConfigurationError
from tasks.kinds.sql_etl.task import KIND
from tests.unit.tasks.conftest import SqlTarget, database


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "Name": "Orders to SQL",
        "ConnectionStringName": "Target",
        "EtlType": "Sql",
        "Transforms": [{"Name": "orders", "Collections": ["Orders"], "Script": "loadToOrders({A: this.A})"}],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    } | changes


def transform(**changes: Any) -> dict[str, Any]:
    return {"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({})"} | changes


@pytest.fixture
def record(sqlite_target: SqlTarget) -> Database:
    return database(sqlite_target)


def test_a_task_is_accepted_with_raven_s_fields(record: Database) -> None:
    definition = KIND.parse(configuration(MentorNode="B", PinToMentorNode=True, Disabled=True), record)
    assert (definition.name, definition.kind, definition.connection_string) == ("Orders to SQL", "SqlEtl", "target")
    assert (definition.mentor, definition.pinned, definition.disabled) == ("B", True, True)
    assert json.loads(definition.configuration)["Transforms"][0]["Script"] == "loadToOrders({A: this.A})"


def at_postgres() -> Database:
    text = "Host=db;Database=d;Username=u"
    connection = {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": text}
    return database(SqlTarget("postgres", connection))


@pytest.mark.parametrize(
    ("name", "column", "field"),
    [
        ("t" * 64, "Id", "SqlTables.TableName"),
        ("ф" * 32, "Id", "SqlTables.TableName"),
        ("s" * 64 + ".t", "Id", "SqlTables.TableName"),
        ("t", "ф" * 32, "SqlTables.DocumentIdColumn"),
        ("s" * 63 + "." + "t" * 63, "ф" * 31, None),
    ],
)
def test_a_name_that_postgresql_would_cut_is_refused(
    record: Database, name: str, column: str, field: str | None
) -> None:
    """By bytes. SQLite has no such limit."""
    tables = [{"TableName": name, "DocumentIdColumn": column}]
    given = configuration(SqlTables=tables, Transforms=[transform(Script=f"loadTo('{name}', {{}})")])
    assert KIND.parse(given, record)
    if field is None:
        assert KIND.parse(given, at_postgres())
        return
    with pytest.raises(
        ConfigurationError, match=r"' has 6\d bytes, and PostgreSQL cuts names at 63: use the"
    ) as refused:
        KIND.parse(given, at_postgres())
    assert refused.value.field == field


def test_an_empty_name_becomes_one_that_says_where_to(record: Database) -> None:
    assert KIND.parse(configuration(Name=" "), record).name == "SQL ETL to target"


def test_the_key_changes_with_name_and_target_and_not_with_a_script(record: Database) -> None:
    key = KIND.parse(configuration(), record).key
    assert KIND.parse(configuration(Transforms=[transform()]), record).key == key
    assert KIND.parse(configuration(Name="other"), record).key != key


def test_what_was_accepted_is_accepted_again_unchanged(record: Database) -> None:
    once = KIND.parse(configuration(), record)
    assert KIND.parse(json.loads(once.configuration), record) == once


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({"Name": 5}, "Name", "is a whole number; give text"),
        ({"CommandTimeout": "1"}, "CommandTimeout", "is text; give a whole number"),
        ({"Transforms": [transform(Collections="Orders")]}, "Transforms[0].Collections", "is text; give a list"),
        ({"ConnectionStringName": "nowhere"}, "ConnectionStringName", "known: target"),
        ({"Transforms": []}, "Transforms", "give 1 to 100"),
        ({"Transforms": [transform(), transform(Name="T")]}, "Transforms.Name", "names must be unique"),
        ({"Transforms": [transform(Name="")]}, "Transforms.Name", "name each transform"),
        ({"Transforms": [transform(Collections=[])]}, "Transforms.Collections", "or set ApplyToAllDocuments"),
        ({"Transforms": [transform(Script="this.x")]}, "Transforms.Script", r"call loadTo<Table>\(\{...\}\)"),
        (
            {"Transforms": [transform(Script="loadToBills({})")]},
            "Transforms.Script",
            "'Bills', which is not in SqlTables",
        ),
        (
            {"Transforms": [transform(Script="loadToOrders({})" + "/" * 300_000)]},
            "Transforms.Script",
            "the limit is 262144 bytes",
        ),
        ({"Transforms": [transform(Script="loadToOrders({})\nlet 5")]}, "Transforms.Script", "line 2: SyntaxError"),
        ({"SqlTables": []}, "SqlTables", "name 1 to 100 target tables"),
        ({"CommandTimeout": 0}, "CommandTimeout", "give 1 to 86400 s, or null for the node's own limit"),
        (
            {"QuoteTables": False, "SqlTables": [{"TableName": "a b", "DocumentIdColumn": "Id"}]},
            "SqlTables.TableName",
            "'a b' is not a table's name in SQL; write name or schema.name",
        ),
        (
            {
                "QuoteTables": False,
                "SqlTables": [{"TableName": t, "DocumentIdColumn": "Id"} for t in ("Orders", '"orders"')],
            },
            "SqlTables.TableName",
            "is the same table as 'Orders'",
        ),
        ({"SqlTables": [{"TableName": "", "DocumentIdColumn": "Id"}]}, "SqlTables.TableName", "name a table"),
        (
            {"SqlTables": [{"TableName": "Orders", "DocumentIdColumn": ""}]},
            "SqlTables.DocumentIdColumn",
            "document's id",
        ),
        (
            {"SqlTables": [{"TableName": t, "DocumentIdColumn": "Id"} for t in ("Orders", "ORDERS")]},
            "SqlTables.TableName",
            "name each table once",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(
    record: Database, changes: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        KIND.parse(configuration(**changes), record)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field", "remedy"),
    [
        ({"Transforms": []}, "Transforms", "give 1 to 100"),
        ({"Transforms": [transform(Name="a"), transform(Name="A")]}, "Transforms.Name", "names must be unique"),
        ({"Transforms": [transform(ApplyToAllDocuments=True)]}, "Transforms.Collections", "choose one"),
        ({"Transforms": [transform(Collections=[])]}, "Transforms.Collections", "or set ApplyToAllDocuments"),
    ],
)
def test_check_01_transforms_without_number_name_or_collections_are_refused(
    record: Database, changes: dict[str, Any], field: str, remedy: str
) -> None:
    test_what_is_wrong_is_named_with_the_remedy(record, changes, field, remedy)


def test_check_03_a_table_must_be_named_by_a_literal(record: Database) -> None:
    variable = transform(Script="const t = 'Orders'; loadTo(t, {})")
    with pytest.raises(ConfigurationError, match="loads nothing"):
        KIND.parse(configuration(Transforms=[variable]), record)
    assert KIND.parse(configuration(Transforms=[transform(Script="loadTo('Orders', {})")]), record)


@pytest.mark.parametrize(
    "script",
    [
        "loadToOrders({}).addCounter('likes')",
        "loadToOrders({}).addTimeSeries(loadTimeSeries('t'))",
        "loadToOrders({}); function deleteDocumentsOfOrdersBehavior(id, deleted) { return deleted; }",
        "loadToOrders({}); function deleteDocumentsBehavior(id, collection, deleted) { return deleted; }",
        "loadToOrders({}); function loadCountersOfOrdersBehavior(id, counter) { return true; }",
    ],
)
def test_check_04_what_only_ravendb_etl_has_is_refused(record: Database, script: str) -> None:
    with pytest.raises(ConfigurationError, match="is of RavenDB ETL; leave it out") as caught:
        KIND.parse(configuration(Transforms=[transform(Script=script)]), record)
    assert caught.value.field == "Transforms.Script"


def test_all_of_raven_s_fields_come_back_as_they_were_given(record: Database) -> None:
    fields = {
        "QuoteTables": False,
        "ParameterizeDeletes": False,
        "ForceQueryRecompile": True,
        "CommandTimeout": 5,
    }
    stored = json.loads(KIND.parse(configuration(**fields), record).configuration)
    assert {name: stored[name] for name in fields} == fields


def test_a_connection_string_is_checked_at_the_door(sqlite_target: SqlTarget, record: Database) -> None:
    KIND.parse_connection(sqlite_target.configuration, record)
    with pytest.raises(ConfigurationError, match="FactoryName"):
        KIND.parse_connection(sqlite_target.configuration | {"FactoryName": "dBase"}, record)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("SslMode=VerifyCA;SslCa=ca.pem", "names the root certificate 'ca.pem'; write an absolute path"),
        ("SslMode=Required;SslKey=/etc/key.pem", "a TLS key without its certificate"),
        ("SslCa=/etc/ca.pem", "write Require, VerifyCA or VerifyFull"),
    ],
)
def test_certificates_of_a_connection_are_checked_at_the_door(record: Database, text: str, remedy: str) -> None:
    given = {"Name": "m", "Type": "Sql", "FactoryName": "MySqlConnector.MySqlConnectorFactory"}
    with pytest.raises(ConfigurationError, match=remedy):
        KIND.parse_connection(given | {"ConnectionString": f"Server=db;Database=d;{text}"}, record)


def test_the_kind_is_found_by_either_spelling() -> None:
    assert {id(kinds.load(name)) for name in ("SqlEtl", "sql_etl")} == {id(KIND)}
    assert {"SqlEtl", "Update"} <= set(kinds.kinds())
    with pytest.raises(ConfigurationError, match=r"no task kind 'Teleport'; it knows: .*SqlEtl"):
        kinds.load("Teleport")


def test_naming_the_kinds_imports_no_engine_and_no_driver() -> None:
    heavy = ("py_mini_racer", "asyncpg", "aiosqlite", "sqlalchemy")
    loaded = f"[m for m in {heavy} if m in sys.modules]"
    code = f"import sys, tasks.kinds.registry; tasks.kinds.registry.kinds(); print({loaded})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert answer.stdout.strip() == "[]"
