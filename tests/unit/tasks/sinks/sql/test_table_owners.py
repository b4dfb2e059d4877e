"""Who writes a table: what is refused at the door because two writers would delete each other's rows."""

import json
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace

from raftnode.record.model import ConnectionString, Database, Task
from tasks.kinds.registry import ConfigurationError
from tasks.kinds.sql_etl.task import KIND
from tasks.sinks.sql import table_owners as sql_owners
from tests.unit.tasks.conftest import SqlTarget, database


def string(name: str, target: SqlTarget, **changes: str) -> dict[str, Any]:
    return target.configuration | {"Name": name} | changes


def configuration(name: str = "one", target: str = "target", **changes: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "ConnectionStringName": target,
        "Transforms": [transform()],
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id"}],
    } | changes


def transform(name: str = "t", *collections: str, **changes: Any) -> dict[str, Any]:
    script = "loadToOrders({})"
    return {"Name": name, "Collections": collections or ("Orders",), "Script": script} | changes


@pytest.fixture
def record(sqlite_target: SqlTarget) -> Database:
    """A database with two names for one target, another target, and a task."""
    empty = database(sqlite_target)
    other = string("other", sqlite_target, ConnectionString="Data Source=/nowhere/other.db")
    strings = {"again": string("again", sqlite_target), "other": other}
    for name, given in strings.items():
        stored = ConnectionString(name=name, type="Sql", configuration=json.dumps(given).encode())
        empty = replace(empty, connection_strings=empty.connection_strings.set(name, stored))
    return with_task(empty, 7, configuration())


def with_task(record: Database, id: int, given: dict[str, Any]) -> Database:
    parsed = KIND.parse(given | {"TaskId": id}, record)
    fields = {"name": parsed.name, "kind": parsed.kind, "key": parsed.key, "configuration": parsed.configuration}
    task = Task(id=id, connection_string=parsed.connection_string, **fields)  # type: ignore[arg-type]
    return replace(record, tasks=Map({**record.tasks, id: task}))


@pytest.mark.parametrize(
    ("one", "other", "say"),
    [
        (transform("a"), transform("b"), "'a' and 'b' both write table 'orders' for documents of 'Orders'"),
        (transform("a"), transform("b", "Lines", "ORDERS"), "set InsertOnlyMode for it"),
        (transform("a"), transform("b", ApplyToAllDocuments=True, Collections=[]), "for the same documents"),
        (transform("a"), transform("b", Disabled=True), None),
        (transform("a"), transform("b", "Lines"), None),
        (transform("a"), transform("b", Script="loadToLines({})"), None),
    ],
)
def test_two_transforms_never_write_a_table_for_the_same_documents(
    record: Database, one: dict[str, Any], other: dict[str, Any], say: str | None
) -> None:
    tables = [{"TableName": name, "DocumentIdColumn": "Id"} for name in ("orders", "lines")]
    given = configuration(Transforms=[one, other], SqlTables=tables)
    if say is None:
        assert KIND.parse(given, record)
        return
    with pytest.raises(ConfigurationError, match=f"Transforms.*{say}"):
        KIND.parse(given, record)
    only = [table | {"InsertOnlyMode": True} for table in tables]
    assert KIND.parse(given | {"SqlTables": only}, record)


def table(name: str = "Orders", column: str = "Id", **changes: Any) -> list[dict[str, Any]]:
    return [{"TableName": name, "DocumentIdColumn": column} | changes]


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),
        ({"Transforms": [transform("t", "Others")]}, True),
        ({"target": "again"}, True),
        ({"SqlTables": table("main.Orders"), "Transforms": [transform(Script="loadTo('main.Orders', {})")]}, True),
        ({"SqlTables": table(InsertOnlyMode=True)}, True),
        ({"target": "other"}, False),
        ({"SqlTables": table(column="OtherId")}, False),
        ({"SqlTables": table("Lines"), "Transforms": [transform(Script="loadToLines({})")]}, False),
        ({"TaskId": 7}, False),
    ],
)
def test_a_table_that_another_task_writes_is_refused(record: Database, changes: dict[str, Any], refused: bool) -> None:
    given = configuration("two", **changes)
    if refused:
        with pytest.raises(ConfigurationError, match="is written by task 'one' in the same target as by 'two'"):
            KIND.parse(given, record)
    else:
        assert KIND.parse(given, record)


