"""Carries out `plan`: claims, starts, stops and releases what this node runs.

Every decision is taken in `_step`, which never waits: after each change of the record or the lease, and whenever
something begun here is done. What waits (proposals, bodies) are tasks of one group.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from msgspec.structs import asdict

from raftnode.foundation.http_client import Http
from raftnode.foundation.names import fold
from raftnode.foundation.ports import Random, SystemRandom
from raftnode.record.commands import Changes, ClaimTask, ProgressMade, ReleaseTask
from raftnode.record.model import Progress, Record
from tasks.runtime import plan as planning
from tasks.runtime.assignments import WantedHere
from tasks.runtime.attention import Attention
from tasks.runtime.blame import Blameless
from tasks.runtime.bodies import Bodies
from tasks.runtime.body import Body
from tasks.runtime.checkpoints import Checkpoints
from tasks.runtime.context import Info, Run, RunSettings, TaskContext, now
from tasks.runtime.plan import Action, Claiming, Own, Release, Sight, Start, Stop, Wait, Wanted
from tasks.runtime.proposals import Claim, Proposal, Proposals, UnderWay
from tasks.runtime.run_journal import BYTES_MAX, Pulse, RunJournal
from tasks.runtime.said import Said
from tasks.runtime.services import Databases, Lease, Replica
from tasks.runtime.shared import Shared
from tasks.runtime.status import Status, of_body, of_wanted

log = structlog.get_logger(__name__)

PULSE_S = 0.1
CANCEL_AGAIN_S = 1.0
SLICE_MAX = 100
"""So many tasks are decided about before the event loop has a turn at everything else."""


class Supervisor:
    """What this node runs. Subscribe `on_tick` to the record and `on_lease` to the lease, and run `run`.

    `bodies_running` is told before every start and after every end how many bodies that need a lease have not ended.
    Those that tolerate partitions outlive it, so nothing must end the process for them.
    """

    def __init__(
        self,
        own: Own,
        *,
        replica: Replica,
        lease: Lease,
        databases: Databases,
        directory: Path,
        bodies_running: Callable[[int], None],
        settings: RunSettings | None = None,
        http: Http | None = None,
        checkpoint_ms: int = 50,
        journal_bytes_max: int = BYTES_MAX,
        random: Random | None = None,
        blame: Blameless | None = None,
    ) -> None:
        self._blame = blame or Blameless()
        self._own, self._replica, self._lease, self._databases = own, replica, lease, databases
        self._bodies_running, self._http = bodies_running, http
        self._settings = settings or RunSettings()
        self._random = random or SystemRandom()
        self._journal = RunJournal(directory, own.tag, bytes_max=journal_bytes_max)
        self._pulse = Pulse()
        self._shared = Shared()
        self._checkpoints = Checkpoints(replica.propose, delay_ms=checkpoint_ms)
        self._proposals = Proposals(replica.propose, self._random)
        self._wanted = WantedHere(own)
        self._attention = Attention()
        self._bodies = Bodies()
        self._under_way = UnderWay()
        self._said = Said()
        self._waits: dict[str, Wait] = {}
        self._refused: dict[str, int] = {}
        self._infos: dict[str, tuple[int, Info]] = {}
        self._spent: set[int] = set()
        self._group: asyncio.TaskGroup | None = None
        self._closing, self._nothing = False, dict[str, Wanted]()
        self._stepping = self._again = self._soon = False
        self._changed = asyncio.Event()

    # ---- life

    async def run(self) -> None:
        """Until cancelled; every body has ended when this returns."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._checkpoints.run())
                self._attention.call(planning.held_here(self._replica.record, self._own))
                self._step()
                group.create_task(self._report())
                try:
                    await self._beat()
                finally:
                    self._group = None
        finally:
            self._said.flush()
            await self._shared.close()
            self._journal.close()

    async def stop(self, timeout_s: float) -> None:
        """Stop all bodies and release their claims, so that other nodes take over at once. Starts nothing more.

        Without a lease nobody is waited for who would only release: that needs a majority this node does not have.
        """
        self._closing = True
        self._step()
        try:
            async with asyncio.timeout(timeout_s):
                while self._group is not None and self._unfinished():
                    await self._changed.wait()
        except TimeoutError:
            log.warning("Some tasks could not be released in time; they move when this node counts as silent.")

    def _unfinished(self) -> bool:
        releasing = self._bodies or self._under_way
        return self._bodies.unfinished > 0 or bool(releasing and self._lease.session is not None)

    async def _beat(self) -> None:
        """The pulse tells freezes of the process, for the journal; it beats only while bodies run."""
        while True:
            if not self._bodies:
                self._blame.rest()
                await self._changed.wait()
            self._pulse.beat()
            timings = self._replica.record.timings
            if timings is not None:
                self._blame.beat(timings.lease_ms / 2000)
            await asyncio.sleep(PULSE_S)

    async def _report(self) -> None:
        self._touch(
            *await self._blame.report(
                self._own.tag, lambda command: self._proposals.answer(command, Proposal(), lambda: True)
            )
        )

    # ---- decisions

    def on_tick(self, record: Record, changes: Changes) -> None:
        """The record has changed."""
        self._attention.call(changes.claims)
        self._step()

    def on_lease(self) -> None:
        """Role or session has changed."""
        self._step()

    def _touch(self, *keys: str) -> None:
        """Something of our own has changed about these tasks. Many such changes cost one step."""
        self._attention.call(keys)
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        # The check of the lease may itself tell of a lapse, and starting a body may change what is to be done.
        self._again = True
        if self._stepping:
            return
        self._stepping, self._soon = True, False
        try:
            while self._again and self._group is not None:
                self._again = False
                self._take_a_slice()
        finally:
            self._stepping = False
        if self._attention and self._group is not None:
            self._touch()

    def _take_a_slice(self) -> None:
        # Before any effect: a process that has stood still may have lost its lease, and no timer has told it yet.
        self._lease.check()
        record = self._replica.record
        wanted = self._look(record)
        sight = Sight(
            record, self._own, self._attention.session, self._under_way.claims.keys(), self._spent, self._bodies.epochs
        )
        for key in self._attention.take(SLICE_MAX):
            self._waits.pop(key, None)
            action = planning.action(sight, key, self._bodies.planned(key), wanted.get(key))
            if action is not None and not (isinstance(action, Claiming | Start) and self._blame.accuses(key)):
                self._do(action)
        if self._said:
            asyncio.get_running_loop().call_soon(self._said.flush)
        self._changed.set()
        self._changed = asyncio.Event()

    def _look(self, record: Record) -> Mapping[str, Wanted]:
        """Calls the tasks about which anything has changed that `planning.action` reads."""
        attention, session = self._attention, self._lease.session
        wanted = self._nothing if self._closing else self._wanted(record)
        attention.call(self._under_way.landed(record.index))
        for key in attention.compare(wanted):
            self._refused.pop(key, None)
            if key not in self._bodies:
                self._infos.pop(key, None)
        if session != attention.session:
            attention.session = session
            attention.call(wanted)
            attention.call(planning.held_here(record, self._own))
            # What runs without a lease must stop before anything else is done.
            attention.call_first(self._bodies)
            self._spent = {epoch for epoch in self._spent if epoch in self._bodies.epochs or _held(record, epoch)}
        return wanted

    def _do(self, action: Action) -> None:
        match action:
            case Claiming():
                self._claim(action)
            case Start():
                self._start(action)
            case Stop():
                self._stop(self._bodies[action.key], "the node is stopping" if self._closing else action.reason)
            case Release():
                self._release(action)
            case Wait():
                self._waits[action.key] = action
            case planning.Forget():
                self._forget(action.key)

    def _forget(self, key: str) -> None:
        epoch = self._bodies.forget(key).run.epoch
        if not _held(self._replica.record, epoch):
            self._spent.discard(epoch)
        if key not in self._attention.wanted:
            self._infos.pop(key, None)
        self._attention.call([key])
        self._again = True

    # ---- claims and releases

    def _claim(self, action: Claiming) -> None:
        proposal = self._under_way.claim(action.key, action.wanted)
        assert self._group is not None
        self._group.create_task(self._propose_claim(action, proposal))

    async def _propose_claim(self, action: Claiming, proposal: Claim) -> None:
        task = action.wanted.task
        command = ClaimTask(
            database=action.wanted.database,
            kind=task.kind,
            name=task.name,
            session=action.session,
            **asdict(self._own),
        )
        result = await self._proposals.answer(command, proposal, lambda: self._lease.session == action.session)
        if result is not None and result.error is not None:
            self._said.of("A claim was refused.", task=action.key, reason=result.error.message)
            proposal.error = result.error.message
            proposal.failures = self._refused.get(action.key, 0)
            await self._proposals.pause(proposal)
            self._refused[action.key] = proposal.failures
        self._under_way.answered(action.key, proposal, result)
        self._touch(action.key)

    def _release(self, action: Release) -> None:
        proposal = self._under_way.release(action.key, action.epoch)
        if proposal is None:
            return
        assert self._group is not None
        self._group.create_task(self._propose_release(action, proposal))

    async def _propose_release(self, action: Release, proposal: Proposal) -> None:
        body = self._bodies.get(action.key)
        made = None
        if body is not None and body.run.epoch == action.epoch and body.progress is not None:
            made = ProgressMade(
                database=body.run.database, id=body.run.task.id, epoch=action.epoch, progress=body.progress
            )
        reason = body.reason if body is not None else action.reason
        command = ReleaseTask(key=action.key, epoch=action.epoch, reason=reason, progress=made)
        result = await self._proposals.answer(command, proposal, lambda: _held(self._replica.record, action.epoch))
        self._said.of("A task was released.", task=action.key, epoch=action.epoch, reason=reason)
        self._under_way.answered(action.key, proposal, result, action.epoch)
        self._touch(action.key)

    # ---- bodies

    def _start(self, action: Start) -> None:
        record, task = self._replica.record, action.wanted.task
        database = record.database(action.wanted.database)
        assert database is not None, "a task that is wanted has a database"
        string = database.connection_strings.get(fold(task.connection_string or ""))
        progress = database.progress.get(task.id)
        run = Run(
            database=database.name,
            task=task,
            claim_key=action.key,
            epoch=action.epoch,
            generation=progress.generation if progress else 0,
            cluster_id=record.cluster_id,
            node=self._own.tag,
            connection=string.configuration if string else None,
            progress=progress,
        )
        known_id, info = self._infos.get(action.key, (task.id, Info.after(progress)))
        info = info if known_id == task.id else Info.after(progress)
        self._infos[action.key] = (task.id, info)
        body = Body(
            run,
            action.session,
            action.wanted.fingerprint,
            info,
            settings=self._settings,
            random=self._random,
            journal=self._journal,
            blame=self._blame,
        )
        self._refused.pop(action.key, None)
        self._spent.add(action.epoch)
        self._bodies.begin(action.key, body)
        self._bodies_running(self._bodies.leased)
        assert self._group is not None
        body.task = self._group.create_task(body.live(self._context))
        body.task.add_done_callback(lambda _: self._ended(body))
        self._said.of("A task was started.", task=action.key, epoch=action.epoch, session=action.session)

    async def _context(self, body: Body) -> TaskContext:
        def save(run: Run, progress: Progress) -> "asyncio.Future[bool]":
            body.progress = progress
            return self._checkpoints.save(run, progress)

        return TaskContext(
            body.run,
            await self._databases.store(body.run.database),
            settings=self._settings,
            info=body.info,
            owned=lambda: self._owns(body),
            save=save,
            journal=self._journal,
            pulse=self._pulse,
            shared=self._shared,
            http=self._http,
            sending=lambda tag, sender: self._databases.sends(fold(body.run.database), tag, sender),
            node_url=lambda tag: node.url if (node := self._replica.record.nodes.get(tag)) else None,
        )

    def _owns(self, body: Body) -> bool:
        claim = self._replica.record.claims.get(body.run.claim_key)
        return (
            body.state in ("Running", "Error")
            and claim is not None
            and (claim.state, claim.epoch) == ("Held", body.run.epoch)
            and (body.partition_tolerant or self._lease.has_lease(body.session))
        )

    def _stop(self, body: Body, reason: str) -> None:
        body.state, body.reason, body.since = "Stopping", reason, now()
        self._said.of("A task is being stopped.", task=body.run.claim_key, epoch=body.run.epoch, reason=reason)
        self._cancel(body)

    def _cancel(self, body: Body) -> None:
        """Again and again, for a body that has swallowed the first one."""
        if body.task is not None and not body.task.done():
            body.task.cancel()
            asyncio.get_running_loop().call_later(CANCEL_AGAIN_S, self._cancel, body)

    def _ended(self, body: Body) -> None:
        if body.state != "Stopping":
            refused = "the target refused the run: a newer one has reached it"
            body.reason = refused if body.superseded else "the run was found to be over"
        self._bodies.end(body)
        self._bodies_running(self._bodies.leased)
        self._touch(body.run.claim_key)

    # ---- what others see

    def status(self) -> Mapping[str, Status]:
        """Every task that runs here, is about to, or has not been released yet, by claim key."""
        return {key: status for key in self.claim_keys() if (status := self.status_of(key)) is not None}

    def claim_keys(self) -> frozenset[str]:
        """The claim keys of these tasks."""
        return frozenset((*self._waits, *self._under_way.claims, *self._bodies))

    def status_of(self, key: str) -> Status | None:
        """The task of that claim key; None if this node has nothing to do with it."""
        tag = self._own.tag
        if (body := self._bodies.get(key)) is not None:
            return of_body(tag, body)
        if (proposal := self._under_way.claims.get(key)) is not None:
            return of_wanted(tag, proposal.wanted, "Claiming", error=proposal.error)
        wait = self._waits.get(key)
        return None if wait is None else of_wanted(tag, wait.wanted, "Waiting", reason=wait.reason)


def _held(record: Record, epoch: int) -> bool:
    return epoch in record.held
