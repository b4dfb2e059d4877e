"""How a task fares, the same from whatever node is asked: its state, what holds it up, what it has passed over, and how
far it is behind. The holder tells; what it last told every node stands in for it when it does not answer."""

from typing import Any

from raftnode.record.model import Database, Task, claim_key
from raftnode.record.ownership import held_back
from raftnode.web.routes.runs import Runs


def add_state(database: Database, task: Task, shown: dict[str, Any], runs: Runs) -> dict[str, Any] | None:
    """Adds to what `views.task` shows: State, Error, Failed, Behind and Unknown. Returns the run, None if nobody tells.

    `State` is the run's, "Error" also while only a part of the task is held up, or says why there is no run. `Failed`
    counts the documents that are passed over. `Behind` counts changes, None while nobody tells; `Unknown` says why.
    """
    key = claim_key(database.name, task.kind, task.name)
    run, unknown = runs.of(key, shown["Holder"] or runs.parts.tag)
    told = shown["Progress"] or {}
    info = (run or {}).get("Info")
    shown["State"] = _word(database, task, shown, run, unknown)
    shown["Error"] = (run["Error"] if run else _why_held_back(task) or told.get("Error")) or None
    shown["Failed"] = info["Failed"] if info else told.get("Failed", 0)
    shown["Behind"] = run["Behind"] if run else None
    shown["Unknown"] = unknown
    return run


def _why_held_back(task: Task) -> str | None:
    if not held_back(task):
        return None
    last = task.endings[-1]
    return (
        f"held back, as {len(task.endings)} of its runs ended their nodes, the last one {last.tag}: {last.reason}; "
        f"correct it and put it again, or let it go as it is: raftnode task enable {task.name}"
    )


def _word(
    database: Database, task: Task, shown: dict[str, Any], run: dict[str, Any] | None, unknown: str | None
) -> str:
    if run is not None:
        failing = run["Error"] and run["State"] == "Running"
        return "Error" if failing else str(run["State"])
    if database.disabled or task.disabled:
        return "Disabled"
    if unknown is not None:
        return "Unknown"
    if held_back(task):
        # Also while the claim of the process that it has ended still stands.
        return "HeldBack"
    if shown["Holder"] is not None:
        return "NotRunning"
    return "NotClaimed" if shown["Placement"]["Node"] else "NoNode"
