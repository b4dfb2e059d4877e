"""JSON values as what a column takes. A value that does not fit is refused with the column's name."""

import base64
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec
from sqlalchemy import types
from sqlalchemy.engine import Dialect

INT64_MAX = (1 << 63) - 1
_FRACTION = re.compile(r"(\.\d{6})\d+")
_TIME_SPAN = re.compile(r"(-)?(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,7})?)")
_TRUE, _FALSE = {"true", "1"}, {"false", "0"}

_T = TypeVar("_T")
Converter = Callable[[Any], Any]


class DoesNotFit(ValueError):
    """A value is nothing that its column could store."""


def converter(column_type: types.TypeEngine[Any], dialect: Dialect) -> Converter:
    """What makes a JSON value fit the column; None (NULL) always fits. Raises DoesNotFit."""
    convert = _converter(column_type, dialect)
    return lambda value: None if value is None else convert(value)


def _converter(column_type: types.TypeEngine[Any], dialect: Dialect) -> Converter:
    if isinstance(column_type, types.DateTime):
        # SQLite has no zones; its dialect stores what the clock says, and that is to be UTC.
        zoned = bool(column_type.timezone) and dialect.name != "sqlite"
        return lambda value: _datetime(value, zoned)
    if isinstance(column_type, types.Numeric) and not isinstance(column_type, types.Float):
        return _float if dialect.name == "sqlite" else _decimal
    for kind, convert in _BY_TYPE:
        if isinstance(column_type, kind):
            return convert
    return _plain


def _boolean(value: Any) -> bool:
    text = str(value).lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise DoesNotFit(f"{_shown(value)} is neither true nor false")


def _integer(value: Any) -> int:
    number = _decimal(value)
    if number != number.to_integral_value():
        raise DoesNotFit(f"{_shown(value)} is no whole number")
    if abs(number) > INT64_MAX:
        raise DoesNotFit(f"{_shown(value)} needs more than 64 bits")
    return int(number)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        return Decimal(int(value))
    try:
        # repr of a float is the shortest decimal that reads as the same number: what the document says.
        number = Decimal(value if isinstance(value, str) else repr(value))
    except (InvalidOperation, ValueError):
        raise DoesNotFit(f"{_shown(value)} is no number") from None
    if not number.is_finite():
        raise DoesNotFit(f"{_shown(value)} is no finite number")
    return number


def _float(value: Any) -> float:
    return float(_decimal(value))


def _datetime(value: Any, zoned: bool) -> datetime:
    moment = _parse(value, lambda text: datetime.fromisoformat(_FRACTION.sub(r"\1", text)), "date and time")
    if zoned:
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _date(value: Any) -> date:
    return _datetime(value, zoned=False).date()


def _time(value: Any) -> time:
    return _parse(value, lambda text: time.fromisoformat(_FRACTION.sub(r"\1", text)), "time of day")


def _interval(value: Any) -> timedelta:
    match = _TIME_SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DoesNotFit(f"{_shown(value)} is no time span like 1.02:03:04.5")
    sign, days, hours, minutes, seconds = match.groups()
    span = timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    return -span if sign else span


def _uuid(value: Any) -> uuid.UUID:
    return _parse(value, uuid.UUID, "UUID")


def _bytes(value: Any) -> bytes:
    return _parse(value, lambda text: base64.b64decode(text, validate=True), "text in base64")


def _text(value: Any) -> str:
    if isinstance(value, str):
        if "\x00" in value:
            raise DoesNotFit("a text with a NUL character is no text for a database")
        return value
    return msgspec.json.encode(value).decode()


def _json(value: Any) -> Any:
    return value


def _plain(value: Any) -> Any:
    """For columns of a type nobody knows: scalars as they are, anything else as JSON text."""
    if isinstance(value, int) and abs(value) > INT64_MAX:
        raise DoesNotFit(f"{_shown(value)} needs more than 64 bits")
    return value if isinstance(value, str | int | float | bool) else _text(value)


def _parse(value: Any, read: Callable[[str], _T], what: str) -> _T:
    if isinstance(value, str):
        try:
            return read(value)
        except ValueError:
            pass
    raise DoesNotFit(f"{_shown(value)} is no {what}")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:60] + "..."


_BY_TYPE: tuple[tuple[type[types.TypeEngine[Any]], Converter], ...] = (
    (types.Boolean, _boolean),
    (types.Integer, _integer),
    (types.Float, _float),
    (types.Date, _date),
    (types.Time, _time),
    (types.Interval, _interval),
    (types.Uuid, _uuid),
    (types.LargeBinary, _bytes),
    (types.JSON, _json),
    (types.ARRAY, _json),
    (types.String, _text),
)
