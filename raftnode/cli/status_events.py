"""What changed between two looks at `GET /status`, one sentence a change."""

from collections.abc import Iterator

from raftnode.cli.tables import epoch
from raftnode.record.model import Topology
from raftnode.web.views.status import NodeStatus, StatusView
from raftnode.web.views.tasks import TaskShown


def events(before: StatusView | None, after: StatusView) -> list[str]:
    """The sentences; none for the first look."""
    if before is None:
        return []
    found = list(_leader(before.node, after.node))
    for name, database in after.databases.items():
        earlier = before.databases.get(name)
        if earlier is None:
            continue
        found += _topology(name, earlier.topology, database.topology)
        claims = {task.task_id: task for task in earlier.tasks if task.task_id}
        for task in database.tasks:
            if task.task_id in claims:
                found += _task(claims[task.task_id], task)
    return found


def _leader(before: NodeStatus, after: NodeStatus) -> Iterator[str]:
    if after.leader != before.leader:
        yield f"{after.leader} leads now, in term {after.term}"


def _topology(name: str, before: Topology, after: Topology) -> Iterator[str]:
    for tag in (*after.members, *after.rehabs, *after.promotables):
        state = after.state_of(tag)
        if state != before.state_of(tag):
            reason = after.demotion_reasons.get(tag)
            yield f"{tag} is now {state} of {name}" + (f": {reason}" if reason else "")


def _task(before: TaskShown, after: TaskShown) -> Iterator[str]:
    name = after.task_name
    was, now = before.placement.node, after.placement.node
    if was != now:
        instead = f", instead of {was}" if was else ""
        yield f"responsible for {name}: {now or 'nobody'}, by rule {after.placement.rule}{instead}"
    if after.epoch != before.epoch:
        was_under = f", after {epoch(before.epoch)}" if before.epoch else ""
        yield f"{after.last_holder} claimed {name}: epoch {epoch(after.epoch)}{was_under}"
    elif after.claim_state != before.claim_state and after.claim_state != "Held":
        reason = f": {after.reason}" if after.reason else ""
        yield f"epoch {epoch(after.epoch)} of {name} is {(after.claim_state or '').lower()}{reason}"
