"""Every type that the targets have: what goes into a column of it, what is refused; and docs/tasks/sql_etl.md too."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks.etl.refusals import DocumentRefusal
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.tables import SqlTable
from tests.unit.tasks.conftest import SqlTarget
from tests.unit.tasks.sinks.sql.test_sink import sink

DOCS = Path(__file__).parents[5] / "docs" / "tasks" / "sql_etl.md"
REFUSED = "refused"
LONG = Decimal("0.123456789012345678901234567890")
BIG = 9007199254740993
GUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"

Cases = Mapping[str, Sequence[tuple[Any, str | None]]]

POSTGRES: Cases = {
    "smallint": [(32767, "32767"), (32768, REFUSED), (Decimal("1.5"), REFUSED)],
    "integer": [("12", "12"), (True, "1"), (2**31, REFUSED), ("1E9999999", REFUSED), ("x", REFUSED), (None, None)],
    "bigint": [(BIG, str(BIG)), (1161888007138312193, "1161888007138312193"), (2**63, REFUSED)],
    "numeric": [(LONG, str(LONG)), (BIG, str(BIG)), (Decimal("1E+400"), "1" + "0" * 400), ("NaN", REFUSED)],
    "numeric(6,2)": [(Decimal("32.385"), "32.39"), (99999, REFUSED), ("text", REFUSED)],
    "real": [(Decimal("0.1"), "0.1"), (16777217, REFUSED), ("1e39", REFUSED)],
    "double precision": [(Decimal("0.1"), "0.1"), (LONG, REFUSED), (BIG, REFUSED), ("1e400", REFUSED)],
    "money": [(Decimal("12.5"), "$12.50"), ("1234.5", "$1,234.50"), ("much", REFUSED), ("1e30", REFUSED)],
    "boolean": [(True, "true"), ("False", "false"), (1, "true"), (2, REFUSED), ("perhaps", REFUSED)],
    "text": [("a", "a"), (LONG, str(LONG)), (True, "true"), ({"a": [1]}, '{"a":[1]}'), ("\0", REFUSED)],
    "varchar(3)": [("abc", "abc"), ("abcd", REFUSED)],
    "char(3)": [("ab", "ab"), ("abcd", REFUSED)],
    '"char"': [("a", "a"), ("ab", REFUSED)],
    "name": [("a", "a"), ("a" * 64, REFUSED)],
    "bytea": [("aGk=", "\\x6869"), ("?", REFUSED)],
    "date": [
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T23:00:00-02:00", "2024-02-01"),
        ("soon", REFUSED),
        (12, REFUSED),
    ],
    "time": [("01:02:03.1234567", "01:02:03.123456"), ("01:02:03+01:00", REFUSED), ("noon", REFUSED)],
    "time with time zone": [("01:02:03+02:00", "01:02:03+02"), ("01:02:03", "01:02:03+00"), ("noon", REFUSED)],
    "timestamp": [
        ("2024-01-31T01:00:00+02:00", "2024-01-30 23:00:00"),
        ("9999-12-31T23:59:59.9999999", "9999-12-31 23:59:59.999999"),
        ("0001-01-01T00:00:00+01:00", REFUSED),
        ("9999-12-31T23:59:59-01:00", REFUSED),
    ],
    "timestamp with time zone": [
        ("2024-01-31T01:00:00", "2024-01-31 01:00:00+00"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00+00"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31 23:59:59.999999+00"),
        ("0001-01-01T00:00:00+01:00", "0001-12-31 23:00:00+00 BC"),
        ("then", REFUSED),
    ],
    "interval": [
        ("00:01:00", "00:01:00"),
        ("1.00:00:00", "1 day"),
        ("-1.02:03:04.5000000", "-1 days -02:03:04.5"),
        ("P1Y2M", "1 year 2 mons"),
        ("2 weeks", "14 days"),
        ("25:61:00", REFUSED),
        ("long", REFUSED),
        (5, REFUSED),
    ],
    "uuid": [(GUID.upper(), GUID), ("1", REFUSED)],
    "json": [({"a": LONG, "b": BIG, "c": None}, f'{{"a":{LONG},"b":{BIG},"c":null}}'), ("t", '"t"'), (None, None)],
    "jsonb": [({"a": LONG}, f'{{"a": {LONG}}}'), (None, None), ("\x00", REFUSED)],
    "jsonb not null": [({"a": 1}, '{"a": 1}'), (None, REFUSED)],
    "jsonpath": [("$.a", '$."a"'), ("$$$", REFUSED)],
    "xml": [("<a/>", "<a/>"), ("<a>", REFUSED)],
    "int[]": [([1, None, 2], "{1,NULL,2}"), ([[1], [2]], "{{1},{2}}"), ([Decimal("1.5"), 2], REFUSED), (1, REFUSED)],
    "text[]": [(['a"b\\', "NULL", "", "{,}"], '{"a\\"b\\\\","NULL","","{,}"}'), ([[1], [2, 3]], REFUSED)],
    "date[]": [(["2024-01-01"], "{2024-01-01}"), (["soon"], REFUSED)],
    "timestamptz[]": [(["2024-01-01T00:00:00"], '{"2024-01-01 00:00:00+00"}'), ([5], REFUSED)],
    "money[]": [([Decimal("12.5")], "{$12.50}"), (["much"], REFUSED)],
    "jsonb[]": [([{"a": 1}, [1]], '{"{\\"a\\": 1}",[1]}'), ({}, REFUSED)],
    "varchar(2)[]": [(["ab"], "{ab}"), (["abc"], REFUSED)],
    "box[]": [(["(1,1),(0,0)"], "{(1,1),(0,0)}"), (["x"], REFUSED)],
    "bit(3)": [("101", "101"), ("10101", REFUSED)],
    "varbit(3)": [("10", "10"), ("10101", REFUSED)],
    "point": [("(1,2)", "(1,2)"), ("here", REFUSED)],
    "line": [("{1,2,3}", "{1,2,3}"), ("x", REFUSED)],
    "lseg": [("[(0,0),(1,1)]", "[(0,0),(1,1)]"), ("x", REFUSED)],
    "box": [("(1,1),(0,0)", "(1,1),(0,0)"), ("x", REFUSED)],
    "path": [("[(0,0),(1,1)]", "[(0,0),(1,1)]"), ("x", REFUSED)],
    "polygon": [("((0,0),(1,1))", "((0,0),(1,1))"), ("x", REFUSED)],
    "circle": [("<(0,0),1>", "<(0,0),1>"), ("x", REFUSED)],
    "inet": [("10.0.0.1", "10.0.0.1/32"), ("x", REFUSED)],
    "cidr": [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.1/8", REFUSED)],
    "macaddr": [("08:00:2b:01:02:03", "08:00:2b:01:02:03"), ("x", REFUSED)],
    "macaddr8": [("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:05"), ("x", REFUSED)],
    "int4range": [("[1,5)", "[1,5)"), ("[5,1)", REFUSED)],
    "int8range": [(f"[1,{BIG})", f"[1,{BIG})"), ("x", REFUSED)],
    "numrange": [("[1.5,2.5]", "[1.5,2.5]"), ("x", REFUSED)],
    "daterange": [("[2024-01-01,2024-02-01)", "[2024-01-01,2024-02-01)"), ("x", REFUSED)],
    "tsrange": [("[2024-01-01,)", '["2024-01-01 00:00:00",)'), ("x", REFUSED)],
    "tstzrange": [("[2024-01-01Z,)", '["2024-01-01 00:00:00+00",)'), ("x", REFUSED)],
    "int4multirange": [("{[1,2),[5,6)}", "{[1,2),[5,6)}"), ("x", REFUSED)],
    "tsvector": [("a fat cat", "'a' 'cat' 'fat'"), ({"a": "'"}, REFUSED)],
    "tsquery": [("fat & cat", "'fat' & 'cat'"), ("fat cat", REFUSED)],
    "pg_lsn": [("16/B374D848", "16/B374D848"), ("x", REFUSED)],
    "oid": [(4294967295, "4294967295"), (-1, REFUSED)],
    "xid": [(4294967295, "4294967295"), ("12", "12"), ("x", REFUSED), (4294967296, REFUSED)],
    "cid": [(7, "7"), ("7x", REFUSED)],
    "xid8": [(2**64 - 1, str(2**64 - 1)), ("x", REFUSED), (2**64, REFUSED)],
    "regclass": [("pg_type", "pg_type"), ("nowhere", REFUSED)],
    "pg_snapshot": [("10:20:10,14", "10:20:10,14"), ("x", REFUSED)],
    "mood": [("happy", "happy"), ("sad", REFUSED)],
    "pair": [("(1,b)", "(1,b)"), ("x", REFUSED)],
    "hstore": [({"a": 1, 'q"': None}, '"a"=>"1", "q\\""=>NULL'), ("a=>1", '"a"=>"1"'), ("a", REFUSED), ([1], REFUSED)],
    "citext": [("Ab", "Ab")],
    "if_day": [("2024-01-01", "2024-01-01"), ("soon", REFUSED)],
    "short": [("abc", "abc"), ("abcdef", REFUSED)],
    "positive": [(1, "1"), (-1, REFUSED), (Decimal("1.5"), REFUSED)],
}
SETUP = (
    "CREATE EXTENSION hstore", "CREATE EXTENSION citext", "CREATE TYPE mood AS ENUM ('happy')",
    "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN if_day AS date", "CREATE DOMAIN short AS varchar(3)",
    "CREATE DOMAIN naught AS int CHECK (VALUE >= 0)", "CREATE DOMAIN positive AS naught CHECK (VALUE > 0)",
)  # fmt: skip

SQLITE: Cases = {
    "INTEGER": [(5, "5"), ("12", "12"), (BIG, str(BIG)), (2**63, REFUSED), (Decimal("1.5"), REFUSED), ("x", REFUSED)],
    "BIGINT": [(-(2**63), str(-(2**63))), ("1E9999999", REFUSED), (None, None)],
    "NUMERIC": [(BIG, str(BIG)), (Decimal("1.5"), "1.5"), (LONG, REFUSED), (2**63 + 1, REFUSED), ("x", REFUSED)],
    "DECIMAL(10,2)": [(Decimal("12.345"), "12.345"), (True, "1")],
    "MONEY": [(Decimal("12.5"), "12.5"), ("much", REFUSED)],
    "BIT": [(1, "1"), ("x", REFUSED)],
    "REAL": [(Decimal("0.1"), "0.1"), (BIG, REFUSED), ("1e400", REFUSED)],
    "DOUBLE PRECISION": [(LONG, REFUSED), (2, "2.0")],
    "BOOLEAN": [(True, "1"), ("false", "0"), (2, REFUSED)],
    "VARCHAR(3)": [("abcd", "abcd"), (LONG, str(LONG)), ("007", "007"), ({"a": 1}, '{"a":1}'), ("\0", REFUSED)],
    "TEXT": [(BIG, str(BIG)), (True, "true"), (None, None)],
    "CLOB": [("x", "x")],
    "BLOB": [("aGk=", "hi"), ("?", REFUSED)],
    "VARBINARY(9)": [("aGk=", "hi"), (1, REFUSED)],
    "DATE": [("2024-01-31T23:00:00-02:00", "2024-02-01"), ("soon", REFUSED)],
    "DATETIME": [("2024-01-31T01:00:00+02:00", "2024-01-30 23:00:00.000000"), ("0001-01-01T00:00:00+01:00", REFUSED)],
    "TIMESTAMP WITH TIME ZONE": [("2024-01-31", "2024-01-31 00:00:00.000000"), (5, REFUSED)],
    "TIME": [("01:02:03.5", "01:02:03.500000"), ("01:02:03Z", REFUSED)],
    "INTERVAL": [("1.00:00:00", "1.00:00:00"), ("long", REFUSED)],
    "JSON": [({"a": LONG}, f'{{"a":{LONG}}}'), (None, None), ("t", '"t"')],
    "GUID": [(GUID.upper(), GUID), ("1", REFUSED)],
    "UNIQUEIDENTIFIER": [(GUID, GUID), (1, REFUSED)],
    "POINT": [("(1,2)", "(1,2)"), ({"x": 1}, '{"x":1}')],
    "STRING": [("x", "x"), ("007", REFUSED), ("1e400", REFUSED), ("12", "12")],
    "": [("007", "007"), (Decimal("1.5"), "1.5"), (True, "1"), (LONG, REFUSED), ([1], "[1]")],
}
MARIADB: Cases = {
    "tinyint": [(127, "127"), (128, REFUSED), (True, "1"), ("x", REFUSED)],
    "tinyint unsigned": [(255, "255"), (-1, REFUSED)],
    "boolean": [(True, "1"), ("false", "0"), (0, "0"), (None, None)],
    "smallint": [(32767, "32767"), (32768, REFUSED), (Decimal("1.5"), REFUSED)],
    "mediumint": [(8388607, "8388607"), (8388608, REFUSED)],
    "int": [("12", "12"), (2**31, REFUSED), ("1E9999999", REFUSED), (Decimal("5.0"), "5")],
    "int unsigned": [(2**32 - 1, "4294967295"), (-1, REFUSED)],
    "bigint": [(BIG, str(BIG)), (2**63, REFUSED), (-(2**63), str(-(2**63)))],
    "bigint unsigned": [(2**64 - 1, str(2**64 - 1)), (2**64, REFUSED)],
    "decimal(65,30)": [(LONG, str(LONG)), (Decimal("1E+30"), "1" + "0" * 30 + "." + "0" * 30), ("NaN", REFUSED)],
    "decimal(6,2)": [(Decimal("32.385"), "32.39"), (99999, REFUSED), ("text", REFUSED), ("1E-9999", "0.00")],
    "float": [(Decimal("0.5"), "0.5"), (16777217, REFUSED), ("1e39", REFUSED)],
    "double": [(Decimal("0.1"), "0.1"), (LONG, REFUSED), (BIG, REFUSED), ("1e400", REFUSED)],
    "bit(3)": [(5, "\x05"), (8, REFUSED), (-1, REFUSED)],
    "char(3)": [("ab", "ab"), ("abcd", REFUSED), ("abc ", REFUSED)],
    "varchar(3)": [("abc", "abc"), ("ab ", "ab "), ("abcd", REFUSED), ("abc ", REFUSED), ("\0", REFUSED)],
    "tinytext": [("a", "a"), ("a" * 256, REFUSED)],
    "text": [("a%s\\'\"", "a%s\\'\""), (LONG, str(LONG)), (True, "true"), ({"a": [1]}, '{"a":[1]}'), ("😀", "😀")],
    "mediumtext": [("a", "a")],
    "longtext": [("{", "{")],
    "text character set latin1": [("é", "é"), ("ф", REFUSED)],
    "text character set utf8mb3": [("ф", "ф"), ("😀", REFUSED)],
    "enum('happy','it''s','2')": [("happy", "happy"), ("it's", "it's"), ("2", "2"), ("1", REFUSED), (1, REFUSED)],
    "set('a','b')": [("a,b", "a,b"), ("", ""), ("a,c", REFUSED), (1, REFUSED)],
    "binary(2)": [("aGk=", "hi"), ("aGkh", REFUSED), ("?", REFUSED)],
    "varbinary(2)": [("aGk=", "hi"), ("aGkh", REFUSED), (1, REFUSED)],
    "tinyblob": [("aGk=", "hi")],
    "blob": [("aGk=", "hi"), ("?", REFUSED), (None, None)],
    "mediumblob": [("aGk=", "hi")],
    "longblob": [("aGk=", "hi")],
    "date": [("2024-01-31T23:00:00-02:00", "2024-02-01"), ("0000-00-00", REFUSED), ("soon", REFUSED), (12, REFUSED)],
    "time(6)": [
        ("01:02:03.1234567", "01:02:03.123456"),
        ("-1.02:03:04.5", "-26:03:04.500000"),
        ("34.22:59:59", "838:59:59.000000"),
        ("35.00:00:00", REFUSED),
        ("01:02:03+01:00", REFUSED),
        ("noon", REFUSED),
    ],
    "datetime(6)": [
        ("2024-01-31T01:00:00+02:00", "2024-01-30 23:00:00.000000"),
        ("9999-12-31T23:59:59.9999999", "9999-12-31 23:59:59.999999"),
        ("0001-01-01T00:00:00+01:00", REFUSED),
        ("then", REFUSED),
    ],
    "datetime": [("2024-01-31T01:00:00", "2024-01-31 01:00:00"), ("0001-01-01", "0001-01-01 00:00:00")],
    "timestamp null": [("2024-03-31T02:30:00+00:00", "2024-03-31 02:30:00"), ("1969-01-01", REFUSED), (None, None)],
    "year": [(2024, "2024"), (24, REFUSED), ("x", REFUSED)],
    "json": [({"a": LONG, "b": BIG}, f'{{"a":{LONG},"b":{BIG}}}'), ("t", '"t"'), (None, None)],
    "uuid": [(GUID.upper(), GUID), ("1", REFUSED)],
    "inet4": [("10.0.0.1", "10.0.0.1"), ("x", REFUSED)],
    "inet6": [("::1", "::1"), ("x", REFUSED)],
    "point": [("POINT(1 2)", REFUSED), (None, None)],
    "geometry": [("POINT(1 2)", REFUSED)],
}
STRICT: Cases = {
    "INT": [(5, "5"), ("x", REFUSED)],
    "INTEGER": [(BIG, str(BIG)), (Decimal("1.5"), REFUSED)],
    "REAL": [(1, "1.0"), ("x", REFUSED)],
    "TEXT": [(1, "1")],
    "BLOB": [("aGk=", "hi"), ("?", REFUSED)],
    "ANY": [("007", "007"), ("x", "x"), (5, "5"), ({"a": 1}, '{"a":1}')],
}


def fair(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """Every refusal is the document's own fault."""


