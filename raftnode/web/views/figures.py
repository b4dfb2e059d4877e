"""How far a task is, for people: one struct for status, info, the command line and the Studio."""

from raftnode.record.model import Progress
from raftnode.web.views.base import View
from raftnode.web.views.runs import RunView


class TaskFigures(View, frozen=True, kw_only=True):
    """`left` counts the changes of the holder's copy that the task has not looked at, `percent` is how much of the copy
    it has: both are null while nobody tells, and for tasks that look at no changes. `rate_per_sec` counts the documents
    that it has carried over lately, a second. `last_error` is what held it up last, or holds it up now. `next_run` is
    when it goes on, if it rests until then: the next backup, or the next try after an error."""

    percent: float | None = None
    left: int | None = None
    rate_per_sec: float | None = None
    last_error: str | None = None
    last_error_at: str | None = None
    next_run: str | None = None


def figures(run: RunView | None, made: Progress | None) -> TaskFigures:
    """Of a run as its holder tells, or of what it last told every node if that does not answer."""
    if run is None or run.info is None:
        error = (made.error or None) if made else None
        return TaskFigures(last_error=error, last_error_at=made.at if made and error else None)
    info = run.info
    return TaskFigures(
        percent=percent(info.seen_etag, run.behind),
        left=run.behind,
        rate_per_sec=run.rate_per_s,
        last_error=info.error or info.last_error,
        last_error_at=info.last_error_at,
        next_run=info.next_run,
    )


def percent(seen: int | None, left: int | None) -> float | None:
    """How much is done, to a tenth, and 100 only when nothing is left."""
    if seen is None or left is None:
        return None
    return 100.0 if left == 0 else min(99.9, int(1000 * seen / (seen + left)) / 10)
