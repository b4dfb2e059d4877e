"""The columns of tables of MariaDB and MySQL, and what each type takes.

Values are sent as text wherever the server reads the column's type from text without a loss. Its strict mode
(`mysql_connections`) refuses what does not fit; what it would change in silence all the same is refused here: trailing
spaces that are too many, the number of an enum's value in the place of its name, digits of numbers in MySQL's JSON.
"""

import re
from collections.abc import Hashable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from tasks.sinks.sql import types as sql_types
from tasks.sinks.sql.types import INT64_MAX, INT64_MIN, Column, Converter, DoesNotFit, NotWritable

PLACEHOLDER = "%s"
LOWER_CASE = False
NAME_LENGTH_MAX = 64
_TRANSACTIONAL = {"innodb", "rocksdb", "tokudb", "ndbcluster", "ndb"}
_TIME_HOURS_MAX = 838
_ESCAPED = 2
"""So much longer a text may get when it is written into a statement."""

_RELATIONS = """
SELECT table_schema AS s, table_name AS n FROM information_schema.tables
WHERE table_schema = coalesce(%s, database()) AND table_type IN ('BASE TABLE', 'VIEW')
"""
_TABLE = """
SELECT table_type AS kind, engine FROM information_schema.tables WHERE table_schema = %s AND table_name = %s
"""
_COLUMNS = """
SELECT column_name AS n, data_type AS type, column_type AS shown, character_maximum_length AS length
FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""
_CHECKS = """
SELECT check_clause AS c FROM information_schema.check_constraints WHERE constraint_schema = %s AND table_name = %s
"""
_REFERENCES = """
SELECT DISTINCT table_schema, table_name, referenced_table_schema, referenced_table_name
FROM information_schema.key_column_usage
WHERE referenced_table_name IS NOT NULL AND table_schema = database()
"""
_JSON_VALID = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)", re.IGNORECASE)
_LABEL = re.compile(r"'((?:[^']|'')*)'")


class MySqlRelation(msgspec.Struct, frozen=True):
    """A table by its database and name."""

    schema: str
    name: str


def too_long(name: str) -> str | None:
    """See `TargetDialect`."""
    if len(name) <= NAME_LENGTH_MAX:
        return None
    return f"has {len(name)} characters, and names have at most {NAME_LENGTH_MAX} in MariaDB and MySQL"


def relations(connection: sa.Connection, schema: str | None) -> Mapping[str, Hashable]:
    """See `TargetDialect`. A schema is a database here."""
    return {row.n: MySqlRelation(row.s, row.n) for row in connection.exec_driver_sql(_RELATIONS, (schema,))}


def columns(connection: sa.Connection, relation: Hashable) -> list[Column]:
    """See `TargetDialect`."""
    assert isinstance(relation, MySqlRelation)
    where = (relation.schema, relation.name)
    table = connection.exec_driver_sql(_TABLE, where).one()
    if table.kind != "BASE TABLE":
        raise NotWritable(f"'{relation.name}' is a view, whose tables may have no transactions; name a table")
    if (table.engine or "").lower() not in _TRANSACTIONAL:
        raise NotWritable(
            f"table '{relation.name}' is of engine {table.engine}, which has no transactions; "
            f"ALTER TABLE {relation.name} ENGINE=InnoDB"
        )
    json = _json_columns(connection, where)
    return [
        Column(row.n, row.shown, _converter(row, json), _parameter(row.type), exact_text=row.type in _TEXTS)
        for row in connection.exec_driver_sql(_COLUMNS, where)
    ]


def references(connection: sa.Connection) -> list[tuple[Hashable, Hashable]]:
    """See `TargetDialect`."""
    rows = connection.exec_driver_sql(_REFERENCES)
    pairs = [(MySqlRelation(a, b), MySqlRelation(c, d)) for a, b, c, d in rows]
    return [(one, other) for one, other in pairs if one != other]


def has_deferrable(connection: sa.Connection) -> bool:
    """See `TargetDialect`. Every constraint is checked row by row."""
    return False


def row_bytes_max(connection: sa.Connection) -> int | None:
    """See `TargetDialect`. The server ends the connection on a longer statement."""
    return int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one()) // _ESCAPED - 1024


def _json_columns(connection: sa.Connection, where: tuple[str, str]) -> set[str]:
    """MariaDB's JSON is a text with a check."""
    if not connection.dialect.is_mariadb:  # type: ignore[attr-defined]
        return set()
    clauses = [row.c for row in connection.exec_driver_sql(_CHECKS, where)]
    return {found[1].replace("``", "`") for clause in clauses if (found := _JSON_VALID.fullmatch(clause.strip()))}


