"""Claims and releases on their way: proposed again and again until they are answered or not wanted any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from raftnode.ports import Random
from raftnode.record.commands import Command
from raftnode.record.model import Result
from tasks.plan import Wanted

log = structlog.get_logger(__name__)

RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0


class Propose(Protocol):
    """See `raftnode.consensus.replica.Replica.propose`."""

    def __call__(self, command: Command, /) -> Awaitable[Result]: ...


class Proposal(msgspec.Struct):
    """It counts until the record has reached `index`, the place of its answer."""

    index: int | None = None
    failures: int = 0
    error: str | None = None

    def landed(self, index: int) -> bool:
        """Whether a record of that index shows what became of it."""
        return self.index is not None and self.index <= index


class Claim(Proposal, kw_only=True):
    """The claim of a task."""

    wanted: Wanted


class Proposals:
    """Proposes, and waits between tries: each wait is random between half and all of a time that doubles."""

    def __init__(self, propose: Propose, random: Random) -> None:
        self._propose, self._random = propose, random

    async def answer(self, command: Command, proposal: Proposal, wanted: Callable[[], bool]) -> Result | None:
        """The command's answer, None once it is not wanted any more."""
        while wanted():
            try:
                return await self._propose(command)
            except Exception as error:
                proposal.error = str(error) or type(error).__name__
                log.info("A proposal is tried again.", command=type(command).__name__, reason=proposal.error)
            await self.pause(proposal)
        return None

    async def pause(self, proposal: Proposal) -> None:
        """Wait before the next try."""
        proposal.failures += 1
        wait_s = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(proposal.failures - 1, 10))
        await asyncio.sleep(wait_s * (1 + self._random.random()) / 2)
