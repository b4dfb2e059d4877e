"""Ongoing tasks: who is responsible and why, who holds them, how they fare. Every answer shows the same placement."""

import shlex
from collections.abc import Callable, Sequence

from raftnode.foundation import masking
from raftnode.foundation.decoding import from_python_json
from raftnode.record.model import Database, FailedDocument, Record, Task
from raftnode.record.ownership import Placement, PlacementGroup, held_back
from raftnode.web.views.base import Committed, Json, View, view
from raftnode.web.views.base import epoch as as_text
from raftnode.web.views.databases import NodeId, node_id
from raftnode.web.views.figures import TaskFigures, figures
from raftnode.web.views.progress import ProgressView, progress
from raftnode.web.views.runs import RunView

Told = Callable[[str, str | None], tuple[RunView | None, str | None]]
"""What is known of a run by claim key and holder, and why it is not known."""


class RankedView(View, frozen=True, kw_only=True):
    """A node of the group, and why it could not be picked. Scores are text, as they take 64 bits."""

    node: str
    state: str
    score: str
    ruled_out: str | None = None


class PlacementView(View, frozen=True, kw_only=True):
    """The responsible node, the rule that named it, and the group by descending score."""

    node: str | None
    rule: str
    ranking: Sequence[RankedView] = ()


class TaskShown(View, frozen=True, kw_only=True):
    """A task wherever one is shown: the responsible node, the claim, how it fares.

    `holder` is the node of a held claim; `last_holder` survives it. `state` is the run's, "Error" also while only a
    part of the task is held up, or says why there is no run. `failed` counts the documents that are skipped.
    `behind` counts changes, null while nobody tells; `unknown` says why. `waits_for` is the node for which a task waits
    that nobody runs: one that is no Member at present. `figures` are how far it is, for people.
    """

    task_id: int
    task_name: str
    task_type: str
    task_state: str
    placement: PlacementView
    holder: str | None = None
    last_holder: str | None = None
    epoch: str | None = None
    claim_state: str | None = None
    session: int | None = None
    reason: str | None = None
    progress: ProgressView | None = None
    state: str
    error: str | None = None
    failed: int = 0
    behind: int | None = None
    unknown: str | None = None
    waits_for: str | None = None
    figures: TaskFigures = TaskFigures()


class TaskView(TaskShown, frozen=True, kw_only=True):
    """A task with what the record has besides."""

    task_key: str
    etag: int
    responsible_node: NodeId | None
    mentor_node: str | None
    pin_to_mentor_node: bool
    requires: Sequence[str]


class TaskStatus(TaskView, frozen=True, kw_only=True):
    """A task in a node's status, with its run on that node."""

    run_here: RunView | None


class TaskInfo(TaskView, frozen=True, kw_only=True):
    """RavenDB's task info, with the run on whatever node."""

    task_connection_status: str
    run: RunView | None
    configuration: Json


class TaskList(View, frozen=True, kw_only=True):
    """The tasks of a database."""

    ongoing_tasks: list[TaskInfo]
    subscriptions_count: int
    pull_replications: tuple[()] = ()


class TaskChanged(Committed, frozen=True, kw_only=True):
    """A task was changed. `warnings` are of what was done, but may not be meant."""

    task_id: int
    responsible_node: str | None
    warnings: Sequence[str] = ()


class TaskReset(Committed, frozen=True, kw_only=True):
    """A task begins again."""

    task_id: int


class FailedDocuments(View, frozen=True, kw_only=True):
    """The documents that a task has skipped, oldest first. `unlisted` counts the others; `told_by` is the node that
    listed them, null where its answer is missing, and `unknown` says why."""

    task_id: int
    task_name: str
    task_type: str
    failed: int
    documents: Sequence[FailedDocument]
    unlisted: int
    told_by: str | None
    unknown: str | None


