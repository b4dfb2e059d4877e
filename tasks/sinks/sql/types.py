"""JSON values as what columns take: what all databases have in common. A value that does not fit is refused.

Numbers come as int and Decimal, so that no digit of a document is lost on the way. A column keeps
all of them, or the value is refused; only to what a column itself declares (the scale of a numeric, a real) is rounded.
"""

import base64
import math
import re
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeVar

import msgspec

from raftnode.foundation import timestamps
from tasks.kinds.registry import TaskFailed

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_FRACTION = re.compile(r"(\.\d{6})\d+")
_TRUE, _FALSE = {"true", "1"}, {"false", "0"}

_encoder = msgspec.json.Encoder(decimal_format="number")

_T = TypeVar("_T")
Converter = Callable[[Any], Any]


class DoesNotFit(ValueError):
    """A value is nothing that its column could store."""


class NotWritable(TaskFailed):
    """What a transform writes cannot be written as its tables are now, whatever the document: a table or a column is
    missing, or the target refuses the statement. Transforms that write other tables can go on."""


class Column(msgspec.Struct, frozen=True):
    """A column of a target. `type` is as the database writes it; `parameter` is what stands for a value in a statement,
    with {} for the placeholder; `convert` takes any JSON value but null and raises DoesNotFit. `exact_text`: texts that
    are not the same may compare equal there."""

    name: str
    type: str
    convert: Converter
    parameter: str = "{}"
    exact_text: bool = False

    def take(self, value: Any) -> Any:
        """What the driver takes for a JSON value; null is NULL in every type."""
        if value is None:
            return None
        try:
            return self.convert(value)
        except DoesNotFit:
            raise
        except (ValueError, ArithmeticError, TypeError, RecursionError) as error:
            raise DoesNotFit(f"{shown(value)} cannot be stored as {self.type}: {error}") from None


def boolean(value: Any) -> bool:
    """True and false, as such, as text, or as 1 and 0."""
    found = str(value).lower()
    if found in _TRUE | _FALSE:
        return found in _TRUE
    raise DoesNotFit(f"{shown(value)} is neither true nor false")


def integer(value: Any, least: int = INT64_MIN, most: int = INT64_MAX) -> int:
    """A whole number between two bounds, also as text or as 5.0."""
    number = decimal(value)
    if number and number.adjusted() > 40:  # 1E9999999 would need all its digits to be compared
        raise DoesNotFit(f"{shown(value)} is not between {least} and {most}")
    if number != number.to_integral_value():
        raise DoesNotFit(f"{shown(value)} is not a whole number")
    if not least <= number <= most:
        raise DoesNotFit(f"{shown(value)} is not between {least} and {most}")
    return int(number)


def decimal(value: Any) -> Decimal:
    """A finite number of any length, also as text; true is 1."""
    if isinstance(value, bool):
        return Decimal(int(value))
    if isinstance(value, Decimal):
        return value
    try:
        # repr of a float is the shortest decimal that reads as the same number.
        number = Decimal(value if isinstance(value, str) else repr(value))
    except (InvalidOperation, ValueError):
        raise DoesNotFit(f"{shown(value)} is not a number") from None
    if not number.is_finite():
        raise DoesNotFit(f"{shown(value)} is not a finite number")
    return number


def binary_float(value: Any, width: Literal[32, 64] = 64, exact: str = "numeric or text") -> float:
    """A number that a column of binary floats keeps. A fraction is rounded to 32 bits, as the column declares. `exact`
    names the types of the target that keep every digit."""
    number = decimal(value)
    rounded = float(number)
    if width == 32:
        if number.adjusted() < 38 and number != number.to_integral_value():
            return rounded
        rounded = _single(rounded)
    if not _reads_as(rounded, number, 17 if width == 64 else 9):
        raise DoesNotFit(
            f"{shown(value)} has digits that a binary float of {width} bits does not keep; declare the column {exact}, "
            "or round in the script: Number(...)"
        )
    return rounded


def _single(number: float) -> float:
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return float("inf")
    return float(rounded)


def _reads_as(rounded: float, number: Decimal, digits_max: int) -> bool:
    """Whether a float says all that the decimal says, written with as many digits."""
    if Decimal(repr(rounded)) == number or Decimal(rounded) == number:
        return True
    digits = len("".join(map(str, number.as_tuple().digits)).strip("0"))
    return digits <= digits_max and math.isfinite(rounded) and Decimal(f"{rounded:.{max(digits, 1) - 1}e}") == number


def moment(value: Any) -> datetime:
    """A date and time in ISO 8601, with or without an offset; beyond the microsecond it is cut."""
    return _parse(value, lambda text: datetime.fromisoformat(_FRACTION.sub(r"\1", text)), "date and time")


def utc(value: Any) -> datetime:
    """A date and time as UTC has it, without an offset."""
    found = moment(value)
    try:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except OverflowError:
        raise DoesNotFit(f"{shown(value)} is outside of the years 1 to 9999 in UTC") from None


def day(value: Any) -> date:
    """The date of a date and time, in UTC."""
    return utc(value).date()


def time_of_day(value: Any) -> time:
    """A time without an offset."""
    found = zoned_time_of_day(value)
    if found.tzinfo is not None:
        raise DoesNotFit(f"{shown(value)} has an offset, and the column has none")
    return found


def zoned_time_of_day(value: Any) -> time:
    """A time with or without an offset."""
    return _parse(value, lambda text: time.fromisoformat(_FRACTION.sub(r"\1", text)), "time of day")


def time_span(value: Any) -> str | None:
    """A time span of .NET ([-][d.]hh:mm[:ss[.fffffff]]) as days and time that PostgreSQL reads; None for another text.
    Beyond the microsecond it is cut."""
    if not isinstance(value, str):
        raise DoesNotFit(f"{shown(value)} is not a time span like 1.02:03:04.5")
    span = parsed_time_span(value)
    if span is None:
        return None
    clock = f"{span.hours:02}:{span.minutes:02}:{span.seconds:02}.{span.fraction[:6]}"
    return f"{span.sign}{span.days} days {span.sign}{clock}"


def parsed_time_span(text: str) -> timestamps.TimeSpan | None:
    """The parts of a time span of .NET; None for another text."""
    span = timestamps.time_span(text)
    if span is not None and (span.hours > 23 or span.minutes > 59 or span.seconds > 59):
        raise DoesNotFit(f"{shown(text)} is not a time span like 1.02:03:04.5")
    return span


def guid(value: Any) -> str:
    """A UUID in lower case with hyphens."""
    return str(_parse(value, uuid.UUID, "UUID"))


def octets(value: Any) -> bytes:
    """Bytes, given as text in base64."""
    return _parse(value, lambda given: base64.b64decode(given, validate=True), "base64 string")


def text(value: Any) -> str:
    """Text as it is; anything else as its JSON."""
    found = value if isinstance(value, str) else json(value)
    if "\x00" in found:
        raise DoesNotFit("text with a NUL character cannot be stored in a database")
    return found


def json(value: Any) -> str:
    """The JSON of a value, with every digit of its numbers."""
    return _encoder.encode(value).decode()


def shown(value: Any) -> str:
    """A value as errors show it."""
    found = json(value)
    return found if len(found) <= 60 else found[:60] + "..."


def _parse(value: Any, read: Callable[[str], _T], what: str) -> _T:
    if isinstance(value, str):
        try:
            return read(value)
        except ValueError:
            pass
    raise DoesNotFit(f"{shown(value)} is not a {what}")
