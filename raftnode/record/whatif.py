"""What if nodes were lost, added, drained, weighed or labelled otherwise: which tasks would move, and which would wait.

The supposition is applied to the record with the very commands that would make it true, the observer's own rule moves
lost nodes to Rehab, and placement, the same as in production, is asked before and after. Nothing is changed by it: the
record is a value.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Annotated, TypeVar

import msgspec

from raftnode.foundation.names import fold
from raftnode.record.commands.base import Command, CommandRefused, Entry, refuse, the_database, the_node
from raftnode.record.commands.cluster import AddNode, SetDraining, SetNodeTraits
from raftnode.record.commands.databases import AddDatabaseNode, PromoteDatabaseNode
from raftnode.record.grace import grace_min
from raftnode.record.model import LABELS_MAX, NODES_MAX, ClusterNode, Database, Record, Task
from raftnode.record.ownership import PlacementGroup, Rule, tasks_of
from raftnode.record.value import RecordValue

T = TypeVar("T")

Tags = Annotated[tuple[str, ...], msgspec.Meta(max_length=NODES_MAX)]
Labels = Annotated[tuple[str, ...], msgspec.Meta(max_length=LABELS_MAX)]


class NewNode(RecordValue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node that would become a Member of the groups: of the cluster already, or new in it."""

    tag: str
    weight: int | None = None
    labels: Labels | None = None