def task_view(
    record: Record, database: Database, group: PlacementGroup, task: Task, told: Told
) -> tuple[TaskView, RunView | None]:
    """A task, and its run, None if nobody tells. `group` is the database's. The holder tells; what it last told every
    node stands in for it when it does not answer."""
    placed = group.placement(task)
    key = database.claim_key(task)
    claim = record.claims.get(key)
    holder = claim.tag if claim is not None and claim.state == "Held" else None
    made = database.progress.get(task.id)
    run, unknown = told(key, holder)
    shown = TaskView(
        task_id=task.id,
        task_name=task.name,
        task_type=task.kind,
        task_key=str(task.key),
        task_state=task_state(task),
        etag=task.etag,
        responsible_node=None if placed.node is None else node_id(record, placed.node),
        placement=placement(placed),
        mentor_node=task.mentor,
        pin_to_mentor_node=task.pinned,
        requires=task.requires,
        holder=holder,
        last_holder=claim.tag if claim else None,
        epoch=as_text(claim.epoch) if claim else None,
        claim_state=claim.state if claim else None,
        session=claim.session if claim else None,
        reason=(claim.reason or None) if claim else None,
        progress=progress(made) if made else None,
        state=_state(database, task, placed, holder, run, unknown),
        error=(run.error if run else _why_held_back(task) or (made.error if made else None)) or None,
        failed=run.info.failed if run and run.info else made.failed if made else 0,
        behind=run.behind if run else None,
        unknown=unknown,
        figures=figures(run, made),
        waits_for=waits_for(database, task, placed.node) if holder is None else None,
    )
    return shown, run


def waits_for(database: Database, task: Task, node: str | None) -> str | None:
    """The node for which the task waits, if it is enabled, placed there, and the node is no Member at present."""
    off = database.disabled or task.disabled
    return node if node is not None and not off and node not in database.topology.members else None


def placement(placed: Placement) -> PlacementView:
    """Who is responsible for a task and why."""
    ranking = [view(RankedView, ranked, score=str(ranked.score)) for ranked in placed.ranking]
    return PlacementView(node=placed.node, rule=placed.rule, ranking=ranking)


def task_state(task: Task) -> str:
    """RavenDB's TaskState: a task with some transforms disabled is partially enabled."""
    disabled = [bool(transform.get("Disabled")) for transform in transforms(task.configuration)]
    if task.disabled or (disabled and all(disabled)):
        return "Disabled"
    return "PartiallyEnabled" if any(disabled) else "Enabled"


def transforms(configuration: bytes) -> list[Json]:
    """The transforms of a task whose kind has some; none of another's."""
    given = from_python_json(configuration).get("Transforms")
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def configuration(task: Task) -> Json:
    """The task's configuration with the fields that the record rules over, and its secrets masked."""
    given: Json = masking.masked(from_python_json(task.configuration))
    return given | {
        "TaskId": task.id,
        "Name": task.name,
        "Disabled": task.disabled,
        "MentorNode": task.mentor,
        "PinToMentorNode": task.pinned,
    }


def no_such_task(database: Database, what: str) -> str:
    """A sentence that names the tasks there are."""
    known = ", ".join(f"{t.id} ({t.name})" for t in sorted(database.tasks.values(), key=lambda t: t.id)[:10])
    return f"Database '{database.name}' has no {what}. Its tasks: {known or 'none'}."


def _why_held_back(task: Task) -> str | None:
    if not held_back(task):
        return None
    last = task.endings[-1]
    return (
        f"held back, as {len(task.endings)} of its runs ended their nodes, the last one {last.tag}: {last.reason}; "
        f"correct it and put it again, or release it unchanged: raftnode task enable {shlex.quote(task.name)}"
    )


def _state(
    database: Database, task: Task, placed: Placement, holder: str | None, run: RunView | None, unknown: str | None
) -> str:
    if run is not None:
        return "Error" if run.error and run.state == "Running" else run.state
    if database.disabled or task.disabled:
        return "Disabled"
    if unknown is not None:
        return "Unknown"
    if held_back(task):
        # Also while the claim of the process that it has ended still stands.
        return "HeldBack"
    if holder is not None:
        return "NotRunning"
    return "NotClaimed" if placed.node else "NoNode"
