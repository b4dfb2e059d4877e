"""The columns of PostgreSQL's tables, and what each type takes.

Every value is sent as text that the server itself reads as the column's type, so that every type works which it has,
also those of extensions. Text is cast to the type without its length, as an explicit cast to varchar(5) or bit(3) cuts
what is too long in silence, while the assignment that follows refuses it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from tasks.sinks.sql import types as sql_types
from tasks.sinks.sql.types import Column, Converter, DoesNotFit

PLACEHOLDER = "${}"
LOWER_CASE = True
NAME_BYTES_MAX = 63
"""PostgreSQL cuts longer names of tables and columns in silence."""
_OID_MAX = (1 << 32) - 1

_RELATIONS = """
SELECT c.oid, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = coalesce($1::text, current_schema()) AND c.relkind IN ('r', 'p', 'v', 'f') ORDER BY c.relname
"""
_COLUMNS = """
SELECT attname, atttypid, format_type(atttypid, atttypmod) AS shown
FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_TYPES = """
WITH RECURSIVE used AS (
  SELECT atttypid AS oid FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped
  UNION
  SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
  FROM used JOIN pg_type t ON t.oid = used.oid WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typlen = -1)
)
SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typcategory, t.typlen, t.typdelim,
  format_type(t.oid, -1) AS shown
FROM used JOIN pg_type t ON t.oid = used.oid
"""
_REFERENCES = """
SELECT DISTINCT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid
"""
_DEFERRABLE = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgdeferrable)"


class PostgresType(msgspec.Struct, frozen=True):
    """A row of pg_type."""

    oid: int
    name: str
    kind: str
    base: int
    element: int
    category: str
    length: int
    delimiter: str
    shown: str

    @property
    def is_array(self) -> bool:
        """Whether it is a real array: name and oidvector have elements as well."""
        return self.category == "A" and self.length == -1 and self.element != 0


def too_long(name: str) -> str | None:
    """See `TargetDialect`."""
    count = len(name.encode(errors="surrogatepass"))
    if count <= NAME_BYTES_MAX:
        return None
    return f"has {count} bytes, and PostgreSQL cuts names at {NAME_BYTES_MAX}: use the name as the database has it"


def relations(connection: sa.Connection, schema: str | None) -> Mapping[str, Hashable]:
    """See `TargetDialect`. A relation is its oid."""
    rows = connection.exec_driver_sql(_RELATIONS, (schema,))
    return {row.relname: row.oid for row in rows}


def columns(connection: sa.Connection, relation: Hashable) -> list[Column]:
    """See `TargetDialect`."""
    types = {row[0]: PostgresType(*map(_plain, row)) for row in connection.exec_driver_sql(_TYPES, (relation,))}
    found = []
    for row in connection.exec_driver_sql(_COLUMNS, (relation,)):
        base = _base(types, row.atttypid)
        found.append(Column(row.attname, row.shown, _converter(types, base), _parameter(types, base)))
    return found


def references(connection: sa.Connection) -> list[tuple[Hashable, Hashable]]:
    """See `TargetDialect`."""
    return [(row[0], row[1]) for row in connection.exec_driver_sql(_REFERENCES)]


def has_deferrable(connection: sa.Connection) -> bool:
    """See `TargetDialect`."""
    return bool(connection.exec_driver_sql(_DEFERRABLE).scalar())


def row_bytes_max(connection: sa.Connection) -> int | None:
    """See `TargetDialect`."""
    return None