class Scenario(RecordValue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What might happen, in this order: nodes are added, drained or not, weighed and labelled; then some are lost.

    It comes from users only, so a field that is not known is refused: it would be a misspelt one.
    """

    added: Annotated[tuple[NewNode, ...], msgspec.Meta(max_length=NODES_MAX)] = ()
    drained: Tags = ()
    undrained: Tags = ()
    weights: Annotated[Mapping[str, int], msgspec.Meta(max_length=NODES_MAX)] = {}
    labels: Annotated[Mapping[str, Labels], msgspec.Meta(max_length=NODES_MAX)] = {}
    lost: Tags = ()


class TaskMove(RecordValue, frozen=True, kw_only=True):
    """What would become of a task: from which node, None if nobody runs it now, to which, and the rule that names it.
    `reason` says why it would wait there, or at all; None for a task that would run."""

    database: str
    task_id: int
    task_name: str
    task_type: str
    source: str | None = msgspec.field(name="From")
    target: str | None = msgspec.field(name="To")
    rule: Rule
    reason: str | None = None


class Forecast(RecordValue, frozen=True, kw_only=True):
    """The answer: how many enabled tasks were looked at, and what would become of them. Databases by name, tasks by
    id."""

    tasks: int
    moves: tuple[TaskMove, ...]
    waits: tuple[TaskMove, ...]


AfterLoss = Callable[[Record, frozenset[str], int], Record]
"""The record as the observer leaves it once these nodes are silent, with the cluster's grace in minutes:
`observer.rules.decide.after_loss`, which stands above the record."""


def what_if(
    record: Record,
    scenario: Scenario,
    databases: Collection[str] | None = None,
    *,
    after_loss: AfterLoss,
    cluster_grace_min: int,
) -> Forecast:
    """What would become of the tasks of these databases, of all if None. `cluster_grace_min`: see `record.grace`.
    Raises CommandRefused, naming the field, for what is unknown or invalid: a node, a database, a tag, a weight or a
    label."""
    names = record.databases if databases is None else [fold(the_database(record, name).name) for name in databases]
    chosen = sorted(set(names))
    lost, drained = frozenset(scenario.lost), frozenset(scenario.drained)
    joined = _supposed(record, scenario, chosen, skip_present=databases is None)
    supposed = after_loss(joined, lost, cluster_grace_min)
    minority = _minority(supposed, lost)
    found: list[TaskMove] = []
    count = 0
    for folded in chosen:
        before, after = record.databases[folded], supposed.databases[folded]
        if before.disabled:
            continue
        reason = _why_waits(supposed, after, lost, drained, minority, cluster_grace_min)
        for task, source, target, rule in _placements(record, before, supposed, after):
            count += 1
            why = reason(task, target, rule)
            if why is not None or target != source:
                found.append(_move(after, task, source, target, rule, why))
    return Forecast(
        tasks=count,
        moves=tuple(move for move in found if move.reason is None),
        waits=tuple(move for move in found if move.reason is not None),
    )


def _move(
    database: Database, task: Task, source: str | None, target: str | None, rule: Rule, reason: str | None
) -> TaskMove:
    return TaskMove(
        database=database.name,
        task_id=task.id,
        task_name=task.name,
        task_type=task.kind,
        source=source,
        target=target,
        rule=rule,
        reason=reason,
    )


def _placements(
    record: Record, before: Database, supposed: Record, after: Database
) -> Iterator[tuple[Task, str | None, str | None, Rule]]:
    """Each enabled task with its node before and after, and the rule after."""
    now, then = PlacementGroup(record, before), PlacementGroup(supposed, after)
    for task in tasks_of(supposed, after):
        if not task.disabled:
            target, rule = then.place(task)
            yield task, now.place(task)[0], target, rule


def _supposed(record: Record, scenario: Scenario, databases: list[str], *, skip_present: bool) -> Record:
    for node in scenario.added:
        record = _joined(record, node)
        for folded in databases:
            database = record.databases[folded]
            there = node.tag in (*database.topology.all_nodes, *database.deletion_in_progress)
            if there and skip_present:
                continue
            record = _apply(record, "Added", AddDatabaseNode(name=folded, tag=node.tag))
            record = _apply(record, "Added", PromoteDatabaseNode(name=folded, tag=node.tag))
    for tag in scenario.drained:
        record = _apply(record, "Drained", SetDraining(tag=tag, draining=True))
    for tag in scenario.undrained:
        record = _apply(record, "Undrained", SetDraining(tag=tag, draining=False))
    for tag, weight in sorted(scenario.weights.items()):
        record = _apply(record, "Weights", SetNodeTraits(tag=tag, weight=weight))
    for tag, labels in sorted(scenario.labels.items()):
        record = _apply(record, "Labels", SetNodeTraits(tag=tag, labels=labels))
    for tag in scenario.lost:
        _named("Lost", partial(the_node, record, tag))
    return record


def _joined(record: Record, node: NewNode) -> Record:
    if node.tag in record.nodes:
        return _apply(record, "Added", SetNodeTraits(tag=node.tag, weight=node.weight, labels=node.labels))
    # Addresses must differ and nobody asks for these.
    joined = ClusterNode(
        tag=node.tag,
        url=f"supposed:{node.tag}",
        cluster_address=f"supposed:{node.tag}",
        weight=1 if node.weight is None else node.weight,
        labels=node.labels or (),
    )
    return _apply(record, "Added", AddNode(node=joined))


def _apply(record: Record, field: str, command: Command) -> Record:
    return _named(field, lambda: command.apply(record, Entry(record.index + 1, 0)).record)


def _named(field: str, ask: Callable[[], T]) -> T:
    """What is asked for; a refusal names the field."""
    try:
        return ask()
    except CommandRefused as refused:
        refuse(refused.error.type, f"'{field}': {refused.error.message}")


def _minority(record: Record, lost: frozenset[str]) -> str | None:
    """Why nothing at all would run, if the voters that are left are no majority."""
    voters = {node.tag for node in record.nodes.values() if node.kind == "Member"}
    left = len(voters - lost)
    if 2 * left > len(voters):
        return None
    return f"{left} of {len(voters)} voters would be left, which is no majority: no node would have a lease"


def _why_waits(
    record: Record,
    database: Database,
    lost: frozenset[str],
    drained: frozenset[str],
    minority: str | None,
    cluster_grace_min: int,
) -> Callable[[Task, str | None, Rule], str | None]:
    """Why a task that is placed so would wait; the answer is None for one that would run."""
    group = PlacementGroup(record, database)

    def why(task: Task, node: str | None, rule: Rule) -> str | None:
        if minority is not None:
            return minority
        if node is None:
            reasons = ", ".join(f"{tag} {reason}" for tag, reason in group.ruled_out(task).items())
            return f"no node of the group may run it: {reasons or 'it is empty'}"
        if node not in lost and node not in drained:
            return None
        state = f"{node} would be lost" if node in lost else f"{node} would drain: it runs on there until {node} stops"
        match rule:
            case "PinnedMentor":
                return f"it is pinned, and {state}"
            case "LicenceKeepsLast":
                return f"it stays with its last holder, as highly available tasks are off, and {state}"
            case "StickyHolder":
                grace = grace_min(database, task, cluster_grace_min)
                return f"it stays with its last holder for {grace} min, and {state}"
        # Only a lost node can be one that placement does not skip. A suspended observer demotes nobody.
        if record.observer.suspended:
            return f"the observer is suspended and moves no node to Rehab, and {state}"
        return f"no Member of the group would be alive: {state}"

    return why
