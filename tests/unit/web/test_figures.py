"""How far a task is, for people: the figures, what the command line makes of them, and RavenDB's progress of ETLs."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftnode.cli.status import fares, over
from raftnode.record.model import Progress, Task
from raftnode.web.views.etl_progress import etl_task_progress
from raftnode.web.views.figures import TaskFigures, figures, percent
from raftnode.web.views.runs import RunInfo, RunView
from raftnode.web.views.tasks import PlacementView, TaskShown
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.test_two_nodes import eventually


def run(behind: int | None = 0, rate_per_s: float = 0.0, **info: Any) -> RunView:
    return RunView(
        database="Shop",
        name="t",
        kind="SqlEtl",
        task_id=1,
        node="A",
        state="Running",
        behind=behind,
        rate_per_s=rate_per_s,
        info=RunInfo(**info),
    )


@pytest.mark.parametrize(
    ("seen", "left", "shown"),
    [(None, 3, None), (3, None, None), (0, 0, 100.0), (999_999, 1, 99.9), (1, 2, 33.3), (0, 5, 0.0)],
)
def test_a_hundred_percent_is_when_nothing_is_left(seen: int | None, left: int | None, shown: float | None) -> None:
    assert percent(seen, left) == shown


def test_the_holder_tells_and_the_record_does_when_it_is_silent() -> None:
    told = figures(run(5, 12.5, seen_etag=15, last_error="it was down", last_error_at="then"), None)
    assert told == TaskFigures(percent=75.0, left=5, rate_per_sec=12.5, last_error="it was down", last_error_at="then")
    made = Progress(generation=1, error="it is down", at="2026")
    assert figures(None, made) == TaskFigures(last_error="it is down", last_error_at="2026")
    assert figures(None, Progress(generation=1, at="2026")) == figures(None, None) == TaskFigures()


@pytest.mark.parametrize(
    ("state", "shown", "says"),
    [
        ("Running", run(0, 7.0, seen_etag=9), "up to date"),
        ("Running", run(1200, 340.4, seen_etag=58_800), "98 %, 1,200 left, 340/s"),
        ("Running", run(1, 0.0, seen_etag=1), "50 %, 1 left"),
        ("Running", run(1, 0.3, seen_etag=1), "50 %, 1 left"),
        (
            "Error",
            run(1, seen_etag=0, next_run="2026-01-31T12:00:05.1230000Z"),
            "0 %, 1 left, next at 2026-01-31 12:00:05 UTC",
        ),
        ("Running", run(None, next_run="2026-01-31T12:00:05.1230000Z"), "next at 2026-01-31 12:00:05 UTC"),
        ("Unknown", None, "not known"),
    ],
)
def test_a_line_says_how_a_task_fares(state: str, shown: RunView | None, says: str) -> None:
    task = TaskShown(
        task_id=1,
        task_name="t",
        task_type="SqlEtl",
        task_state="Enabled",
        placement=PlacementView(node="A", rule="Hash"),
        state=state,
        behind=shown.behind if shown else None,
        figures=figures(shown, None),
    )
    assert fares(task) == says
    assert fares(msgspec.structs.replace(task, failed=2)) == f"{says}, 2 failed"


def test_an_error_that_is_over_is_told_as_such() -> None:
    figures_then = TaskFigures(last_error="the target [x] was down", last_error_at="2026-01-31T12:00:05.1230000Z")
    task = TaskShown(
        task_id=1,
        task_name="t",
        task_type="SqlEtl",
        task_state="Enabled",
        placement=PlacementView(node="A", rule="Hash"),
        state="Running",
        figures=figures_then,
    )
    assert over(task) == [r"The last error at 2026-01-31 12:00:05 UTC is over: the target \[x] was down"]
    assert over(msgspec.structs.replace(task, error="it is")) == []
    assert over(msgspec.structs.replace(task, figures=TaskFigures())) == []


def test_progress_of_an_etl_has_a_process_for_each_script() -> None:
    configuration = b'{"Transforms": [{"Name": "a"}, {"Name": "b", "Disabled": true}, {"Name": "c"}]}'
    task = Task(id=1, name="t", kind="SqlEtl", key=1, configuration=configuration)
    holder = run(10, 3.0, seen_etag=90, details={"Transforms": [{"Name": "A", "SeenEtag": 100}, {"Name": "b"}]})
    shown = etl_task_progress(task, holder, figures(holder, None))
    assert (shown.task_name, shown.etl_type) == ("t", "Sql")
    assert [
        (p.transformation_name, p.completed, p.disabled, p.number_of_documents_to_process, p.total_number_of_documents)
        for p in shown.processes_progress
    ] == [("a", True, False, 0, 100), ("b", False, True, 100, 100), ("c", False, False, 10, 100)]
    for silent in (None, run(None)):
        told = etl_task_progress(task, silent, figures(silent, None))
        assert [p.completed for p in told.processes_progress] == [False, False, False]


async def test_the_next_backup_is_the_next_run_of_its_task(tmp_path: Path) -> None:
    backup = {
        "Name": "nightly",
        "FullBackupFrequency": "0 2 * * *",
        "LocalSettings": {"FolderPath": str(tmp_path / "b")},
    }
    async with running(settings_in(tmp_path / "data")) as node:
        await node.database()
        await node.post("/databases/Shop/admin/periodic-backup", backup)

        async def waits() -> bool:
            [task] = (await node.get("/databases/Shop/tasks")).json["OngoingTasks"]
            next_run: str | None = task["Figures"]["NextRun"]
            return next_run is not None and next_run == task["NextBackup"]["DateTime"]

        await eventually("the next run is known", waits)