def test_two_tasks_that_only_insert_may_share_a_table(record: Database) -> None:
    only = table(InsertOnlyMode=True)
    record = with_task(record, 7, configuration(SqlTables=only))
    assert KIND.parse(configuration("two", SqlTables=only), record)


def test_a_connection_string_does_not_lead_a_task_to_another_s_table(
    record: Database, sqlite_target: SqlTarget
) -> None:
    record = with_task(record, 8, configuration("two", "other"))
    with pytest.raises(ConfigurationError, match="'Orders' is written by task 'one' in the same target as by 'two'"):
        sql_owners.check_connection(string("Other", sqlite_target), record)
    elsewhere = string("Other", sqlite_target, ConnectionString="Data Source=/nowhere/else.db")
    sql_owners.check_connection(elsewhere, record)
    sql_owners.check_connection(string("again", sqlite_target), record)


POSTGRES = {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": "Host=db;Database=d"}


def at(text: str) -> Database:
    return database(SqlTarget("postgres", POSTGRES | {"ConnectionString": text}))


@pytest.mark.parametrize(
    ("text", "names", "same"),
    [
        ("Host=db;Database=d", ("Orders", "PUBLIC.orders"), True),
        ("Host=db;Database=d;Search Path=reports, public", ("Orders", "reports.Orders"), True),
        ("Host=db;Database=d;Search Path=reports", ("Orders", "public.Orders"), False),
        ("postgresql://db/d?search_path=reports", ("public.Orders", "reports.Orders"), False),
    ],
)
def test_a_table_that_is_named_in_two_ways_is_refused(text: str, names: tuple[str, str], same: bool) -> None:
    """Its two transforms would delete each other's rows."""
    tables = [{"TableName": name, "DocumentIdColumn": "Id"} for name in names]
    transforms = [transform(name, Script=f"loadTo('{name}', {{}})") for name in names]
    given = configuration(SqlTables=tables, Transforms=transforms)
    if not same:
        assert KIND.parse(given, at(text))
        return
    with pytest.raises(ConfigurationError, match=f"SqlTables.TableName: '{names[1]}' is the same table as 'Orders'"):
        KIND.parse(given, at(text))


@pytest.mark.parametrize(("path", "table", "same"), [("reports", "reports.Orders", True), ("reports", "Orders", False)])
def test_tables_of_two_tasks_are_compared_with_their_schemas(path: str, table: str, same: bool) -> None:
    record = at("Host=db;Database=d")
    there = POSTGRES | {"Name": "there", "ConnectionString": f"Host=db;Database=d;Search Path={path}"}
    stored = ConnectionString(name="there", type="Sql", configuration=json.dumps(there).encode())
    record = with_task(
        replace(record, connection_strings=record.connection_strings.set("there", stored)),
        7,
        configuration(target="there"),
    )
    given = configuration(
        "two",
        SqlTables=[{"TableName": table, "DocumentIdColumn": "Id"}],
        Transforms=[transform(Script=f"loadTo('{table}', {{}})")],
    )
    if not same:
        assert KIND.parse(given, record)
        moved = POSTGRES | {"Name": "there"}
        with pytest.raises(ConfigurationError, match="'Orders' is written by task 'two'"):
            sql_owners.check_connection(moved, with_task(record, 8, given))
        return
    with pytest.raises(ConfigurationError, match=f"'{table}' is written by task 'one'"):
        KIND.parse(given, record)
