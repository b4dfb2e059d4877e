"""When a backup is due."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.kinds.backup.schedule import CronInvalid, Due, Schedule

NIGHTLY, HOURLY = "0 2 * * *", "0 * * * *"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(schedule: Schedule, moment: datetime, count: int) -> list[str]:
    """The following full backups, in UTC."""
    found = []
    for _ in range(count):
        moment = schedule.next(moment, moment, None).at
        found.append(f"{moment:%d %H:%M}")
    return found


def test_check_32_a_full_and_an_incremental_backup_due_in_the_same_minute_are_one_full_one() -> None:
    schedule = Schedule(NIGHTLY, HOURLY)
    due = schedule.next(at("2026-05-01T00:30"), at("2026-05-01T02:00"), at("2026-05-02T01:00"))
    assert due == Due(at("2026-05-02T02:00"), full=True)
    assert schedule.next(at("2026-05-01T00:30"), due.at, at("2026-05-02T01:00")) == Due(at("2026-05-02T03:00"), False)


def test_the_first_backup_is_counted_from_when_the_task_was_made() -> None:
    assert Schedule(NIGHTLY, None).next(at("2026-05-01T03:00"), None, None) == Due(at("2026-05-02T02:00"), True)
    assert Schedule(None, HOURLY).next(at("2026-05-01T03:00"), None, None) == Due(at("2026-05-01T04:00"), False)


def test_however_many_were_missed_one_makes_up_for_them() -> None:
    schedule, now = Schedule(NIGHTLY, HOURLY), at("2026-05-20T12:34")
    due = schedule.next(at("2026-04-01T00:00"), at("2026-05-01T02:00"), at("2026-05-01T09:00"))
    assert due.at < now
    after = schedule.next(at("2026-04-01T00:00"), now, at("2026-05-01T09:00"))
    assert after == Due(at("2026-05-20T13:00"), full=False)


def test_a_fixed_time_that_the_clock_skips_is_made_up_for_at_the_end_of_the_gap() -> None:
    """On 29 March 2026 the clock of Berlin goes from 2:00 to 3:00, which is 1:00 in UTC."""
    berlin = Schedule("30 2 * * *", None, "Europe/Berlin")
    assert times(berlin, at("2026-03-27T12:00"), 3) == ["28 01:30", "29 01:00", "30 00:30"]


def test_a_fixed_time_that_the_clock_shows_twice_is_the_first() -> None:
    """On 25 October 2026 the clock of Berlin goes from 3:00 to 2:00, which is 1:00 in UTC."""
    berlin = Schedule("30 2 * * *", None, "Europe/Berlin")
    assert times(berlin, at("2026-10-23T12:00"), 3) == ["24 00:30", "25 00:30", "26 01:30"]


@pytest.mark.parametrize("start", ["2026-03-28T22:00", "2026-10-24T22:00"])
def test_intervals_go_on_by_the_hours_that_pass(start: str) -> None:
    berlin, moment = Schedule("*/30 * * * *", None, "Europe/Berlin"), at(start)
    for _ in range(12):
        following = berlin.next(moment, moment, None).at
        assert following - moment == timedelta(minutes=30)
        moment = following


def test_a_time_zone_is_that_of_the_configuration_whatever_the_node_has() -> None:
    assert times(Schedule(NIGHTLY, None, "Asia/Kolkata"), at("2026-05-01T00:00"), 1) == ["01 20:30"]


@pytest.mark.parametrize("text", ["", "* * * *", "0 2 * * * *", "61 * * * *", "x", "0 0 30 2 *", "@daily"])
def test_what_is_no_cron_expression_of_five_fields_is_refused(text: str) -> None:
    with pytest.raises(CronInvalid):
        Schedule(text or " ", None)
