"""Why a task is where it is: the rule, the ranking, the log entry and decision that put it there, and its runs."""

import asyncio

from aiohttp import web

from raftnode.foundation import timestamps
from raftnode.foundation.names import fold
from raftnode.record.cause import cause_of
from raftnode.record.grace import grace_min
from raftnode.record.model import GENERATION_STRIDE, Cause, Claim, Database, EndedRun, Record, Task
from raftnode.record.ownership import Placement, PlacementGroup, responsible_node
from raftnode.web.quorum import quorum
from raftnode.web.requests import answer
from raftnode.web.routes.runs import gather_run
from raftnode.web.routes.tasks import named_task
from raftnode.web.services import SERVICES
from raftnode.web.stores import existing_database
from raftnode.web.views.base import epoch, view
from raftnode.web.views.tasks import task_view, waits_for
from raftnode.web.views.why import CauseView, Grant, RunEnd, Why


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.get("/databases/{database}/tasks/{task}/why", why)]


async def why(request: web.Request) -> web.Response:
    """Everything that says why the task of that id or name is where it is. `type=Update` asks about the update of the
    Promotable of that tag."""
    services = request.app[SERVICES]
    record = services.replica.record
    cluster_grace_min = services.settings.cluster.move_to_new_responsible_node_grace_period_min
    database = existing_database(request)
    task = named_task(request, record, database)
    placement = responsible_node(record, database, task)
    claim = record.claims.get(database.claim_key(task))
    cause = cause_of(record, database, task, placement.rule, placement.node, claim)
    known, runs = await asyncio.gather(quorum(request), gather_run(request, database, task))
    shown, _ = task_view(record, database, PlacementGroup(record, database), task, runs.of)
    return answer(
        view(
            Why,
            shown,
            database=database.name,
            because=_because(record, database, task, placement, claim, cluster_grace_min),
            quorum=known,
            grant=_grant(claim),
            cause=view(CauseView, cause, sentence=_sentence(database, task, cause)),
            decisions=[
                decision
                for decision in record.observer.decisions
                if decision.index == cause.index and fold(decision.database) == fold(database.name)
            ],
            runs=_runs(claim),
        )
    )


def _because(
    record: Record,
    database: Database,
    task: Task,
    placement: Placement,
    claim: Claim | None,
    cluster_grace_min: int,
) -> str:
    """One sentence: who should run the task and why, and whether somebody else still does."""
    if database.disabled or task.disabled:
        return f"Nobody runs it: the {'database' if database.disabled else 'task'} is disabled."
    grace = _grace(record, database, task, placement.node, cluster_grace_min)
    sentence = _of_rule(task, placement, grace)
    if claim is not None and claim.state == "Held" and claim.tag != placement.node:
        sentence += f" {claim.tag} still holds epoch {claim.epoch}, until that is released or void."
    elif placement.node is not None and (claim is None or claim.state != "Held"):
        waits = waits_for(database, task, placement.node)
        sentence += f" It waits for {waits}, which is no Member now." if waits else " It is not claimed yet."
    return sentence


def _grace(record: Record, database: Database, task: Task, node: str | None, cluster_min: int) -> str:
    """How long a sticky task stays with that node once it is lost, or from when on it is."""
    minutes = grace_min(database, task, cluster_min)
    since_ms = record.observer.in_rehab_since(database.name, node or "")
    if not since_ms:
        return f"and would wait for it for {minutes} min after its loss"
    until = timestamps.from_ticks((since_ms + minutes * 60_000) * timestamps.TICKS_PER_MS)
    return f"which is in Rehab, for {minutes} min: until {until}"


def _of_rule(task: Task, placement: Placement, grace: str) -> str:
    node = placement.node
    out = ", ".join(f"{r.node} is ruled out ({r.ruled_out})" for r in placement.ranking if r.ruled_out)
    match placement.rule:
        case "PinnedMentor":
            return f"It is pinned to {node}, in whatever state {node} is."
        case "Mentor":
            return f"Its mentor {node} is a Member and may run it."
        case "LicenceKeepsLast":
            return f"Highly available tasks are off, so it stays with its last holder, {node}."
        case "StickyHolder":
            return f"Its kind stays with its last holder, {node}, {grace}."
        case "Hash":
            return f"{node} has the highest score of the nodes that may run it{f'; {out}' if out else ''}."
        case "HeldBack":
            ended = "; ".join(f"epoch {run.epoch} on {run.tag}: {run.reason}" for run in task.endings)
            return (
                f"It is held back, as {len(task.endings)} of its runs have ended their nodes ({ended}). Correct it and "
                f"put it again, or release it unchanged: raftnode task enable '{task.name}'."
            )
        case "NoRunner":
            return (
                f"No node of the group can run the kind {task.kind}: {out}. Install the package that has it "
                f"on {_without_runner(placement)} and start it again, or delete the task."
            )
    return f"No node of the group may run it: {out or 'the group is empty'}."


def _without_runner(placement: Placement) -> str:
    return " or ".join(ranked.node for ranked in placement.ranking if ranked.ruled_out == "NoRunner")


def _grant(claim: Claim | None) -> Grant | None:
    """The log entry that granted the present claim."""
    if claim is None:
        return None
    generation, index = divmod(claim.epoch, GENERATION_STRIDE)
    return Grant(index=index, generation=generation, node=claim.tag, rule=claim.rule or None)


def _sentence(database: Database, task: Task, cause: Cause) -> str:
    match cause.what:
        case "Licence":
            return f"The licence was changed by log entry {cause.index}."
        case "Grace":
            return f"The grace in which it waited for {cause.tag} was ended by log entry {cause.index}."
        case "Task":
            what = "was added, or a field that affects its placement was edited,"
            return f"Task '{task.name}' {what} by log entry {cause.index}."
        case "Node":
            return (
                f"Node {cause.tag} joined, drained, or changed its weight, labels or kinds by log entry {cause.index}."
            )
    return f"The group of '{database.name}' was written by log entry {cause.index}."


def _runs(claim: Claim | None) -> list[RunEnd]:
    """The runs, newest first; the first one may still be held."""
    if claim is None:
        return []
    return [_run(claim), *(_run(run) for run in reversed(claim.runs))]


def _run(run: Claim | EndedRun) -> RunEnd:
    return RunEnd(epoch=epoch(run.epoch), node=run.tag, state=run.state, reason=run.reason or None)
