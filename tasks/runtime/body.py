"""One run on this node: one claim, one epoch, one body, tried again after errors until it is stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import structlog

from raftnode.foundation import timestamps
from raftnode.foundation.backoff import backoff
from raftnode.foundation.masking import in_text
from raftnode.foundation.ports import Random
from raftnode.record.model import Progress
from tasks.kinds import registry as kinds
from tasks.kinds.registry import RunSuperseded
from tasks.runtime.context import NotOwned, Run, RunFigures, RunSettings, TaskContext, TaskDocuments
from tasks.runtime.plan import Fingerprint
from tasks.runtime.ports import RunRequest
from tasks.runtime.rate import Rate
from tasks.runtime.run_journal import RunJournal, machine_ns
from tasks.runtime.stall_tracker import StallTracker

log = structlog.get_logger(__name__)

ERROR_LENGTH_MAX = 4_000
"""A script or a target may have written it."""
STABLE_S = 30.0
"""A body that went on for this long before it failed begins again with the shortest wait."""

State = Literal["Running", "Error", "Stopping", "Ended"]


class Body:
    """A run's body. `task` is what runs `live`; `reason` says why the body is in its state; `requests` are what users
    ask of it."""

    def __init__(
        self,
        run: Run,
        session: int,
        fingerprint: Fingerprint,
        info: RunFigures,
        *,
        settings: RunSettings,
        random: Random,
        journal: RunJournal,
        stall_tracker: StallTracker,
    ) -> None:
        self.run, self.session, self.fingerprint, self.info = run, session, fingerprint, info
        self.state: State = "Running"
        self.reason = "claimed in this session"
        self.since = timestamps.now()
        self.progress: Progress | None = None
        self.task: asyncio.Task[None] | None = None
        self.copy: TaskDocuments | None = None
        self.rate = Rate()
        self.requests: asyncio.Queue[RunRequest] = asyncio.Queue()
        self._settings, self._random, self._journal = settings, random, journal
        self.superseded = False
        self._failure: str | None = None
        self._stall_tracker = stall_tracker

    @property
    def partition_tolerant(self) -> bool:
        """Whether the body goes on without a lease."""
        return self.run.task.traits.partition_tolerant

    @property
    def behind(self) -> int | None:
        """How many changes of this node's copy it has not looked at; None if it does not say how far it has looked, or
        the copy is not open."""
        if self.copy is None or self.info.seen_etag is None:
            return None
        return max(0, self.copy.last_etag - self.info.seen_etag)

    def acted(self) -> None:
        """The body has come somewhere: what it shows is looked at."""
        self.rate.saw(self.info.processed)
        self.info.note_error()

    async def live(self, context: Callable[["Body"], Awaitable[TaskContext]]) -> None:
        """Run the kind's body, with a fresh context for every try, until cancelled or until the run is over."""
        self._note("start")
        try:
            await self._tries(context)
        finally:
            while not self.requests.empty():
                self.requests.get_nowait().unanswered()
            self._note("end")

    async def _tries(self, context: Callable[["Body"], Awaitable[TaskContext]]) -> None:
        failures = 0
        while True:
            began_s = time.monotonic()
            present: TaskContext | None = None
            try:
                present = await context(self)
                self.copy = present.documents
                await self._once(present)
                error: Exception = kinds.TaskFailed("the body ended by itself")
            except NotOwned as gone:
                log.info("A body has ended: its run is over.", task=self.run.claim_key, reason=str(gone))
                return
            except Exception as failure:
                error = failure
            stable = time.monotonic() - began_s > STABLE_S
            failures = 1 if stable else failures + 1
            expected = isinstance(error, kinds.TaskFailed | kinds.ConfigurationError)
            said = str(error) if expected else kinds.described(error)
            self.info.error = in_text(" ".join(said[:ERROR_LENGTH_MAX].split()))
            self.info.note_error()
            if isinstance(error, RunSuperseded):
                failures = self.info.superseded = 1 if stable else self.info.superseded + 1
                self.info.error += f"; refused {failures} times in a row, and claimed again after a growing pause"
            self._tell(present)
            await self._back_off(error, failures)
            if isinstance(error, RunSuperseded):
                self.superseded = True
                return

    async def _once(self, context: TaskContext) -> None:
        kind = kinds.loaded(self.run.task.kind)
        if kind is None:
            kind = await asyncio.to_thread(kinds.load, self.run.task.kind)
        context.begin()
        self.info.next_run = None
        try:
            if self.state == "Error":
                self.state = "Running"
            await self._stall_tracker.track(self.run.claim_key, self.run.epoch, kind.run(context))
        finally:
            context.rest(soon=True)

    async def _back_off(self, error: Exception, failures: int) -> None:
        limits = self._settings
        wait_s = backoff(failures, limits.backoff_min_ms, limits.backoff_max_ms, self._random) / 1000
        if self.state == "Running":
            self.state = "Error"
        self.info.next_run = timestamps.in_s(wait_s)
        # A traceback once: a body that fails for the same reason for hours says so in one line each time.
        failure = None if isinstance(error, kinds.TaskFailed | kinds.ConfigurationError) else self.info.error
        fresh = failure is not None and failure != self._failure
        self._failure = failure
        log.warning(
            "A task has failed and is tried again.",
            task=self.run.claim_key,
            epoch=self.run.epoch,
            reason=self.info.error,
            wait_s=round(wait_s, 3),
            exc_info=error if fresh else None,
        )
        await asyncio.sleep(wait_s)

    def _tell(self, context: TaskContext | None) -> None:
        """Have every node know what holds the task up, if that has changed since it was last told."""
        told = self.progress or self.run.progress or Progress(generation=self.run.generation)
        if context is None or self.info.told_with(told) == told:
            return
        with suppress(NotOwned):  # the run is over: its next holder tells what holds the task up
            context.report(told)

    def _note(self, event: Literal["start", "end"]) -> None:
        at_ns = machine_ns()
        self._journal.write(self.run.claim_key, self.run.epoch, event, at_ns, at_ns, soon=event == "end")
