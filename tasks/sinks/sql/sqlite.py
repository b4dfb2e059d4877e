"""The columns of SQLite's tables, and what each declared type takes.

SQLite keeps any value in any column and changes it by the column's affinity (https://www.sqlite.org/datatype3.html).
What a type's name promises is checked here; what the affinity would change in silence is refused.
"""

import re
from collections.abc import Hashable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa

from tasks.sinks.sql import types as sql_types
from tasks.sinks.sql.types import INT64_MAX, INT64_MIN, Column, Converter, DoesNotFit

PLACEHOLDER = "?"
LOWER_CASE = False
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class SqliteRelation(msgspec.Struct, frozen=True):
    """A table or view by the attached file's name and its own."""

    schema: str
    name: str


def too_long(name: str) -> str | None:
    """See `TargetDialect`."""
    return None


def relations(connection: sa.Connection, schema: str | None) -> Mapping[str, Hashable]:
    """See `TargetDialect`. A schema is an attached file."""
    rows = connection.exec_driver_sql("SELECT schema, name FROM pragma_table_list WHERE type IN ('table', 'view')")
    wanted = (schema or "main").lower()
    return {row.name: SqliteRelation(row.schema, row.name) for row in rows if row.schema.lower() == wanted}


def columns(connection: sa.Connection, relation: Hashable) -> list[Column]:
    """See `TargetDialect`. Generated columns too."""
    assert isinstance(relation, SqliteRelation)
    where = (relation.name, relation.schema)
    strict = connection.exec_driver_sql(
        "SELECT strict FROM pragma_table_list WHERE name = ? AND schema = ? COLLATE NOCASE", where
    ).scalar()
    rows = connection.exec_driver_sql("SELECT name, type FROM pragma_table_xinfo(?, ?)", where)
    return [Column(row.name, row.type, converter(row.type, strict=bool(strict))) for row in rows]


def references(connection: sa.Connection) -> list[tuple[Hashable, Hashable]]:
    """See `TargetDialect`. Foreign keys are not checked."""
    return []


def has_deferrable(connection: sa.Connection) -> bool:
    """See `TargetDialect`."""
    return False


def row_bytes_max(connection: sa.Connection) -> int | None:
    """See `TargetDialect`."""
    return None


def converter(declared: str, *, strict: bool) -> Converter:
    """What a column of a declared type takes."""
    name = declared.upper().partition("(")[0].strip()
    if strict and name == "ANY":
        return _plain
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith("TIMESTAMP"):
        return _moment
    if "INT" in name and name != "POINT":
        return sql_types.integer
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return sql_types.text
    if "BLOB" in name or not name:
        return _plain
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return _float
    return _unchanged


def _number(value: Any) -> int | float:
    """A number as SQLite keeps it: 64 bits, whole or binary floating-point."""
    number = sql_types.decimal(value)
    if number.adjusted() < 19 and number == number.to_integral_value() and INT64_MIN <= number <= INT64_MAX:
        return int(number)
    return _float(number)


def _float(value: Any) -> float:
    return sql_types.binary_float(value, exact="TEXT")


def _moment(value: Any) -> str:
    # SQLite has no zones: what its clock says is to be UTC.
    return sql_types.utc(value).isoformat(sep=" ", timespec="microseconds")


def _date(value: Any) -> str:
    return sql_types.day(value).isoformat()


def _time(value: Any) -> str:
    return sql_types.time_of_day(value).isoformat(timespec="microseconds")


def _interval(value: Any) -> str:
    if sql_types.time_span(value) is None:
        raise DoesNotFit(f"{sql_types.shown(value)} is not a time span like 1.02:03:04.5")
    return sql_types.text(value)


def _plain(value: Any) -> Any:
    """Scalars as they are, anything else as its JSON."""
    if isinstance(value, bool):
        return int(value)
    return _number(value) if isinstance(value, int | float | Decimal) else sql_types.text(value)


def _unchanged(value: Any) -> Any:
    """A scalar for a column of numeric affinity, which makes a number of any text that reads as one."""
    taken = _plain(value)
    if isinstance(taken, str) and _NUMBER.fullmatch(taken) and not _stays(taken):
        raise DoesNotFit(f"{sql_types.shown(value)} would become a number, by its affinity; declare the column TEXT")
    return taken


def _stays(text: str) -> bool:
    """Whether the number that SQLite makes of the text is written in the same way."""
    number = Decimal(text.strip())
    if number == number.to_integral_value():
        return number.adjusted() < 19 and INT64_MIN <= number <= INT64_MAX and str(int(number)) == text
    return repr(float(number)) == text


_BY_NAME: dict[str, Converter] = {
    **dict.fromkeys(("BOOL", "BOOLEAN"), sql_types.boolean),
    **dict.fromkeys(("NUMERIC", "DECIMAL", "DEC", "NUMBER", "MONEY", "SMALLMONEY", "CURRENCY", "BIT"), _number),
    **dict.fromkeys(("DATETIME", "DATETIME2", "SMALLDATETIME", "DATETIMEOFFSET"), _moment),
    "DATE": _date,
    "TIME": _time,
    **dict.fromkeys(("INTERVAL", "TIMESPAN"), _interval),
    **dict.fromkeys(("GUID", "UUID", "UNIQUEIDENTIFIER"), sql_types.guid),
    **dict.fromkeys(("JSON", "JSONB"), sql_types.json),
    **dict.fromkeys(("BLOB", "BINARY", "VARBINARY", "BYTEA", "IMAGE"), sql_types.octets),
}