def _parameter(type: str) -> str:
    # As text, as bytes are no parameters of the driver.
    return "UNHEX({})" if type in _BINARY else "{}"


def _converter(row: Any, json: set[str]) -> Converter:
    type, shown = row.type.lower(), row.shown.lower()
    if row.n in json:
        return sql_types.json
    if type in _WHOLE:
        return _tiny if shown.startswith("tinyint(1)") else _whole(type, "unsigned" in shown)
    if type == "bit":
        return partial(sql_types.integer, least=0, most=(1 << int(shown[4:-1])) - 1)
    if type in ("enum", "set"):
        return partial(_labels, frozenset(t.replace("''", "'") for t in _LABEL.findall(row.shown)), type == "set")
    if type in ("char", "varchar"):
        return partial(_short, row.length)
    return _BY_NAME.get(type, sql_types.text)


def _whole(type: str, unsigned: bool) -> Converter:
    bits = _WHOLE[type]
    least, most = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return partial(sql_types.integer, least=least, most=most)


def _tiny(value: Any) -> int:
    """The type that stands for booleans, which they are spelled as too."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return int(value.lower() == "true")
    return sql_types.integer(value, -128, 255)


def _decimal(value: Any) -> str:
    return str(sql_types.decimal(value))


def _float(value: Any) -> str:
    return repr(sql_types.binary_float(value, 32))


def _double(value: Any) -> str:
    return repr(sql_types.binary_float(value))


def _short(length: int, value: Any) -> str:
    found = sql_types.text(value)
    if len(found) > length:
        raise DoesNotFit(f"{sql_types.shown(value)} is longer than {length} characters")
    return found


def _labels(labels: frozenset[str], several: bool, value: Any) -> str:
    """Names of an enum or a set, and no numbers that stand for them."""
    found = sql_types.text(value)
    wanted = [label for label in found.split(",") if label] if several else [found]
    if wrong := [label for label in wanted if label not in labels]:
        raise DoesNotFit(f"{sql_types.shown(wrong[0])} is none of {', '.join(sorted(labels)[:20])}")
    return found


def _octets(value: Any) -> str:
    return sql_types.octets(value).hex()


def _moment(value: Any) -> str:
    return sql_types.utc(value).isoformat(sep=" ")


def _date(value: Any) -> str:
    return sql_types.day(value).isoformat()


def _time(value: Any) -> str:
    """A time of day, or a time span, which the type is made for as well."""
    span = sql_types.parsed_time_span(value) if isinstance(value, str) else None
    if span is None:
        return sql_types.time_of_day(value).isoformat()
    hours = span.days * 24 + span.hours
    if hours > _TIME_HOURS_MAX:
        raise DoesNotFit(f"{sql_types.shown(value)} is longer than {_TIME_HOURS_MAX} hours")
    return f"{span.sign}{hours:02}:{span.minutes:02}:{span.seconds:02}.{span.fraction[:6] or 0}"


def _year(value: Any) -> int:
    return sql_types.integer(value, 1901, 2155)


def _json(value: Any) -> str:
    """JSON of MySQL, which keeps numbers as 64 bits, whole or binary floating-point."""
    _check_numbers(value)
    return sql_types.json(value)


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for one in value.values():
            _check_numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_numbers(one)
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = sql_types.decimal(value)
        whole = number.adjusted() < 19 and number == number.to_integral_value() and INT64_MIN <= number <= INT64_MAX
        if not whole:
            sql_types.binary_float(number)


_WHOLE = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_BINARY = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}
_BY_NAME: Mapping[str, Converter] = {
    "decimal": _decimal,
    "float": _float,
    "double": _double,
    "date": _date,
    "time": _time,
    "datetime": _moment,
    "timestamp": _moment,
    "year": _year,
    "json": _json,
    "uuid": sql_types.guid,
    **dict.fromkeys(_BINARY, _octets),
}
