"""Carries out `plan`: claims, starts, stops and releases what this node runs.

Everything goes one way: the record and the lease say what has changed (`DueTasks`), `plan.action` decides about one
task after the other, and `Claims` and `OwnRuns` do what was decided. What comes of that is news again. Decisions are
taken in `_turn` alone, which never waits; what waits (proposals, bodies) are tasks of one group.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from raftnode.foundation.broadcast import Broadcast
from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.foundation.ports import Random
from raftnode.record.commands import Changes
from raftnode.record.model import Record
from tasks.runtime import plan as planning
from tasks.runtime.assignments import Assignments
from tasks.runtime.claim_proposals import ClaimProposals, Proposal
from tasks.runtime.claims import Claims
from tasks.runtime.decision_log import DecisionLog
from tasks.runtime.due_tasks import DueTasks
from tasks.runtime.environment import BodyEnvironment
from tasks.runtime.operations import Operations
from tasks.runtime.plan import Action, Assignment, PlanInput, ProposeClaim, Release, Start, Stop, Wait
from tasks.runtime.ports import LeasePort, ReplicaPort, RunRequest
from tasks.runtime.runs import OwnRuns
from tasks.runtime.status import LocalTaskStatus, of_assignment, of_body
from tasks.runtime.turns import Turns

log = structlog.get_logger(__name__)

FREEZE_CHECK_S = 0.1
SLICE_MAX = 100
"""So many tasks are decided about before the event loop has a turn at everything else."""
NOTHING: Mapping[str, Assignment] = {}


class Supervisor:
    """What this node runs. Subscribe `on_tick` to the record and `on_lease` to the lease, and run `run`.

    `bodies_running` is told before every start and after every end how many bodies that need a lease have not ended.
    Those that tolerate partitions outlive it, so nothing must end the process for them. `removed` tells whether this
    node is known to be in the cluster no more: then they stop, too. Call `on_lease` when that changes.
    """

    def __init__(
        self,
        own: NodeIncarnation,
        *,
        replica: ReplicaPort,
        lease: LeasePort,
        environment: BodyEnvironment,
        bodies_running: Callable[[int], None],
        random: Random,
        removed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._removed = removed
        self._own, self._replica, self._lease, self.environment = own, replica, lease, environment
        self._decisions = DecisionLog()
        self._proposals = ClaimProposals(replica.propose, random)
        self._claims = Claims(
            own,
            replica=replica,
            lease=lease,
            proposals=self._proposals,
            spawn=self._spawn,
            decisions=self._decisions,
            answered=self._touch,
        )
        self._runs = OwnRuns(
            replica=replica,
            lease=lease,
            environment=environment,
            spawn=self._spawn,
            decisions=self._decisions,
            bodies_running=bodies_running,
            ended=self._touch,
        )
        self._assignments = Assignments(own)
        self._due = DueTasks()
        self._waits: dict[str, Wait] = {}
        self._turns = Turns(self._turn, lambda: bool(self._due) and self._group is not None)
        self._group: asyncio.TaskGroup | None = None
        self._closing = False
        self._changed = Broadcast()

    # ---- life

    async def run(self) -> None:
        """Until cancelled; every body has ended when this returns."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self.environment.run())
                # From here on each change of a claim is told; what this process holds already is looked at once.
                self._due.add(planning.held_here(self._replica.record, self._own))
                self._turns.now()
                group.create_task(self._report())
                try:
                    await self._beat()
                finally:
                    # Nothing is begun any more: the group cancels what there is and waits for it.
                    self._group = None
        finally:
            # Last, as the bodies use these to their end.
            self._decisions.flush()
            await self.environment.close()

    async def stop(self, timeout_s: float) -> None:
        """Stop all bodies and release their claims, so that other nodes take over at once. Starts nothing more.

        Without a lease nobody is waited for who would only release: that needs a majority this node does not have.
        """
        self._closing = True
        self._turns.now()
        try:
            async with asyncio.timeout(timeout_s):
                while self._group is not None and self._unfinished():
                    await self._changed.wait()
        except TimeoutError:
            log.warning("Some tasks could not be released in time; they move when this node counts as silent.")

    def _unfinished(self) -> bool:
        releasing = self._runs.bodies or self._claims.under_way
        return self._runs.bodies.unfinished > 0 or bool(releasing and self._lease.session is not None)

    async def _beat(self) -> None:
        """Only while bodies run: an idle node sleeps."""
        while True:
            if not self._runs.bodies:
                self.environment.stall_tracker.disarm()
                await self._changed.wait()
            self.environment.beat(self._replica.record.timings)
            await asyncio.sleep(FREEZE_CHECK_S)

    async def _report(self) -> None:
        told = await self.environment.stall_tracker.report(
            self._own.tag, lambda command: self._proposals.answer(command, Proposal(), lambda: True)
        )
        self._touch(*told)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        assert self._group is not None, "decisions are taken only while the group is open"
        return self._group.create_task(work)

    # ---- what has changed

    def on_tick(self, record: Record, changes: Changes) -> None:
        """The record has changed."""
        self._due.add(changes.claims)
        self._turns.now()

    def on_lease(self) -> None:
        """Role or session has changed."""
        self._turns.now()

    def _touch(self, *keys: str) -> None:
        """Something of our own has changed about these tasks. Many such changes cost one turn."""
        self._due.add(keys)
        self._turns.soon()

    # ---- decisions

    def _turn(self) -> None:
        """Decides about the next few tasks. The order matters:

        1. The lease, before any effect: a process that has stood still may have lost it, and no timer has told it yet.
        2. What has changed, all by one record and one session, so that no two decisions rest on different ones.
        3. The decisions, most urgent first, and a slice only: beats and reports must not wait for thousands of tasks.
        4. Whoever waits for any of it, when it is done.
        """
        if self._group is None:
            return
        self._lease.check()
        record = self._replica.record
        assigned = self._look(record)
        runs, claiming = self._runs, self._claims.under_way.claims.keys()
        plan_input = PlanInput(record, self._own, self._due.session, claiming, runs.spent, runs.bodies.epochs)
        for key in self._due.take(SLICE_MAX):
            self._waits.pop(key, None)
            action = planning.action(plan_input, key, runs.bodies.planned(key), assigned.get(key))
            # A task that has ended this node's last process must be known to all before it may do so again.
            if action is not None and not (isinstance(action, ProposeClaim | Start) and self._accused(key)):
                self._do(action)
        if self._decisions:
            asyncio.get_running_loop().call_soon(self._decisions.flush)
        self._changed.notify_all()

    def _look(self, record: Record) -> Mapping[str, Assignment]:
        """Calls the tasks about which anything has changed that `planning.action` reads."""
        due, session = self._due, self._lease.session
        assigned = NOTHING if self._closing or self._removed() else self._assignments(record)
        # An answer counts once the record has come as far as it: decided earlier, the task would be claimed again.
        due.add(self._claims.under_way.take_applied(record.index))
        gone = due.compare(assigned)
        self._claims.forgive(gone)
        self._runs.unassigned(gone)
        if session != due.session:
            due.session = session
            due.add(assigned)
            due.add(planning.held_here(record, self._own))
            # What runs without a lease must stop before anything else is done.
            due.add_first(self._runs.bodies)
            self._runs.session_changed()
        return assigned

    def _accused(self, key: str) -> bool:
        return self.environment.stall_tracker.is_unreported(key)

    def _do(self, action: Action) -> None:
        match action:
            case ProposeClaim():
                self._claims.claim(action)
            case Start():
                self._claims.forgive([action.key])
                self._runs.start(self._own.tag, action)
            case Stop():
                left = "the node is stopping" if self._closing else "the node was removed from the cluster"
                self._runs.stop(action.key, left if self._closing or self._removed() else action.reason)
            case Release():
                self._claims.release(self._runs.release_of(action))
            case Wait():
                self._waits[action.key] = action
            case planning.Forget():
                self._runs.forget(action.key, assigned=action.key in self._due.assigned)
                # The task may be this node's again, and now nothing stands in the way of a new claim.
                self._due.add([action.key])
                self._turns.now()

    # ---- what users ask

    @property
    def operations(self) -> Operations:
        """What this node does for users."""
        return self.environment.operations

    def ask(self, key: str, request: RunRequest) -> bool:
        """Hand a request to the run of that claim key. False: there is none here."""
        body = self._runs.bodies.get(key)
        if body is None or body.state not in ("Running", "Error") or body.task is None or body.task.done():
            return False
        body.requests.put_nowait(request)
        return True

    # ---- what others see

    def status(self) -> Mapping[str, LocalTaskStatus]:
        """Every task that runs here, is about to, or has not been released yet, by claim key."""
        return {key: status for key in self.claim_keys() if (status := self.status_of(key)) is not None}

    def claim_keys(self) -> frozenset[str]:
        """The claim keys of these tasks."""
        return frozenset((*self._waits, *self._claims.under_way.claims, *self._runs.bodies))

    def status_of(self, key: str) -> LocalTaskStatus | None:
        """The task of that claim key; None if this node has nothing to do with it."""
        tag = self._own.tag
        if (body := self._runs.bodies.get(key)) is not None:
            return of_body(tag, body, self._lease.session)
        if (proposal := self._claims.under_way.claims.get(key)) is not None:
            return of_assignment(tag, proposal.assigned, "Claiming", error=proposal.error)
        wait = self._waits.get(key)
        return None if wait is None else of_assignment(tag, wait.assigned, "Waiting", reason=wait.reason)
