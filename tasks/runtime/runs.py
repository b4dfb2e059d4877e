"""The runs of this node: starts their bodies and stops them, and knows which epochs have begun."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from raftnode.foundation import timestamps
from raftnode.foundation.names import fold
from raftnode.record.commands import ProgressMade, ReleaseTask
from raftnode.record.model import Record
from tasks.runtime.bodies import Bodies
from tasks.runtime.body import Body
from tasks.runtime.context import Run, RunFigures, TaskContext
from tasks.runtime.decision_log import DecisionLog
from tasks.runtime.environment import BodyEnvironment
from tasks.runtime.plan import Release, Start
from tasks.runtime.ports import LeasePort, ReplicaPort

CANCEL_AGAIN_S = 1.0


class Spawn(Protocol):
    """Runs a coroutine as a task of the supervisor's group."""

    def __call__(self, work: Coroutine[Any, Any, None], /) -> "asyncio.Task[None]": ...


class OwnRuns:
    """One claim, one epoch, one body each. `bodies` are those that have not been forgotten; `spent` the epochs that
    have begun here, which never begin again.

    `bodies_running` is told before every start and after every end how many bodies that need a lease have not ended;
    `ended` the claim key of each body that has.
    """

    def __init__(
        self,
        *,
        replica: ReplicaPort,
        lease: LeasePort,
        environment: BodyEnvironment,
        spawn: Spawn,
        decisions: DecisionLog,
        bodies_running: Callable[[int], None],
        ended: Callable[[str], None],
    ) -> None:
        self._replica, self._lease, self._environment = replica, lease, environment
        self._spawn, self._decisions = spawn, decisions
        self._bodies_running, self._tell_ended = bodies_running, ended
        self._infos: dict[str, tuple[int, RunFigures]] = {}
        self.bodies = Bodies()
        self.spent: set[int] = set()

    def start(self, node: str, action: Start) -> None:
        """Starts a body under the epoch of the grant."""
        run = _run(self._replica.record, node, action)
        body = self._environment.body(run, action, self._info_of(run))
        # Before anything can fail or run: an epoch whose start has begun is never taken up again.
        self.spent.add(action.epoch)
        self.bodies.begin(action.key, body)
        # The kill timer must be set before the body's first step, as nothing else ends one that hangs in it.
        self._bodies_running(self.bodies.leased)
        body.task = self._spawn(body.live(self._context))
        body.task.add_done_callback(lambda _: self._ended(body))
        self._decisions.of("A task was started.", task=action.key, epoch=action.epoch, session=action.session)

    def stop(self, key: str, reason: str) -> None:
        """Tells the body to stop. It runs until `ended` is told of it."""
        body = self.bodies[key]
        body.state, body.reason, body.since = "Stopping", reason, timestamps.now()
        self._decisions.of("A task is being stopped.", task=key, epoch=body.run.epoch, reason=reason)
        self._cancel(body)

    def release_of(self, action: Release) -> ReleaseTask:
        """The release of a claim, with the last progress of its body and why that ended."""
        body, made = self.bodies.get(action.key), None
        if body is not None and body.run.epoch == action.epoch and body.progress is not None:
            made = ProgressMade(
                database=body.run.database, id=body.run.task.id, epoch=action.epoch, progress=body.progress
            )
        reason = body.reason if body is not None else action.reason
        until = body.since if body is not None and body.partition_tolerant else ""
        return ReleaseTask(key=action.key, epoch=action.epoch, reason=reason, progress=made, ran_until=until)

    def forget(self, key: str, *, assigned: bool) -> None:
        """The record knows that the run has ended. What it has shown of itself is kept for the next if `assigned`."""
        epoch = self.bodies.forget(key).run.epoch
        if epoch not in self._replica.record.held:
            self.spent.discard(epoch)
        if not assigned:
            self._infos.pop(key, None)

    def unassigned(self, keys: Iterable[str]) -> None:
        """These tasks are this node's no more: what their next runs would have gone on from is dropped."""
        for key in keys:
            if key not in self.bodies:
                self._infos.pop(key, None)

    def session_changed(self) -> None:
        """Forgets the epochs that nobody can grant again."""
        held = self._replica.record.held
        self.spent = {epoch for epoch in self.spent if epoch in self.bodies.epochs or epoch in held}

    def _info_of(self, run: Run) -> RunFigures:
        """What the task's runs on this node show goes on from one to the next, unless it is another task by now."""
        known = self._infos.get(run.claim_key)
        info = known[1] if known is not None and known[0] == run.task.id else RunFigures.after(run.progress)
        self._infos[run.claim_key] = (run.task.id, info)
        return info

    async def _context(self, body: Body) -> TaskContext:
        return await self._environment.context(body, lambda: self._owns(body))

    def _owns(self, body: Body) -> bool:
        """Asked before each effect of a body, perhaps in a thread: the clock is looked at, and nothing changes."""
        claim = self._replica.record.claims.get(body.run.claim_key)
        return (
            body.state in ("Running", "Error")
            and claim is not None
            and (claim.state, claim.epoch) == ("Held", body.run.epoch)
            and (body.partition_tolerant or self._lease.has_lease(body.session))
        )

    def _cancel(self, body: Body) -> None:
        """Again and again, for a body that has swallowed the first one."""
        if body.task is not None and not body.task.done():
            body.task.cancel()
            asyncio.get_running_loop().call_later(CANCEL_AGAIN_S, self._cancel, body)

    def _ended(self, body: Body) -> None:
        if body.state != "Stopping":
            refused = "the target refused the run: a newer one has reached it"
            body.reason = refused if body.superseded else "the run was found to be over"
        body.since = timestamps.now()
        self.bodies.end(body)
        # Only now: as long as anything of the body lives, the kill timer must be able to end it.
        self._bodies_running(self.bodies.leased)
        self._tell_ended(body.run.claim_key)


def _run(record: Record, node: str, action: Start) -> Run:
    task = action.assigned.task
    database = record.database(action.assigned.database)
    assert database is not None, "a task that is wanted has a database"
    string = database.connection_strings.get(fold(task.connection_string or ""))
    progress = database.progress.get(task.id)
    return Run(
        database=database.name,
        task=task,
        claim_key=action.key,
        epoch=action.epoch,
        generation=progress.generation if progress else 0,
        cluster_id=record.cluster_id,
        node=node,
        connection=string.configuration if string else None,
        progress=progress,
    )
