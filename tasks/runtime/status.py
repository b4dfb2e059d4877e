"""What a node shows of its tasks."""

from typing import Literal

import msgspec

from raftnode.record.model import Progress
from tasks.runtime.body import Body
from tasks.runtime.context import RunFigures
from tasks.runtime.plan import Assignment


class LocalTaskStatus(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a node shows of one of its tasks. `reason` says why it is in this state, `error` what holds it up;
    `behind` counts the changes of the node's copy that it has not looked at, None where it looks at none, and
    `rate_per_s` the documents a second that it has carried over lately."""

    database: str
    name: str
    kind: str
    task_id: int
    node: str
    state: Literal["Running", "Error", "Stopping", "Releasing", "Claiming", "Waiting"]
    reason: str = ""
    epoch: int | None = None
    session: int | None = None
    since: str | None = None
    error: str | None = None
    behind: int | None = None
    rate_per_s: float = 0.0
    progress: Progress | None = None
    info: RunFigures | None = None


def of_body(tag: str, body: Body, session: int | None) -> LocalTaskStatus:
    """Of a run that has begun here and is not released yet. `session` is that of the present lease, None without one;
    only a kind that tolerates partitions goes on in another than its own."""
    goes_on = body.state in ("Running", "Error") and session != body.session
    without = "without a lease" if session is None else f"session {body.session} has ended"
    return LocalTaskStatus(
        database=body.run.database,
        name=body.run.task.name,
        kind=body.run.task.kind,
        task_id=body.run.task.id,
        node=tag,
        state="Releasing" if body.state == "Ended" else body.state,
        reason=f"{without}: it goes on under its last claim, as its kind may" if goes_on else body.reason,
        epoch=body.run.epoch,
        session=body.session,
        since=body.since,
        error=body.info.error,
        behind=body.behind,
        rate_per_s=round(body.rate.per_s(body.info.processed), 1),
        progress=body.progress or body.run.progress,
        info=body.info,
    )


def of_assignment(
    tag: str, assigned: Assignment, state: Literal["Waiting", "Claiming"], *, reason: str = "", error: str | None = None
) -> LocalTaskStatus:
    """Of a task that is this node's and has not begun."""
    task = assigned.task
    return LocalTaskStatus(
        database=assigned.database,
        name=task.name,
        kind=task.kind,
        task_id=task.id,
        node=tag,
        state=state,
        reason=reason,
        error=error,
    )
