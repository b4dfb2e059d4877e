"""The claims and releases that this node proposes, each until it is answered or not wanted any more."""

from collections.abc import Callable, Iterable

from msgspec.structs import asdict

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record.commands import ClaimTask, ReleaseTask
from raftnode.record.commands.claims import ran_on
from tasks.runtime.claim_proposals import ClaimProposal, ClaimProposals, PendingProposals, Proposal
from tasks.runtime.decision_log import DecisionLog
from tasks.runtime.plan import ProposeClaim
from tasks.runtime.ports import LeasePort, ReplicaPort
from tasks.runtime.runs import Spawn


class Claims:
    """At most one claim of a task and one release of an epoch are under way. `answered` is told the claim key of each
    that has been answered, or is not wanted any more."""

    def __init__(
        self,
        own: NodeIncarnation,
        *,
        replica: ReplicaPort,
        lease: LeasePort,
        proposals: ClaimProposals,
        spawn: Spawn,
        decisions: DecisionLog,
        answered: Callable[[str], None],
    ) -> None:
        self._own, self._replica, self._lease, self._proposals = own, replica, lease, proposals
        self._spawn, self._decisions, self._tell_answered = spawn, decisions, answered
        self._refused: dict[str, int] = {}
        self.under_way = PendingProposals()

    def claim(self, action: ProposeClaim) -> None:
        """Proposes a claim of the session that the action names, and of no other."""
        self._spawn(self._propose_claim(action, self.under_way.claim(action.key, action.assigned)))

    def release(self, command: ReleaseTask) -> None:
        """Proposes a release, until the record has no such claim."""
        proposal = self.under_way.release(command.key, command.epoch)
        if proposal is not None:
            self._spawn(self._propose_release(command, proposal))

    def forgive(self, keys: Iterable[str]) -> None:
        """The next refusal of these tasks' claims counts as the first."""
        for key in keys:
            self._refused.pop(key, None)

    async def _propose_claim(self, action: ProposeClaim, proposal: ClaimProposal) -> None:
        task = action.assigned.task
        command = ClaimTask(
            database=action.assigned.database,
            kind=task.kind,
            name=task.name,
            session=action.session,
            **asdict(self._own),
        )
        result = await self._proposals.answer(command, proposal, lambda: self._lease.session == action.session)
        if result is not None and result.error is not None:
            self._decisions.of("A claim was refused.", task=action.key, reason=result.error.message)
            proposal.error = result.error.message
            proposal.failures = self._refused.get(action.key, 0)
            # While it waits the claim still counts as under way, so that nothing claims the task again at once.
            await self._proposals.pause(proposal)
            self._refused[action.key] = proposal.failures
        self.under_way.answered(action.key, proposal, result)
        self._tell_answered(action.key)

    async def _propose_release(self, command: ReleaseTask, proposal: Proposal) -> None:
        result = await self._proposals.answer(command, proposal, lambda: self._counts(command))
        self._decisions.of("A task was released.", task=command.key, epoch=command.epoch, reason=command.reason)
        self.under_way.answered(command.key, proposal, result, command.epoch)
        self._tell_answered(command.key)

    def _counts(self, command: ReleaseTask) -> bool:
        record = self._replica.record
        late = bool(command.ran_until) and ran_on(record, command.key, command.epoch)
        return late or command.epoch in record.held
