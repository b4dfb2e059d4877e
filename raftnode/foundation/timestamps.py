"""Times and time spans as RavenDB writes them.

A timestamp is UTC, to the tick: "2026-01-31T12:00:00.0000000Z". Later ones sort after earlier ones as text, too. A time
span is .NET's: "[-][days.]hours:minutes[:seconds[.fraction]]".
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

TICKS_PER_SECOND = 10_000_000
SECONDS_KEPT = 64
"""Documents that are looked at one after the other were mostly written within few seconds."""
TICKS_PER_MS = TICKS_PER_SECOND // 1_000
NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{7})Z\Z")
_TIME_SPAN = re.compile(r"(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?", re.ASCII)


def now() -> str:
    """The wall clock."""
    return of(datetime.now(UTC))


def in_s(seconds: float) -> str:
    """The wall clock that many seconds from now."""
    return of(datetime.now(UTC) + timedelta(seconds=seconds))


def of(moment: datetime) -> str:
    """The timestamp of a time in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}0Z"


def from_ticks(ticks: int) -> str:
    """The timestamp so many ticks after the beginning of 1970."""
    seconds, fraction = divmod(ticks, TICKS_PER_SECOND)
    return f"{_to_the_second(seconds)}.{fraction:07d}Z"


@lru_cache(maxsize=64)
def _to_the_second(seconds: int) -> str:
    """Thousands of documents are written within a second, and strftime takes longer than all else about a time."""
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


def to_ticks(text: str) -> int:
    """The ticks since 1970 of a timestamp. Raises ValueError for anything else."""
    match = _TIMESTAMP.match(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time like 2026-01-31T12:00:00.0000000Z")
    return _seconds(match[1]) * TICKS_PER_SECOND + int(match[2])


@lru_cache(SECONDS_KEPT)
def _seconds(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return int((moment - _EPOCH) // timedelta(seconds=1))


class TimeSpan(NamedTuple):
    """`sign` is "-" or empty, and `fraction` the digits behind the point."""

    sign: str
    days: int
    hours: int
    minutes: int
    seconds: int
    fraction: str

    @property
    def total_s(self) -> float:
        """All of it in seconds."""
        whole = timedelta(days=self.days, hours=self.hours, minutes=self.minutes, seconds=self.seconds)
        return float(f"{self.sign}1") * (whole.total_seconds() + float(f"0.{self.fraction}"))


def time_span(text: str) -> TimeSpan | None:
    """The parts of a time span, None for another text. Whether they are in range, is not looked at."""
    match = _TIME_SPAN.fullmatch(text)
    if match is None:
        return None
    sign, days, hours, minutes, seconds, fraction = match.groups()
    return TimeSpan(sign or "", int(days or 0), int(hours), int(minutes), int(seconds or 0), fraction or "0")


def span_of(seconds: float) -> str:
    """The time span of so many seconds, not negative: "1.02:03:04.5000000"."""
    ticks = round(seconds * TICKS_PER_SECOND)
    whole, fraction = divmod(ticks, TICKS_PER_SECOND)
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return (f"{days}." if days else "") + text + (f".{fraction:07d}" if fraction else "")
