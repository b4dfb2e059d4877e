"""The daemon with one rule about claims left out; see `variants`."""

from collections.abc import Callable, Set
from typing import Any

from msgspec.structs import replace

from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record.commands import ClaimTask, DeleteTask, Entry, Outcome, ReleaseTask
from raftnode.record.model import Claim, Record, claim_key
from tasks.runtime import plan
from tests.simulation.variants import Patch


def grant_over_a_held_claim(patch: Patch) -> None:
    """A claim is made and granted although another node holds the task."""
    grant, about = ClaimTask.apply, plan._about_task

    def apply(self: ClaimTask, record: Record, entry: Entry) -> Outcome:
        key = claim_key(self.database, self.kind, self.name)
        last = record.claims.get(key)
        if last is not None and last.state == "Held" and last.tag != self.tag:
            record = record.with_claim(key, replace(last, state="Released"))
        return grant(self, record, entry)

    def about_task(record: Record, own: NodeIncarnation, session: int, key: str, want: Any, *rest: Any) -> plan.Action:
        action = about(record, own, session, key, want, *rest)
        return plan.ProposeClaim(key, want, session) if isinstance(action, plan.Wait) else action

    patch.setattr(ClaimTask, "apply", apply)
    patch.setattr(plan, "_about_task", about_task)


def _resumed(patch: Patch, current: Callable[[Claim, NodeIncarnation, int], bool], *, spent_too: bool) -> None:
    original = plan._about_task

    def about_task(
        record: Record, own: NodeIncarnation, session: int, key: str, want: Any, alive: Set[int], spent: Set[int]
    ) -> plan.Action:
        claim = record.claims.get(key)
        over = alive if spent_too else alive | spent
        if claim is None or not plan._mine(claim, own) or claim.epoch in over or not current(claim, own, session):
            return original(record, own, session, key, want, alive, spent)
        return plan.Start(key, want, claim.epoch, session)

    patch.setattr(plan, "_about_task", about_task)


def claim_outlives_its_session(patch: Patch) -> None:
    """A held claim is taken up again after a lapse of the lease, without its ended run being released first."""
    original = plan._about_body

    def about_body(
        record: Record, own: NodeIncarnation, session: int | None, key: str, body: plan.OwnRun, want: Any
    ) -> plan.Action | None:
        if body.state == "Ended" and want is not None and session not in (None, body.session):
            return plan.Forget(key)
        return original(record, own, session, key, body, want)

    patch.setattr(plan, "_about_body", about_body)
    _resumed(patch, lambda claim, own, session: claim.boot == own.boot, spent_too=True)


def _of_this_node(claim: Claim, own: NodeIncarnation) -> bool:
    return claim.state == "Held" and (claim.tag, claim.node_id) == (own.tag, own.node_id)


def claim_outlives_its_process(patch: Patch) -> None:
    """A claim of the process before counts as this one's."""
    patch.setattr(plan, "_mine", _of_this_node)
    _resumed(patch, lambda claim, own, session: True, spent_too=False)


def grant_over_a_former_process(patch: Patch) -> None:
    """A node claims over what its former process holds, and is granted it."""
    grant, about = ClaimTask.apply, plan._about_task

    def apply(self: ClaimTask, record: Record, entry: Entry) -> Outcome:
        key = claim_key(self.database, self.kind, self.name)
        last = record.claims.get(key)
        if last is not None and _of_this_node(last, NodeIncarnation(self.tag, self.node_id, self.boot, self.nonce)):
            record = record.with_claim(key, replace(last, state="Released"))
        return grant(self, record, entry)

    def about_task(record: Record, own: NodeIncarnation, session: int, key: str, want: Any, *rest: Any) -> plan.Action:
        action, claim = about(record, own, session, key, want, *rest), record.claims.get(key)
        waits = isinstance(action, plan.Wait) and claim is not None and _of_this_node(claim, own)
        return plan.ProposeClaim(key, want, session) if waits else action

    patch.setattr(ClaimTask, "apply", apply)
    patch.setattr(plan, "_about_task", about_task)


def spent_epoch_runs_again(patch: Patch) -> None:
    """A run whose stop has begun is taken up again when the node becomes responsible again, its release on the way."""
    original = plan._about_body

    def about_body(
        record: Record, own: NodeIncarnation, session: int | None, key: str, body: plan.OwnRun, want: Any
    ) -> plan.Action | None:
        if body.state == "Ended" and want is not None and session == body.session:
            return plan.Forget(key)
        return original(record, own, session, key, body, want)

    patch.setattr(plan, "_about_body", about_body)
    _resumed(patch, lambda claim, own, session: (claim.boot, claim.session) == (own.boot, session), spent_too=True)


def release_before_the_end(patch: Patch) -> None:
    """A claim is released when its body is told to stop, not when it has ended."""
    original = plan._about_body

    def about_body(
        record: Record, own: NodeIncarnation, session: int | None, key: str, body: plan.OwnRun, want: Any
    ) -> plan.Action | None:
        if body.state == "Stopping" and plan._holds(record.claims.get(key), own, body.epoch):
            return plan.Release(key, body.epoch, "told to stop")
        return original(record, own, session, key, body, want)

    patch.setattr(plan, "_about_body", about_body)


def release_of_any_epoch(patch: Patch) -> None:
    """A release ends whatever claim stands under its key."""

    def apply(self: ReleaseTask, record: Record, entry: Entry) -> Outcome:
        claim = record.claims.get(self.key)
        if claim is None or claim.state != "Held":
            return Outcome(record=record, value=False)
        return original(replace(self, epoch=claim.epoch, progress=None), record, entry)

    original = ReleaseTask.apply
    patch.setattr(ReleaseTask, "apply", apply)


def claim_dies_with_its_task(patch: Patch) -> None:
    """Deleting a task deletes the claim that is held on it; tasks are made again under names that were there."""

    def apply(self: DeleteTask, record: Record, entry: Entry) -> Outcome:
        outcome = original(self, record, entry)
        database = record.database(self.database)
        task = database.tasks.get(self.id) if database else None
        if database is None or task is None:
            return outcome
        key = claim_key(database.name, task.kind, task.name)
        return replace(outcome, record=outcome.record.without_claim(key))

    original = DeleteTask.apply
    patch.setattr(DeleteTask, "apply", apply)
