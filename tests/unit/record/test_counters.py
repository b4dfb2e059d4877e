"""Counters of a database: no value is given twice."""

import pytest

from raftnode.record.commands import AdvanceCounter, SetCounter, counters
from raftnode.record.model import COUNTER_MAX, CommandResult
from tests.unit.record.build import RecordCluster


@pytest.fixture
def cluster() -> RecordCluster:
    made = RecordCluster("A", "B")
    made.create("A", "B")
    return made


def advanced(cluster: RecordCluster, name: str = "users|", count: int = 1, above: int = 0) -> CommandResult:
    return cluster.apply(AdvanceCounter(database="northwind", name=name, count=count, above=above)).result


def test_each_value_is_given_once_whatever_the_case_of_the_name(cluster: RecordCluster) -> None:
    assert [advanced(cluster, name).value for name in ("users|", "Users|", "orders|")] == [1, 2, 1]
    assert advanced(cluster, count=32).value == 34
    assert advanced(cluster, above=1000, count=2).value == 1002
    assert advanced(cluster, above=5).value == 1003
    before = cluster.database().etag
    assert advanced(cluster).value == 1004
    assert cluster.database().etag == before


@pytest.mark.parametrize(
    ("count", "above", "name"),
    [(0, 0, "n"), (-1, 0, "n"), (1, COUNTER_MAX, "n"), (COUNTER_MAX, 1, "n"), (1, 0, ""), (1, 0, "x" * 200)],
)
def test_what_cannot_be_given_is_refused(cluster: RecordCluster, count: int, above: int, name: str) -> None:
    refused = advanced(cluster, name, count, above)
    assert refused.error is not None
    assert not cluster.database().counters


def test_the_last_value_can_be_given(cluster: RecordCluster) -> None:
    assert advanced(cluster, above=COUNTER_MAX - 1).value == COUNTER_MAX
    assert advanced(cluster).error is not None


def test_a_counter_is_set_ahead_and_back_only_if_told_so(cluster: RecordCluster) -> None:
    def put(value: int, *, back: bool = False, given: int | None = None) -> CommandResult:
        return cluster.apply(
            SetCounter(database="Northwind", name="users|", value=value, back=back, given=given)
        ).result

    assert put(10).value == 10
    assert put(5).value == 10
    assert put(5, back=True).value == 5
    assert put(20, given=4).value == 5
    assert put(3, given=5, back=True).value == 3
    assert put(3).value == 3
    assert put(-1).error is not None
    assert put(COUNTER_MAX + 1).error is not None
    assert put(0, back=True).value == 0
    assert advanced(cluster).value == 1


def test_there_are_not_more_than_the_limit(cluster: RecordCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "COUNTERS_MAX", 2)
    advanced(cluster, "a|")
    assert cluster.do(SetCounter(database="Northwind", name="b|", value=7)) == 7
    full = advanced(cluster, "c|")
    assert full.error is not None
    assert "at most 2 identities" in full.error.message
    assert advanced(cluster, "A|").value == 2
    assert "does not exist" in cluster.refused(AdvanceCounter(database="nope", name="a|"))
