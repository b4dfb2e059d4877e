"""Times and time spans as RavenDB writes them."""

from datetime import UTC, datetime, timedelta

import pytest

from raftnode.foundation import timestamps
from raftnode.foundation.timestamps import TICKS_PER_MS, TICKS_PER_SECOND, TimeSpan, time_span


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (0, "1970-01-01T00:00:00.0000000Z"),
        (1, "1970-01-01T00:00:00.0000001Z"),
        (17_698_608_001_234_567, "2026-01-31T12:00:00.1234567Z"),
    ],
)
def test_a_timestamp_is_its_ticks_and_back(ticks: int, text: str) -> None:
    assert (timestamps.from_ticks(ticks), timestamps.to_ticks(text)) == (text, ticks)


def test_a_time_is_the_timestamp_of_its_microseconds() -> None:
    assert timestamps.of(datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)) == "2026-01-31T12:00:00.1234560Z"
    assert timestamps.of(datetime(2026, 1, 31, tzinfo=UTC)) == "2026-01-31T00:00:00.0000000Z"


def test_now_is_now() -> None:
    read = datetime.fromtimestamp(timestamps.to_ticks(timestamps.now()) / TICKS_PER_SECOND, UTC)
    assert abs(read - datetime.now(UTC)) < timedelta(seconds=10)
    assert TICKS_PER_MS * 1000 == TICKS_PER_SECOND


@pytest.mark.parametrize(
    "text", ["", "2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.1234567", "2026-13-31T12:00:00.1234567Z"]
)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time like|month must be"):
        timestamps.to_ticks(text)


@pytest.mark.parametrize(
    ("text", "span", "seconds"),
    [
        ("00:00:15", TimeSpan("", 0, 0, 0, 15, "0"), 15.0),
        ("1.02:03:04.5", TimeSpan("", 1, 2, 3, 4, "5"), 93784.5),
        ("-0:01:00.0000001", TimeSpan("-", 0, 0, 1, 0, "0000001"), -60.0000001),
        ("10:20", TimeSpan("", 0, 10, 20, 0, "0"), 37200.0),
    ],
)
def test_a_time_span_is_read_as_dotnet_writes_it(text: str, span: TimeSpan, seconds: float) -> None:
    assert time_span(text) == span
    assert span.total_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "15", "two days", "1:2:3:4", "00:00:15\n", "٠:٠:١"])
def test_what_is_no_time_span_is_none(text: str) -> None:
    assert time_span(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (59.5, "00:00:59.5000000"), (93784, "1.02:03:04"), (7200.0000001, "02:00:00.0000001")],
)
def test_a_time_span_is_written_as_dotnet_reads_it(seconds: float, text: str) -> None:
    assert timestamps.span_of(seconds) == text
    span = time_span(text)
    assert span is not None
    assert span.total_s == pytest.approx(seconds)
