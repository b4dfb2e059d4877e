"""What this node should do about tasks now: a pure function of the record, its lease and what it runs.

The rules, each of which closes a hole (see docs/guarantees.md):
- one claim, one epoch, one body; an epoch that was started here, or whose stop has begun, never runs again;
- a grant starts a body only if this process proposed it in the present session;
- a claim of an earlier process of this node is another's: that process may live yet, if the directory was copied;
- a body whose epoch is not the record's stops at once; when the session ends all bodies stop, but partition-tolerant
  ones, which go on as long as the record that this node has names it and holds their claim; if that was void meanwhile,
  the node tells how long they went on;
- a task is claimed only when every body of its old run here has ended, and an ended run is released by its epoch;
- a body restarts only if its task, or its connection string, was edited: then under a new claim.
"""

from collections.abc import Mapping, Set
from typing import Literal

import msgspec

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.foundation.names import fold
from raftnode.record.commands.claims import ran_on
from raftnode.record.model import Claim, Database, Record, Task
from raftnode.record.ownership import UPDATE_KIND, PlacementGroup, task_of, tasks_of

Fingerprint = tuple[int, int, int]
"""Etags of task and connection string, and the task's key: a body is started again when it changes."""


class Assignment(msgspec.Struct, frozen=True):
    """A task for which this node is responsible."""

    database: str
    task: Task
    fingerprint: Fingerprint


class OwnRun(msgspec.Struct, frozen=True):
    """A run of this process that has not been released yet. `Ended`: its body, threads and subprocesses are gone."""

    epoch: int
    session: int
    fingerprint: Fingerprint
    state: Literal["Running", "Stopping", "Ended"]
    partition_tolerant: bool = False


class ProposeClaim(msgspec.Struct, frozen=True):
    """Propose a claim of this task in the present session."""

    key: str
    assigned: Assignment
    session: int


class Start(msgspec.Struct, frozen=True):
    """Start a body under this epoch."""

    key: str
    assigned: Assignment
    epoch: int
    session: int


class Stop(msgspec.Struct, frozen=True):
    """Begin to stop the body of this run."""

    key: str
    reason: str


class Release(msgspec.Struct, frozen=True):
    """Propose the release of this epoch until it is applied."""

    key: str
    epoch: int
    reason: str


class Forget(msgspec.Struct, frozen=True):
    """The run has ended and the record knows: nothing is left to do for it."""

    key: str


class Wait(msgspec.Struct, frozen=True):
    """The task is this node's, but another run must end first."""

    key: str
    assigned: Assignment
    reason: str


Action = ProposeClaim | Start | Stop | Release | Forget | Wait


class PlanInput(msgspec.Struct, frozen=True):
    """What `action` sees beside the one task it is asked about.

    `session` is the number of the present lease, None without one. `claiming` are the keys whose claim is being
    proposed, `spent` the epochs that were started here, `alive` those of the bodies that have not been forgotten yet.
    """

    record: Record
    own: NodeIncarnation
    session: int | None
    claiming: Set[str] = frozenset()
    spent: Set[int] = frozenset()
    alive: Set[int] = frozenset()


def plan(
    record: Record,
    own: NodeIncarnation,
    session: int | None,
    bodies: Mapping[str, OwnRun],
    *,
    claiming: Set[str] = frozenset(),
    spent: Set[int] = frozenset(),
    assigned: Mapping[str, Assignment] | None = None,
) -> list[Action]:
    """The next actions, at most one for each task: `action` asked about every key that may need one.

    The supervisor asks `action` itself, about the keys that are due. This is what it must come to: the tests of the
    plan read it, and those of the supervisor compare the two.

    `bodies` are the runs of this process by claim key; `assigned` is `assignments_of_node(record, own)`, which the
    caller may have remembered.
    """
    assigned = assignments_of_node(record, own) if assigned is None else assigned
    plan_input = PlanInput(record, own, session, claiming, spent, {body.epoch for body in bodies.values()})
    keys = dict.fromkeys((*bodies, *assigned, *held_here(record, own)))
    actions = (action(plan_input, key, bodies.get(key), assigned.get(key)) for key in keys)
    return [one for one in actions if one is not None]


def action(plan_input: PlanInput, key: str, body: OwnRun | None, assignment: Assignment | None) -> Action | None:
    """What to do next about one task. It depends on nothing but the arguments and, of the record, on the claim of this
    key and the one of the body's epoch: whoever asks again when one of these has changed misses nothing."""
    record, own, session = plan_input.record, plan_input.own, plan_input.session
    if body is not None:
        return _about_body(record, own, session, key, body, assignment)
    if key in plan_input.claiming:
        return None
    if assignment is not None:
        return (
            _about_task(record, own, session, key, assignment, plan_input.alive, plan_input.spent)
            if session is not None
            else None
        )
    claim = record.claims.get(key)
    if claim is None or not _mine(claim, own) or claim.epoch in plan_input.alive:
        return None
    return Release(key, claim.epoch, "this node is not responsible, and no body of this epoch runs")


