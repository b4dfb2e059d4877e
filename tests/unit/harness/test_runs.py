"""The proof that no two runs overlap must itself find overlaps."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.runs import Interval, Span, Witness, assert_no_overlap, read

TASK = "db/SqlEtl/orders"


def journal(directory: Path, *lines: tuple[str, int, int, int], torn: str = "") -> Path:
    """A node's journal of (event, epoch, from, to)."""
    directory.mkdir()
    rows: list[dict[str, Any]] = [
        {"task": TASK, "epoch": epoch, "node": directory.name, "event": event, "from_ns": a, "to_ns": b}
        for event, epoch, a, b in lines
    ]
    (directory / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    return directory


def test_runs_one_after_the_other_pass(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("start", 1, 10, 10), ("active", 1, 10, 20), ("end", 1, 20, 20))
    b = journal(tmp_path / "B", ("start", 2, 20, 20), ("active", 2, 20, 30), ("end", 2, 30, 30))
    runs = read({"A": a, "B": b}, Witness())
    assert runs == {TASK: [Interval(10, 20, TASK, "A", 1), Interval(20, 30, TASK, "B", 2)]}
    assert_no_overlap(runs, ["orders"])


def test_two_runs_at_once_are_found(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("active", 1, 10, 21), ("end", 1, 21, 21))
    b = journal(tmp_path / "B", ("active", 2, 20, 30), ("end", 2, 30, 30))
    with pytest.raises(AssertionError, match="two runs at once"):
        assert_no_overlap(read({"A": a, "B": b}, Witness()), ["orders"])


def test_two_runs_at_once_on_one_node_are_found(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("active", 1, 10, 21), ("active", 2, 20, 30), ("end", 1, 21, 21), ("end", 2, 30, 30))
    with pytest.raises(AssertionError, match="two runs at once"):
        assert_no_overlap(read({"A": a}, Witness()), ["orders"])


def test_a_long_run_that_meets_a_later_one_over_a_third_is_found(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("active", 1, 10, 11), ("active", 1, 12, 50), ("end", 1, 50, 50))
    b = journal(tmp_path / "B", ("active", 2, 40, 60), ("end", 2, 60, 60))
    with pytest.raises(AssertionError, match="two runs at once"):
        assert_no_overlap(read({"A": a, "B": b}, Witness()), ["orders"])


def test_the_last_interval_of_a_killed_node_lasts_until_its_death(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("start", 1, 10, 10), ("active", 1, 10, 20))
    runs = read({"A": a}, Witness(lives={"A": [Span(1, 5), Span(6, 35), Span(36, 90)]}))
    assert max(i.to_ns for i in runs[TASK]) == 35


def test_time_in_which_a_node_stood_still_is_not_running(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("start", 1, 10, 10), ("active", 1, 10, 40), ("frozen", 1, 12, 14))
    witness = Witness(lives={"A": [Span(1, 60)]}, freezes={"A": [Span(20, 30), Span(45, None)]})
    spans = [(i.from_ns, i.to_ns) for i in read({"A": a}, witness)[TASK]]
    assert spans == [(10, 12), (14, 20), (30, 40), (40, 45)]


def test_a_line_that_a_killed_node_left_half_written_is_passed_over(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("active", 1, 10, 20), ("end", 1, 20, 20), torn='{"task": "db')
    assert len(read({"A": a}, Witness())[TASK]) == 1


def test_a_task_that_never_ran_proves_nothing(tmp_path: Path) -> None:
    a = journal(tmp_path / "A", ("active", 1, 10, 20), ("end", 1, 20, 20))
    with pytest.raises(AssertionError, match="invoices never ran"):
        assert_no_overlap(read({"A": a}, Witness()), ["orders", "invoices"])