async def stored(
    target: SqlTarget, cases: Cases, options: str = "", shown: Callable[[str], str] = lambda type: "CAST(v AS text)"
) -> dict[str, list[tuple[Any, str | None]]]:
    """What is there of the cases, all of which are written in one batch."""
    tables = {type: f"t{n}" for n, type in enumerate(cases)}
    await target.execute(*(f"CREATE TABLE {name} (id text, v {type}) {options}" for type, name in tables.items()))
    documents = [
        DocumentRows(f"{name}/{n}", (name,), [(name, {"v": value})])
        for type, name in tables.items()
        for n, (value, _) in enumerate(cases[type])
    ]
    async with sink(target, tables=tuple(SqlTable(name, "id") for name in tables.values())) as opened:
        refused = {r.id for r in await opened.write(documents, lambda refused: b"{}", fair)}
    found: dict[str, list[tuple[Any, str | None]]] = {}
    for type, name in tables.items():
        rows = dict(await target.rows(f"SELECT id, {shown(type)} FROM {name}"))
        there = [rows.get(f"{name}/{n}", REFUSED) for n in range(len(cases[type]))]
        assert [f"{name}/{n}" in refused for n in range(len(there))] == [one == REFUSED for one in there]
        found[type] = [(value, one) for (value, _), one in zip(cases[type], there, strict=True)]
    return found


