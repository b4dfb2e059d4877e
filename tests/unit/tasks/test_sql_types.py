"""JSON values as what columns take."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import types
from sqlalchemy.engine import Dialect, make_url

from tasks.sql_types import DoesNotFit, converter

PG: Dialect = make_url("postgresql+asyncpg://").get_dialect()()
LITE: Dialect = make_url("sqlite+aiosqlite://").get_dialect()()


@pytest.mark.parametrize(
    ("column", "value", "converted"),
    [
        (types.Integer(), 5, 5),
        (types.Integer(), 5.0, 5),
        (types.Integer(), "12", 12),
        (types.Integer(), True, 1),
        (types.BigInteger(), 2**63 - 1, 2**63 - 1),
        (types.Numeric(10, 2), 32.38, Decimal("32.38")),
        (types.Numeric(10, 2), "1e3", Decimal("1000")),
        (types.Float(), 1, 1.0),
        (types.Boolean(), True, True),
        (types.Boolean(), 0, False),
        (types.Boolean(), "True", True),
        (types.String(5), "abc", "abc"),
        (types.String(), 12.5, "12.5"),
        (types.Text(), {"a": [1, None]}, '{"a":[1,null]}'),
        (types.Text(), True, "true"),
        (types.DateTime(), "1996-07-04T01:02:03.1234567", datetime(1996, 7, 4, 1, 2, 3, 123456)),
        (types.DateTime(), "1996-07-04T01:02:03+02:00", datetime(1996, 7, 3, 23, 2, 3)),
        (types.DateTime(timezone=True), "1996-07-04T01:02:03", datetime(1996, 7, 4, 1, 2, 3, tzinfo=UTC)),
        (types.DateTime(), "1996-07-04", datetime(1996, 7, 4)),
        (types.Date(), "1996-07-04T00:00:00.0000000", date(1996, 7, 4)),
        (types.Time(), "01:02:03.1234567", time(1, 2, 3, 123456)),
        (types.Interval(), "1.02:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        (types.Interval(), "-00:00:01", timedelta(seconds=-1)),
        (types.Uuid(), "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (types.LargeBinary(), "aGk=", b"hi"),
        (types.JSON(), {"a": 1}, {"a": 1}),
        (types.ARRAY(types.Integer), [1, 2], [1, 2]),
        (types.NullType(), {"a": 1}, '{"a":1}'),
        (types.NullType(), 1.5, 1.5),
        (types.Integer(), None, None),
    ],
)
def test_a_value_that_fits_becomes_what_the_driver_wants(column: Any, value: Any, converted: Any) -> None:
    result = converter(column, PG)(value)
    assert (result, type(result)) == (converted, type(converted))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (types.Integer(), "x", '"x" is no number'),
        (types.Integer(), 1.5, "1.5 is no whole number"),
        (types.Integer(), 2**63, "more than 64 bits"),
        (types.NullType(), 2**63, "more than 64 bits"),
        (types.Integer(), {"a": 1}, "is no number"),
        (types.Numeric(), "NaN", "no finite number"),
        (types.Boolean(), "perhaps", "neither true nor false"),
        (types.DateTime(), "yesterday", "no date and time"),
        (types.Date(), 12, "no date and time"),
        (types.Time(), "noon", "no time of day"),
        (types.Interval(), "long", "no time span"),
        (types.Uuid(), "1", "no UUID"),
        (types.LargeBinary(), "?", "no text in base64"),
        (types.Text(), "a\x00b", "NUL"),
        (types.Integer(), "y" * 200, r"y\.\.\. is no number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_reason(column: Any, value: Any, reason: str) -> None:
    with pytest.raises(DoesNotFit, match=reason):
        converter(column, PG)(value)


def test_sqlite_takes_floats_for_decimals_and_utc_for_zones() -> None:
    assert converter(types.Numeric(), LITE)("1.5") == 1.5
    assert converter(types.DateTime(timezone=True), LITE)("1996-07-04T01:00:00+01:00") == datetime(1996, 7, 4)
