"""Claims and releases on their way: proposed again and again until they are answered or not wanted any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from raftnode.foundation.backoff import backoff
from raftnode.foundation.ports import Random
from raftnode.record.commands import Command
from raftnode.record.model import CommandResult
from tasks.runtime.plan import Assignment

log = structlog.get_logger(__name__)

RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0
AT_ONCE_MAX = 256
"""So many proposals are on their way to the leader at once; the others wait here, where they can still be dropped."""


class Propose(Protocol):
    """See `raftnode.cluster.replica.Replica.propose`."""

    def __call__(self, command: Command, /) -> Awaitable[CommandResult]: ...


class Proposal(msgspec.Struct):
    """It counts until the record has reached `index`, the place of its answer."""

    index: int | None = None
    failures: int = 0
    error: str | None = None

    def is_applied(self, index: int) -> bool:
        """Whether a record of that index shows what became of it."""
        return self.index is not None and self.index <= index


class ClaimProposal(Proposal, kw_only=True):
    """The claim of a task."""

    assigned: Assignment


class PendingProposals:
    """The claims by key and the releases by epoch that have not been applied yet."""

    def __init__(self) -> None:
        self.claims: dict[str, ClaimProposal] = {}
        self._releases: dict[int, str] = {}
        self._answered: list[tuple[str, int, Proposal]] = []

    def __bool__(self) -> bool:
        return bool(self.claims or self._releases)

    def claim(self, key: str, assigned: Assignment) -> ClaimProposal:
        """A claim is about to be proposed."""
        self.claims[key] = proposal = ClaimProposal(assigned=assigned)
        return proposal

    def release(self, key: str, epoch: int) -> Proposal | None:
        """A release is about to be proposed; None if it is on its way already."""
        if epoch in self._releases:
            return None
        self._releases[epoch] = key
        return Proposal()

    def answered(self, key: str, proposal: Proposal, result: CommandResult | None, epoch: int = 0) -> None:
        """The answer to a claim, or to the release of that epoch, has come; None: it is not wanted any more."""
        proposal.index = result.index if result is not None else 0
        self._answered.append((key, epoch, proposal))

    def take_applied(self, index: int) -> list[str]:
        """The keys of those that are over, as a record of that index shows what became of them."""
        if not self._answered:
            return []
        over = [one for one in self._answered if one[2].is_applied(index)]
        self._answered = [one for one in self._answered if not one[2].is_applied(index)]
        for key, epoch, proposal in over:
            if isinstance(proposal, ClaimProposal):
                del self.claims[key]
            else:
                del self._releases[epoch]
        return [key for key, _, _ in over]


class ClaimProposals:
    """Proposes, and waits between tries: each wait is random between half and all of a time that doubles."""

    def __init__(self, propose: Propose, random: Random) -> None:
        self._propose, self._random = propose, random
        self._places = asyncio.Semaphore(AT_ONCE_MAX)

    async def answer(self, command: Command, proposal: Proposal, assigned: Callable[[], bool]) -> CommandResult | None:
        """The command's answer, None once it is not wanted any more."""
        while assigned():
            try:
                async with self._places:
                    if not assigned():
                        return None
                    return await self._propose(command)
            except Exception as error:
                proposal.error = str(error) or type(error).__name__
                log.info("A proposal is tried again.", command=type(command).__name__, reason=proposal.error)
            await self.pause(proposal)
        return None

    async def pause(self, proposal: Proposal) -> None:
        """Wait before the next try."""
        proposal.failures += 1
        await asyncio.sleep(backoff(proposal.failures, RETRY_MIN_S, RETRY_MAX_S, self._random))
