"""JSON values as what columns take: the parts that need no database."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tasks.sinks.sql import sqlite as sql_sqlite
from tasks.sinks.sql import types as sql_types
from tasks.sinks.sql.types import Column, DoesNotFit

LONG = Decimal("0.12345678901234567890123456789012345")


@pytest.mark.parametrize(
    ("convert", "value", "converted"),
    [
        (sql_types.integer, 5, 5),
        (sql_types.integer, Decimal("5.0"), 5),
        (sql_types.integer, "1e3", 1000),
        (sql_types.integer, True, 1),
        (sql_types.integer, 2**63 - 1, 2**63 - 1),
        (sql_types.integer, -(2**63), -(2**63)),
        (sql_types.decimal, "1e3", Decimal(1000)),
        (sql_types.decimal, LONG, LONG),
        (sql_types.binary_float, Decimal("0.1"), 0.1),
        (sql_types.binary_float, Decimal("0.10000000000000001"), 0.1),
        (sql_types.binary_float, 2**60, float(2**60)),
        (sql_types.binary_float, Decimal("1E+22"), 1e22),
        (sql_types.binary_float, Decimal("5E-324"), 5e-324),
        (lambda v: sql_types.binary_float(v, 32), Decimal("0.3333333333333333"), 0.3333333333333333),
        (lambda v: sql_types.binary_float(v, 32), 16777216, 16777216.0),
        (sql_types.boolean, "True", True),
        (sql_types.boolean, 0, False),
        (sql_types.text, Decimal("12.50"), "12.50"),
        (sql_types.text, {"a": [1, None, Decimal("0.1234567890123456789")]}, '{"a":[1,null,0.1234567890123456789]}'),
        (sql_types.utc, "1996-07-04T01:02:03.1234567", datetime(1996, 7, 4, 1, 2, 3, 123456)),
        (sql_types.utc, "1996-07-04T01:02:03+02:00", datetime(1996, 7, 3, 23, 2, 3)),
        (sql_types.time_span, "1.02:03:04.5", "1 days 02:03:04.5"),
        (sql_types.time_span, "-00:00:01", "-0 days -00:00:01.0"),
        (sql_types.time_span, "two days", None),
    ],
)  # fmt: skip
def test_a_value_that_fits_keeps_its_digits(convert: Callable[[Any], Any], value: Any, converted: Any) -> None:
    result = convert(value)
    assert (result, type(result)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("convert", "value", "reason"),
    [
        (sql_types.integer, "x", '"x" is not a number'),
        (sql_types.integer, {"a": 1}, "is not a number"),
        (sql_types.integer, Decimal("1.5"), "1.5 is not a whole number"),
        (sql_types.integer, 2**63, "is not between"),
        (sql_types.integer, "1E9999999", "is not between"),
        (sql_types.decimal, "NaN", "not a finite number"),
        (sql_types.decimal, "1e9999999999999999999999", "is not a"),
        (sql_types.binary_float, 2**53 + 1, "digits that a binary float of 64 bits does not keep"),
        (sql_types.binary_float, Decimal("0.1234567890123456789"), r"round in the script: Number\(...\)"),
        (sql_types.binary_float, "1e400", "declare the column numeric or text, or round"),
        (sql_sqlite.converter("NUMERIC", strict=False), Decimal("1E+400"), "declare the column TEXT, or round"),
        (sql_sqlite.converter("REAL", strict=False), Decimal("1E+400"), "declare the column TEXT, or round"),
        (sql_types.binary_float, Decimal("1E-400"), "does not keep"),
        (lambda v: sql_types.binary_float(v, 32), 16777217, "32 bits does not keep"),
        (lambda v: sql_types.binary_float(v, 32), Decimal("1E+39"), "32 bits does not keep"),
        (sql_types.boolean, "perhaps", "neither true nor false"),
        (sql_types.moment, "yesterday", "not a date and time"),
        (sql_types.utc, "0001-01-01T00:00:00+01:00", "outside of the years 1 to 9999 in UTC"),
        (sql_types.utc, "9999-12-31T23:59:59-01:00", "outside of the years 1 to 9999 in UTC"),
        (sql_types.day, 12, "not a date and time"),
        (sql_types.time_of_day, "noon", "not a time of day"),
        (sql_types.time_of_day, "12:00:00+01:00", "has an offset"),
        (sql_types.time_span, "24:00", "not a time span"),
        (sql_types.guid, "1", "not a UUID"),
        (sql_types.octets, "?", "not a base64 string"),
        (sql_types.text, "a\x00b", "NUL"),
        (sql_types.integer, "y" * 200, r"y\.\.\. is not a number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_reason(
    convert: Callable[[Any], Any], value: Any, reason: str
) -> None:
    with pytest.raises(DoesNotFit, match=reason):
        convert(value)


@pytest.mark.parametrize("error", [OverflowError, ArithmeticError, TypeError, ValueError, RecursionError])
def test_whatever_a_conversion_raises_is_the_value_s_fault_only(error: type[Exception]) -> None:
    def fails(value: Any) -> Any:
        raise error("too much")

    with pytest.raises(DoesNotFit, match="7 cannot be stored as int: too much"):
        Column("c", "int", fails).take(7)
    assert Column("c", "int", fails).take(None) is None


@pytest.mark.parametrize(
    ("value", "kept"), [("12", True), ("12.5", True), ("x", True), ("1.2.3", True), ("007", False), ("1e3", False)]
)
def test_text_that_an_affinity_would_change_is_refused(value: str, kept: bool) -> None:
    convert = sql_sqlite.converter("CODE", strict=False)
    if kept:
        assert convert(value) == value
    else:
        with pytest.raises(DoesNotFit, match="would become a number"):
            convert(value)
    assert sql_sqlite.converter("ANY", strict=True)(value) == value
