"""Claims: how a node says in the log that it runs a task, and how that ends. One claim, one epoch, one body.

The rules are those of the lease protocol: a claim is granted only where placement names the node and no other run may
still be alive; release and void name the epoch they end, so that a late one can never end a newer run.
"""

from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.cause import cause_of
from raftnode.record.commands.base import Changes, Command, Entry, Outcome, refuse, the_database
from raftnode.record.commands.tasks import ProgressMade, with_ending, with_progress
from raftnode.record.model import (
    GENERATION_STRIDE,
    RUNS_KEPT_MAX,
    Claim,
    ClaimState,
    ClusterNode,
    EndedRun,
    Record,
    RunEnd,
)
from raftnode.record.observer_memory import DECISIONS_MAX, Decision
from raftnode.record.ownership import PlacementGroup, task_named, task_of


class ClaimTask(Command, frozen=True, kw_only=True, tag="ClaimTask"):
    """A node with a lease claims a task. The value of the answer is the epoch."""

    database: str
    kind: str
    name: str
    tag: str
    node_id: str
    boot: int
    session: int
    nonce: int = 0

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Grants if placement names the node, the process is the one the record has of it, and the last claim is
        released, void or of an earlier session of the same process. A repeat gets the same epoch; an older session is
        refused. A claim of an earlier process of the node, like another node's, ends by its release or its void: only
        a directory that was never copied would prove that this process is the only one."""
        database = the_database(record, self.database)
        task = task_named(record, database, self.kind, self.name)
        if task is None:
            refuse("TaskDoesNotExistException", f"Database '{database.name}' has no {self.kind} '{self.name}'.")
        self._check_announced(record)
        if database.disabled or task.disabled:
            refuse("ClaimRefusedException", f"Task '{self.name}' is disabled.")
        responsible, rule = PlacementGroup(record, database).place(task)
        if responsible != self.tag:
            refuse(
                "ClaimRefusedException",
                f"Node '{self.tag}' is not responsible for '{self.name}'; {responsible or 'no node'} is ({rule}).",
            )
        key = database.claim_key(task)
        last = record.claims.get(key)
        if last is not None:
            mine = last.node_id == self.node_id and last.tag == self.tag
            if mine and (last.boot, last.session) > (self.boot, self.session):
                refuse("ClaimRefusedException", f"Session {self.boot}.{self.session} has ended.")
            if last.state == "Held":
                if not mine or not _one_process(last, self):
                    which = f"Start {last.boot} of node" if mine else "Node"
                    refuse("ClaimRefusedException", f"{which} '{last.tag}' still holds epoch {last.epoch}.")
                if (last.boot, last.session) == (self.boot, self.session):
                    return Outcome(record=record, value=last.epoch)
        claim = Claim(
            tag=self.tag,
            node_id=self.node_id,
            boot=self.boot,
            session=self.session,
            nonce=self.nonce,
            epoch=record.generation * GENERATION_STRIDE + entry.index,
            rule=rule,
            cause=cause_of(record, database, task, rule, self.tag, last),
            runs=_runs(last),
        )
        return Outcome(
            record=record.with_claim(key, claim),
            value=claim.epoch,
            changes=Changes(claims=frozenset({key})),
        )

    def _check_announced(self, record: Record) -> None:
        """Refuses unless the record has this process of the node."""
        node = record.nodes.get(self.tag)
        if node is None or node.node_id != self.node_id:
            refuse("ClaimRefusedException", f"Node '{self.tag}' is not known under the id {self.node_id}.")
        if not _one_process(node, self):
            refuse(
                "ClaimRefusedException",
                f"This process is start {self.boot} of node '{self.tag}', and another one, of start {node.boot}, has "
                "announced itself.",
            )


class ReleaseTask(Command, frozen=True, kw_only=True, tag="ReleaseTask"):
    """A run has ended: every body of that epoch is gone. Carries the last progress. `ran_until` is when the body ended,
    told by a kind whose bodies may run on after their claim is void."""

    key: str
    epoch: int
    reason: str = ""
    progress: ProgressMade | None = None
    ran_until: str = ""

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """A release of any other epoch changes nothing, but to note how long a void run went on. The value says whether
        it ended the claim.

        The epoch decides, as the claim of a renamed task stands under another key than its body was started with.
        """
        key = record.held.get(self.epoch)
        if key is None:
            return self._of_void_run(record, entry)
        changed: frozenset[str] = frozenset()
        if self.progress is not None and self.progress.epoch == self.epoch:
            after = with_progress(record, self.progress)
            if after is not None:
                record, changed = after, frozenset({fold(self.progress.database)})
        return Outcome(
            record=_end(record, key, "Released", self.reason),
            value=True,
            changes=Changes(databases=changed, claims=frozenset({key})),
        )

    def _of_void_run(self, record: Record, entry: Entry) -> Outcome:
        """The run counts as released from now on. If another one has begun meanwhile, the decisions say that the task
        ran twice."""
        claim = record.claims.get(self.key)
        if claim is None or not self.ran_until or not ran_on(record, self.key, self.epoch):
            return Outcome(record=record, value=False)
        if claim.epoch == self.epoch:
            noted = replace(claim, state="Released", reason=self._noted(claim.reason))
        else:
            noted = replace(claim, runs=tuple(self._noted_run(run) for run in claim.runs))
            record = _told_twice(record, self, claim, entry)
        changes = Changes(claims=frozenset({self.key}))
        return Outcome(record=record.with_claim(self.key, noted), value=False, changes=changes)

    def _noted_run(self, run: EndedRun) -> EndedRun:
        return run if run.epoch != self.epoch else replace(run, state="Released", reason=self._noted(run.reason))

    def _noted(self, why_void: str) -> str:
        return f"void: {why_void}; its body ran on until {self.ran_until}"


def ran_on(record: Record, key: str, epoch: int) -> bool:
    """Whether the claim of that epoch is void, and nobody has told yet what became of its body."""
    claim = record.claims.get(key)
    if claim is None:
        return False
    ends = ((claim.epoch, claim.state), *((run.epoch, run.state) for run in claim.runs))
    return (epoch, "Void") in ends


def _told_twice(record: Record, release: ReleaseTask, claim: Claim, entry: Entry) -> Record:
    database, kind, name = release.key.split("/", 2)
    known = record.databases.get(database)
    late = next(run for run in claim.runs if run.epoch == release.epoch)
    said = Decision(
        index=entry.index,
        iteration=0,
        at=release.ran_until,
        database=known.name if known else database,
        message=f"{kind} '{name}' ran twice: {late.tag}, which was not heard, went on under epoch {late.epoch} until "
        f"{release.ran_until}, while epoch {claim.epoch} was granted to {claim.tag}.",
        term=entry.term,
    )
    decisions = (*record.observer.decisions, said)[-DECISIONS_MAX:]
    return replace(record, observer=replace(record.observer, decisions=decisions))


def _one_process(known: ClusterNode | Claim, claiming: ClaimTask) -> bool:
    """Whether both are one process. Commands of schema version 1 named no nonce, and were told apart by their boot
    counts alone where they were not granted over each other; journals still hold them."""
    if known.nonce == 0 == claiming.nonce:
        return True
    return (known.boot, known.nonce) == (claiming.boot, claiming.nonce)


def _runs(last: Claim | None) -> tuple[EndedRun, ...]:
    """The runs before a new claim, the last one among them. A held claim that its own process claims again has ended
    with its session."""
    if last is None:
        return ()
    state: RunEnd = "ClaimedAgain" if last.state == "Held" else last.state
    reason = last.reason or ("its session had ended" if last.state == "Held" else "")
    ended = EndedRun(epoch=last.epoch, tag=last.tag, state=state, reason=reason)
    return (*last.runs, ended)[-RUNS_KEPT_MAX:]


def void(record: Record, key: str, epoch: int, reason: str) -> Record | None:
    """The record with that epoch's claim void, or None if another epoch or nobody holds it."""
    claim = record.claims.get(key)
    if claim is None or claim.state != "Held" or claim.epoch != epoch:
        return None
    return _end(_suspected(record, key, claim, reason), key, "Void", reason)


def _suspected(record: Record, key: str, claim: Claim, reason: str) -> Record:
    """A task that has ended a node before, and whose node falls silent again, is taken to have ended that too: waiting
    for the node to come back and say so would cost the next one."""
    found = task_of(record, key)
    if found is None or not found[1].endings:
        return record
    ended = EndedRun(epoch=claim.epoch, tag=claim.tag, state="EndedItsNode", reason=f"its node fell silent: {reason}")
    database = with_ending(record, key, ended)
    return (
        record if database is None else replace(record, databases=record.databases.set(fold(database.name), database))
    )


def without_ended_claims(record: Record, databases: set[str]) -> Record:
    """The record without the ended claims of these databases (folded names), which are gone themselves."""
    ended = [k for k, c in record.claims.items() if c.state != "Held" and k.partition("/")[0] in databases]
    for key in ended:
        record = record.without_claim(key)
    return record


def _end(record: Record, key: str, state: ClaimState, reason: str) -> Record:
    # An ended claim stays for its task's history (the last holder); without a task it would only fill the record.
    if task_of(record, key) is None:
        return record.without_claim(key)
    return record.with_claim(key, replace(record.claims[key], state=state, reason=reason))