@pytest.mark.postgres
async def test_every_type_of_postgresql(postgres_target: SqlTarget) -> None:
    await postgres_target.execute(*SETUP)
    await postgres_target.execute(
        "ALTER DATABASE " + str(postgres_target.connection.url.database) + " SET timezone = 'UTC'"
    )
    assert await stored(postgres_target, POSTGRES) == POSTGRES


@pytest.mark.mysql
async def test_every_type_of_mariadb(mysql_target: SqlTarget) -> None:
    def shown(type: str) -> str:
        return "ST_AsText(v)" if type in ("point", "geometry") else "CAST(v AS char)"

    assert await stored(mysql_target, MARIADB, shown=shown) == MARIADB


async def test_every_type_of_sqlite(sqlite_target: SqlTarget) -> None:
    assert await stored(sqlite_target, SQLITE) == SQLITE


async def test_every_type_of_a_strict_table_of_sqlite(sqlite_target: SqlTarget) -> None:
    assert await stored(sqlite_target, STRICT, "STRICT") == STRICT


@pytest.mark.postgres
async def test_every_type_that_postgresql_has_is_in_the_documentation(postgres_target: SqlTarget) -> None:
    rows = await postgres_target.rows(
        "SELECT format_type(oid, -1) FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typcategory NOT IN ('A', 'Z') "
        "AND typnamespace = 'pg_catalog'::regnamespace AND (typname, typtype) <> ('unknown', 'b')"
    )
    section = DOCS.read_text(encoding="utf-8").split("## PostgreSQL", 1)[1].split("\n## ", 1)[0]
    said = set(re.findall(r"`([^`]+)`", section))
    assert {type for (type,) in rows} - said == set()


def test_every_type_that_is_tested_is_in_the_documentation() -> None:
    text = DOCS.read_text(encoding="utf-8").split("## PostgreSQL", 1)[1]
    said = set(re.findall(r"`([^`]+)`", text))
    own = {"mood", "pair", "if_day", "short", "positive", "", "text[]", "date[]", "timestamptz[]", "box[]"}
    detail = r"\([^)]+\)| (not )?null| unsigned| character set \w+"
    types = {re.sub(detail, "", type) for type in (*POSTGRES, *MARIADB, *SQLITE, *STRICT)}
    assert {type for type in types - own if type not in said and not type.endswith("[]")} == set()
