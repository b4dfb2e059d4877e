"""When a backup is due: cron expressions in a time zone.

Daylight saving follows Debian's cron (and cronsim): a run at a fixed time that the clock skips runs at the end of the
gap, one whose time the clock shows twice runs at the first; a run by intervals (`*` or `*/n` as minute or hour) goes on
by the hours that really pass.
"""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = 5


class CronInvalid(ValueError):
    """The expression is no cron expression of five fields, or never comes due."""


class Due(NamedTuple):
    """The next run: when, and whether it is a full one."""

    at: datetime
    full: bool


class Schedule:
    """The two frequencies of a backup, None for one that is not given. Raises CronInvalid."""

    def __init__(self, full: str | None, incremental: str | None, zone: str = "UTC") -> None:
        self._full, self._incremental, self._zone = full, incremental, ZoneInfo(zone)
        for expression in (full, incremental):
            if expression:
                after(expression, datetime.now(UTC), self._zone)

    def next(self, created: datetime, last_full: datetime | None, last_incremental: datetime | None) -> Due:
        """The first run after the last ones, which may be long ago: then it is overdue, and however many were missed,
        one makes up for them. If both are due in the same minute, it is the full one."""
        dues = []
        if self._full:
            dues.append(Due(after(self._full, last_full or created, self._zone), True))
        if self._incremental:
            last = max((time for time in (last_full, last_incremental) if time is not None), default=created)
            dues.append(Due(after(self._incremental, last, self._zone), False))
        return min(dues, key=lambda due: (due.at, not due.full))


def after(expression: str, moment: datetime, zone: ZoneInfo) -> datetime:
    """The first time after the moment, in UTC. Raises CronInvalid."""
    if len(expression.split()) != FIELDS:
        raise CronInvalid(f"'{expression[:80]}' must have {FIELDS} fields: minute hour day month weekday")
    try:
        return next(CronSim(expression, moment.astimezone(zone))).astimezone(UTC)
    except CronSimError as error:
        raise CronInvalid(f"'{expression[:80]}' is no cron expression: {error}") from None
    except StopIteration:
        raise CronInvalid(f"'{expression[:80]}' never comes due") from None