def held_here(record: Record, own: NodeIncarnation) -> list[str]:
    """The keys of the claims that this node holds."""
    return [key for key, claim in record.claims.items() if _mine(claim, own)]


def _about_body(
    record: Record, own: NodeIncarnation, session: int | None, key: str, body: OwnRun, assignment: Assignment | None
) -> Action | None:
    if body.state == "Ended":
        # The claim of a renamed task stands under another key; only the epoch tells.
        holder = record.claims.get(record.held.get(body.epoch, ""))
        late = body.partition_tolerant and ran_on(record, key, body.epoch)
        return (
            Release(key, body.epoch, "the body has ended") if late or _holds(holder, own, body.epoch) else Forget(key)
        )
    if body.state == "Stopping":
        return None
    reason = _why_stop(record, own, session, key, body, assignment)
    return Stop(key, reason) if reason else None


def _why_stop(
    record: Record, own: NodeIncarnation, session: int | None, key: str, body: OwnRun, assignment: Assignment | None
) -> str | None:
    claim = record.claims.get(key)
    if not _holds(claim, own, body.epoch):
        state = f"is {claim.state.lower()} by {claim.tag}'s epoch {claim.epoch}" if claim else "is gone"
        return f"epoch {body.epoch} is over: the claim {state}"
    if session != body.session and not body.partition_tolerant:
        return "the lease has ended" if session is None else f"session {body.session} has ended"
    if assignment is None:
        return f"this node is not responsible any more: {why_not(record, key)}"
    if assignment.fingerprint != body.fingerprint:
        return "the task or its connection string was edited, or a retry was requested"
    return None


def _about_task(
    record: Record,
    own: NodeIncarnation,
    session: int,
    key: str,
    assignment: Assignment,
    alive: Set[int],
    spent: Set[int],
) -> Action:
    claim = record.claims.get(key)
    if claim is None or claim.state != "Held":
        return ProposeClaim(key, assignment, session)
    if not _mine(claim, own):
        return Wait(key, assignment, f"{_holder(claim, own)} holds epoch {claim.epoch} until it is released or void")
    if claim.epoch in alive:
        return Wait(key, assignment, f"the run of epoch {claim.epoch} under the task's old name has not ended yet")
    if claim.session != session:
        return ProposeClaim(key, assignment, session)
    if claim.epoch in spent:
        return Release(key, claim.epoch, "this epoch has run before")
    return Start(key, assignment, claim.epoch, session)


def assignments_of_node(record: Record, own: NodeIncarnation) -> dict[str, Assignment]:
    """The tasks of all databases for which this node is responsible, by claim key."""
    assigned: dict[str, Assignment] = {}
    for database in record.databases.values():
        assigned |= assignments_of_database(record, database, own)
    return assigned


def assignments_of_database(record: Record, database: Database, own: NodeIncarnation) -> dict[str, Assignment]:
    """The tasks of one database for which this node is responsible, by claim key."""
    if database.disabled or own.tag not in database.topology.all_nodes:
        return {}
    group = PlacementGroup(record, database)
    return {
        database.claim_key(task): assignment
        for task in tasks_of(record, database)
        if (assignment := assignment_of_task(group, database, task, own)) is not None
    }


def assignment_of_task(
    group: PlacementGroup, database: Database, task: Task, own: NodeIncarnation
) -> Assignment | None:
    """The task, if this node is responsible for it."""
    if task.disabled or group.place(task)[0] != own.tag:
        return None
    return Assignment(database.name, task, _fingerprint(database, task))


def why_not(record: Record, key: str) -> str:
    """Why a task of that key is not this node's."""
    folded = key.split("/")[0]
    database = record.databases.get(folded)
    if database is None:
        return f"database '{folded}' is gone"
    if database.disabled:
        return f"database '{folded}' is disabled"
    found = task_of(record, key)
    if found is None:
        return "the update is over" if key.split("/")[1] == UPDATE_KIND else "the task is gone"
    _, task = found
    if task.disabled:
        return "the task is disabled"
    node, rule = PlacementGroup(record, database).place(task)
    return f"{node or 'no node'} is, by rule {rule}"


def _fingerprint(database: Database, task: Task) -> Fingerprint:
    string = database.connection_strings.get(fold(task.connection_string)) if task.connection_string else None
    return (task.etag, string.etag if string else 0, task.key)


def _mine(claim: Claim, own: NodeIncarnation) -> bool:
    """Whether this very process holds it."""
    holder = (claim.tag, claim.node_id, claim.boot, claim.nonce)
    return claim.state == "Held" and holder == (own.tag, own.node_id, own.boot, own.nonce)


def _holder(claim: Claim, own: NodeIncarnation) -> str:
    if (claim.tag, claim.node_id) != (own.tag, own.node_id):
        return f"node {claim.tag}"
    return f"start {claim.boot} of this node (this is start {own.boot})"


def _holds(claim: Claim | None, own: NodeIncarnation, epoch: int) -> bool:
    return claim is not None and _mine(claim, own) and claim.epoch == epoch
