"""Progress of all runs of this node goes to the cluster together: one command for what a short while has gathered."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from raftnode.record.commands import Command
from raftnode.record.commands.tasks import Checkpoint, ProgressMade
from raftnode.record.model import CommandResult, Progress
from tasks.runtime.context import Run

log = structlog.get_logger(__name__)

Propose = Callable[[Command], Awaitable[CommandResult]]
"""Proposes a command; the answer once it is applied. Raises when the outcome is unknown."""

RETRY_S = 0.5
BATCH_BYTES_MAX = 256 * 1024
"""So much progress goes into one command, well below the limit of its size."""


class Checkpoints:
    """The newest progress of each run waits here until it is replicated. `run` must be running."""

    def __init__(self, propose: Propose, *, delay_ms: int = 50) -> None:
        self._propose = propose
        self._delay_s = delay_ms / 1000
        self._waiting: dict[str, tuple[ProgressMade, list[asyncio.Future[bool]]]] = {}
        self._wake = asyncio.Event()

    def save(self, run: Run, progress: Progress) -> asyncio.Future[bool]:
        """Replicate this progress, or a newer one of the same run. The future tells whether the cluster took it."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        made = ProgressMade(database=run.database, id=run.task.id, epoch=run.epoch, progress=progress)
        _, futures = self._waiting.get(run.claim_key, (made, []))
        self._waiting[run.claim_key] = (made, [f for f in futures if not f.done()] + [future])
        self._wake.set()
        return future

    async def run(self) -> None:
        """Runs until cancelled; then every pending save ends with False."""
        batch: dict[str, tuple[ProgressMade, list[asyncio.Future[bool]]]] = {}
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(self._delay_s)
                self._wake.clear()
                while self._waiting:
                    batch = self._take()
                    await self._send(batch)
        finally:
            for _, futures in [*batch.values(), *self._waiting.values()]:
                _answer(futures, False)
            self._waiting.clear()

    def _take(self) -> dict[str, tuple[ProgressMade, list[asyncio.Future[bool]]]]:
        batch: dict[str, tuple[ProgressMade, list[asyncio.Future[bool]]]] = {}
        size = 0
        for key, (made, _) in list(self._waiting.items()):
            size += len(msgspec.msgpack.encode(made, enc_hook=dict))
            if batch and size > BATCH_BYTES_MAX:
                break
            batch[key] = self._waiting.pop(key)
        return batch

    async def _send(self, batch: dict[str, tuple[ProgressMade, list[asyncio.Future[bool]]]]) -> None:
        try:
            result = await self._propose(Checkpoint(made=tuple(made for made, _ in batch.values())))
        except Exception as error:
            log.info("Progress could not be replicated and is tried again.", reason=str(error))
            for key, (made, futures) in batch.items():
                newer, later = self._waiting.get(key, (made, []))
                self._waiting[key] = (newer, [*futures, *later])
            await asyncio.sleep(RETRY_S)
            return
        accepted = set(result.value or ()) if result.error is None else set()
        for made, futures in batch.values():
            _answer(futures, made.id in accepted)


def _answer(futures: list[asyncio.Future[bool]], taken: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(taken)