def _plain(value: Any) -> Any:
    """The driver gives a "char" as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _base(types: Mapping[int, PostgresType], oid: int) -> PostgresType:
    """The type below all domains. Values go to it; the assignment to the column then checks the domain."""
    found = types[oid]
    return _base(types, found.base) if found.kind == "d" else found


def _parameter(types: Mapping[int, PostgresType], base: PostgresType) -> str:
    text = "CAST({} AS text)"
    element = _base(types, base.element) if base.is_array else base
    if element.name == "money":  # money reads text by the server's locale, and numeric by none
        suffix = "[]" if base.is_array else ""
        return f"CAST(CAST({text} AS numeric{suffix}) AS money{suffix})"
    return text if base.category == "S" else f"CAST({text} AS {base.shown.replace('{', '{{').replace('}', '}}')})"


def _converter(types: Mapping[int, PostgresType], base: PostgresType) -> Converter:
    if base.is_array:
        element = _base(types, base.element)
        nested = element.name not in ("json", "jsonb")
        return partial(_array, _converter(types, element), element.delimiter, nested)
    if base.name in _BY_NAME:
        return _BY_NAME[base.name]
    return sql_types.text


def _array(convert: Converter, delimiter: str, nested: bool, value: Any) -> str:
    if not isinstance(value, list):
        raise DoesNotFit(f"{sql_types.shown(value)} is not a list")
    items = []
    for item in value:
        if item is None:
            items.append("NULL")
        elif nested and isinstance(item, list):
            items.append(_array(convert, delimiter, nested, item))
        else:
            items.append(_quoted(convert(item)))
    return "{" + delimiter.join(items) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _whole(least: int, most: int) -> Converter:
    return lambda value: str(sql_types.integer(value, least, most))


def _boolean(value: Any) -> str:
    return "true" if sql_types.boolean(value) else "false"


def _decimal(value: Any) -> str:
    return str(sql_types.decimal(value))


def _float4(value: Any) -> str:
    return repr(sql_types.binary_float(value, 32))


def _float8(value: Any) -> str:
    return repr(sql_types.binary_float(value))


def _timestamp(value: Any) -> str:
    return sql_types.utc(value).isoformat(sep=" ")


def _timestamptz(value: Any) -> str:
    found = sql_types.moment(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat(sep=" ")


def _date(value: Any) -> str:
    return sql_types.day(value).isoformat()


def _time(value: Any) -> str:
    return sql_types.time_of_day(value).isoformat()


def _timetz(value: Any) -> str:
    found = sql_types.zoned_time_of_day(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _interval(value: Any) -> str:
    return sql_types.time_span(value) or sql_types.text(value)


def _bytea(value: Any) -> str:
    return "\\x" + sql_types.octets(value).hex()


def _character(value: Any) -> str:
    found = sql_types.text(value)
    if len(found.encode()) > 1:
        raise DoesNotFit(f'{sql_types.shown(value)} is longer than the one byte of a "char"')
    return found


def _name(value: Any) -> str:
    found = sql_types.text(value)
    if len(found.encode()) > NAME_BYTES_MAX:
        raise DoesNotFit(f"{sql_types.shown(value)} is longer than the {NAME_BYTES_MAX} bytes of a name")
    return found


def _hstore(value: Any) -> str:
    """An object of texts; other values as their JSON, null as NULL. Text goes as it is."""
    if not isinstance(value, dict):
        return sql_types.text(value)
    items: Sequence[tuple[str, Any]] = tuple(value.items())
    return ",".join(
        f"{_quoted(sql_types.text(key))}=>{'NULL' if item is None else _quoted(sql_types.text(item))}"
        for key, item in items
    )


_BY_NAME: dict[str, Callable[[Any], str]] = {
    "int2": _whole(-(1 << 15), (1 << 15) - 1),
    "int4": _whole(-(1 << 31), (1 << 31) - 1),
    "int8": _whole(sql_types.INT64_MIN, sql_types.INT64_MAX),
    "oid": _whole(0, _OID_MAX),
    # Before version 16, PostgreSQL reads any text as one of these, and cuts numbers.
    "xid": _whole(0, _OID_MAX),
    "cid": _whole(0, _OID_MAX),
    "xid8": _whole(0, (1 << 64) - 1),
    "numeric": _decimal,
    "money": _decimal,
    "float4": _float4,
    "float8": _float8,
    "bool": _boolean,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "date": _date,
    "time": _time,
    "timetz": _timetz,
    "interval": _interval,
    "uuid": sql_types.guid,
    "bytea": _bytea,
    "json": sql_types.json,
    "jsonb": sql_types.json,
    "char": _character,
    "name": _name,
    "hstore": _hstore,
}
