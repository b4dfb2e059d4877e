"""`raftnode status` and `raftnode tasks`: who does what, and why."""

import asyncio
import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterable
from functools import partial

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from raftnode.cli.session import FAILING, Answer, CommandFailed, NotFound, Session, TryAgain, talks
from raftnode.cli.tables import console, epoch, moment, table
from raftnode.web.views.cluster import Quorum
from raftnode.web.views.status import DatabaseStatus, NodeStatus, StatusView
from raftnode.web.views.tasks import TaskShown, TaskStatus

PERIOD_SEC = 0.5
COLOURS = {
    "Running": "green", "Error": "red", "HeldBack": "red", "NoNode": "red", "NotRunning": "red", "Unknown": "yellow",
    "NotClaimed": "yellow", "Disabled": "yellow", "Member": "green", "Rehab": "red",
}  # fmt: skip
TASK_COLUMNS = ("task", "kind", "responsible", "rule", "holder", "epoch", "state", "progress")
FAULTS = ("Error", "HeldBack", "NoNode", "NotRunning")
"""States of a task that is not well. One that is only being moved, or whose node does not answer at once, may be."""


@click.command()
@click.option("--watch", is_flag=True, help="Refresh it until Ctrl-C.")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def status(session: Session, watch: bool, database: str | None) -> None:
    """Show the node, the cluster, the databases and their tasks, with reasons."""
    if not watch:
        answer = await _status(session, database)
        session.show(answer, lambda shown: console().print(_everything(shown, session.url)))
        end_by(answer.shown.cluster.quorum, _all_tasks(answer.shown))
        return
    await _watch(session, database, partial(_everything, url=session.url))


@click.command()
@click.option("--watch", is_flag=True, help="Refresh it until Ctrl-C.")
@click.option("--database", metavar="NAME", help="Only this database.")
@talks
async def tasks(session: Session, watch: bool, database: str | None) -> None:
    """List the ongoing tasks: who is responsible by which rule, who holds them, how far they are."""
    if watch:
        await _watch(session, database, _only_tasks)
        return
    answer = await _status(session, database)
    only_tasks = {name: found["Tasks"] for name, found in answer.json["Databases"].items()}

    session.show(Answer(only_tasks, answer.shown), lambda shown: console().print(_only_tasks(shown)))
    end_by(answer.shown.cluster.quorum, _all_tasks(answer.shown))


def end_by(quorum: Quorum, tasks: Iterable[TaskShown]) -> None:
    """End the command with a code for scripts when there is no leader, or one of the tasks fails."""
    if quorum.leader is None:
        if click.get_current_context().params.get("as_json"):
            click.echo(f"raftnode: {quorum.sentence}", err=True)
        raise click.exceptions.Exit(TryAgain.exit_code)
    if any(fails(task) for task in tasks):
        raise click.exceptions.Exit(FAILING)


def fails(task: TaskShown) -> bool:
    """Whether a task is held up, was when it last told, or has skipped documents. One that is off on purpose is
    well."""
    held_up = task.state in FAULTS or task.error or task.failed
    return task.state != "Disabled" and bool(held_up)


def _all_tasks(answer: StatusView) -> list[TaskStatus]:
    return [task for database in answer.databases.values() for task in database.tasks]


def show_quorum(quorum: Quorum) -> None:
    """Say that there is no leader, and what that means, if so."""
    for line in _quorum(quorum):
        console().print(line)


def _quorum(quorum: Quorum) -> list[RenderableType]:
    return [f"[bold red]{escape(quorum.sentence)}[/]"] if quorum.sentence else []


async def _status(session: Session, database: str | None) -> Answer[StatusView]:
    answer = await session.call("GET", "/status" + (f"?database={database}" if database else ""), StatusView)
    if database and not answer.shown.databases:
        raise NotFound(f"There is no database '{database}'; `raftnode db list` shows those there are.")
    return answer


async def _watch(session: Session, database: str | None, show: Callable[[StatusView], RenderableType]) -> None:
    """Look again and again until Ctrl-C."""
    in_place = console().is_terminal and not session.as_json
    with contextlib.suppress(asyncio.CancelledError):
        await (_refresh if in_place else _stream)(session, database, show)


async def _refresh(session: Session, database: str | None, show: Callable[[StatusView], RenderableType]) -> None:
    """Each look in the place of the one before."""
    with Live(console=console(), auto_refresh=False, screen=True) as live:
        while True:
            try:
                answer = await _status(session, database)
                live.update(show(answer.shown), refresh=True)
            except CommandFailed as failure:
                live.update(f"[red]{escape(failure.message)}[/]", refresh=True)
            await asyncio.sleep(PERIOD_SEC)


async def _stream(session: Session, database: str | None, show: Callable[[StatusView], RenderableType]) -> None:
    """Each look after the one before, with the time of it: JSON in one line, or text for a pipe or a file."""
    while True:
        answer, at = await _status(session, database), time.time()
        if session.as_json:
            click.echo(json.dumps({"At": at} | answer.json))
        else:
            console().print(show(answer.shown), "")
        await asyncio.sleep(PERIOD_SEC)


def _only_tasks(status: StatusView) -> RenderableType:
    parts = [_tasks(found, title=found.name) for found in status.databases.values() if found.tasks]
    return Group(*_quorum(status.cluster.quorum), *(parts or ["No tasks."]))


def _everything(answer: StatusView, url: str) -> RenderableType:
    databases = answer.databases.values()
    head = (*_quorum(answer.cluster.quorum), _node(answer.node, url), _nodes(answer))
    return Group(*head, *(_database(database) for database in databases))


def _node(node: NodeStatus, url: str) -> RenderableType:
    left = node.lease_left_ms
    lease = "lease without end" if left is None else f"lease {left} ms" if node.has_lease else "[red]no lease[/]"
    leader = node.leader or "none known"
    head = (
        f"[bold]{node.tag}[/] at {url}: {coloured(node.role)}, leader {leader}, term {node.term}, {lease},"
        f" applied {node.applied_index} of {node.commit_index}"
    )
    return Group(head, *(f"  [yellow]{escape(reason)}[/]" for reason in node.not_ready))


def _nodes(answer: StatusView) -> Table:
    leader = answer.node.leader
    rows = []
    for tag, node in answer.cluster.nodes.items():
        marks = ["leader"] * (tag == leader) + ["[red]silent[/]"] * bool(node.silent)
        marks += ["draining"] * bool(node.draining)
        rows.append((tag, node.kind, node.url, ", ".join(marks)))
    suspended = "  [yellow]the observer is suspended[/]" if answer.cluster.observer_suspended else ""
    return table(f"cluster{suspended}", ("node", "kind", "address", ""), rows)


def _database(database: DatabaseStatus) -> RenderableType:
    topology = database.topology
    rows = []
    groups = (("Member", topology.members), ("Rehab", topology.rehabs), ("Promotable", topology.promotables))
    for state, tags in groups:
        for tag in tags:
            mentor = database.mentors.get(tag)
            status = topology.promotables_status.get(tag, "")
            filled = f"filled by {mentor}" if mentor and state != "Member" else ""
            why = "; ".join(part for part in (topology.demotion_reasons.get(tag, ""), status, filled) if part)
            rows.append((tag, coloured(state), escape(why)))
    disabled = "  [yellow]disabled[/]" if database.disabled else ""
    group = table(f"\ndatabase [bold]{escape(database.name)}[/]{disabled}", ("node", "state", "why"), rows)
    return Group(group, _tasks(database)) if database.tasks else group


def _tasks(database: DatabaseStatus, title: str = "") -> RenderableType:
    """The table, and below it why tasks are not well."""
    found = database.tasks
    below = [f"  {escape(task.task_name)}: {reason}" for task in found for reason in (*_waiting(task), *trouble(task))]
    return Group(table(escape(title), TASK_COLUMNS, [_task_row(task) for task in found]), *below)


def _waiting(task: TaskStatus) -> list[str]:
    """What the task waits for, as the node that was asked knows of its own tasks."""
    here = task.run_here
    return [escape(here.reason)] if here and here.reason and task.state == here.state == "Waiting" else []


def trouble(task: TaskShown) -> list[str]:
    """Why the task is not well, one line each, as markup."""
    on = [f"on {task.holder}"] if task.holder else []
    told = [] if task.state in ("Error", "HeldBack") else ["when it last told"]
    name = escape(shlex.quote(task.task_name))
    where = f" ({', '.join([*on, *told])})" if on or told else ""
    return [
        *([f"[yellow]waits for {task.waits_for}[/] ({task.placement.rule})"] if task.waits_for else []),
        *([f"[red]{escape(task.error)}[/]{where}"] if task.error else []),
        *([f"[yellow]{escape(task.unknown)}[/]"] if task.unknown else []),
        *([f"[yellow]{_failed(task)}[/]; raftnode task failed {name}"] if task.failed else []),
    ]


def over(task: TaskShown) -> list[str]:
    """What held the task up last and does no more, one line, as markup."""
    figures = task.figures
    if task.error or not figures.last_error:
        return []
    at = f" at {moment(figures.last_error_at)} UTC" if figures.last_error_at else ""
    return [f"The last error{at} is over: {escape(figures.last_error)}"]


def fares(task: TaskShown) -> str:
    """How far a task is: "up to date", "98 %, 12 left, 340/s", "up to date, 1 failed", "next at 2026-01-31 … UTC"."""
    figures, parts = task.figures, []
    if task.state == "Unknown":
        parts = ["not known"]
    elif task.behind is not None:
        done = [f"{figures.percent:g} %"] if figures.percent is not None else []
        parts = [*done, f"{task.behind:,} left"] if task.behind else ["up to date"]
    if task.behind and round(figures.rate_per_sec or 0):
        parts.append(f"{figures.rate_per_sec:,.0f}/s")
    if figures.next_run and task.state != "Disabled":
        parts.append(f"next at {moment(figures.next_run)} UTC")
    return ", ".join([*parts, *([f"{task.failed:,} failed"] if task.failed else [])])


def _failed(task: TaskShown) -> str:
    count = task.failed
    return f"{count:,} document{'s are' if count > 1 else ' is'} skipped"


def _task_row(task: TaskShown) -> tuple[str, ...]:
    placement = task.placement
    holder = task.holder or (f"({task.last_holder} before)" if task.last_holder else "")
    state = coloured(task.state)
    if task.task_state == "PartiallyEnabled":
        state += ", [yellow]in part[/]"
    return (
        escape(task.task_name),
        task.task_type,
        placement.node or "[red]nobody[/]",
        placement.rule,
        holder,
        epoch(task.epoch),
        state,
        fares(task),
    )


def coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else word
