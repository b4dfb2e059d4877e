"""Commands about connection strings, ongoing tasks and their progress.

The configuration of a task is opaque here. Its kind has validated it at the door and computed key and traits, so that
a plug-in missing on one node cannot make apply diverge.
"""

from immutables import Map
from msgspec import Struct
from msgspec.structs import replace

from raftnode.foundation.names import fold
from raftnode.record.commands.base import (
    Changes,
    Command,
    Entry,
    Outcome,
    check_labels,
    check_name,
    refuse,
    the_database,
    with_database,
)
from raftnode.record.definition import TaskDefinition
from raftnode.record.model import (
    CONNECTION_STRINGS_MAX,
    GENERATION_STRIDE,
    KEY_MAX,
    RESETS_KEPT_MAX,
    RUNS_KEPT_MAX,
    TASKS_PER_DATABASE_MAX,
    ConnectionString,
    Database,
    EndedRun,
    Progress,
    Record,
    Task,
)
from raftnode.record.ownership import UPDATE_KIND, PlacementGroup, last_claim, task_of
from raftnode.record.progress import bounded

REASON_LENGTH_MAX = 2000


class PutConnectionString(Command, frozen=True, kw_only=True, tag="PutConnectionString"):
    """A connection string is added or replaced."""

    database: str
    name: str
    type: str
    configuration: bytes

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a bad name, another type under the same name, and one too many."""
        database = the_database(record, self.database)
        check_name("Connection string name", self.name)
        folded = fold(self.name)
        present = database.connection_strings.get(folded)
        if present is None and len(database.connection_strings) >= CONNECTION_STRINGS_MAX:
            refuse(
                "LimitExceededException",
                f"A database holds at most {CONNECTION_STRINGS_MAX} connection strings.",
            )
        if present is not None and present.type != self.type:
            refuse(
                "BadRequestException",
                f"Connection string '{self.name}' is of type {present.type}. Choose another name.",
            )
        string = ConnectionString(name=self.name, type=self.type, configuration=self.configuration, etag=entry.index)
        strings = database.connection_strings.set(folded, string)
        return with_database(record, replace(database, connection_strings=strings), entry)


class DeleteConnectionString(Command, frozen=True, kw_only=True, tag="DeleteConnectionString"):
    """A connection string goes."""

    database: str
    name: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses one that a task uses; one that is not there stays so."""
        database = the_database(record, self.database)
        folded = fold(self.name)
        if folded not in database.connection_strings:
            return Outcome(record=record)
        users = [t.name for t in database.tasks.values() if t.connection_string and fold(t.connection_string) == folded]
        if users:
            refuse(
                "BadRequestException",
                f"Connection string '{self.name}' is used by: {', '.join(sorted(users)[:10])}. "
                "Change or delete these tasks first.",
            )
        strings = database.connection_strings.delete(folded)
        return with_database(record, replace(database, connection_strings=strings), entry)


class PutTask(TaskDefinition, Command, frozen=True, kw_only=True, tag="PutTask"):
    """A task is added (`id` 0; its id becomes the log index) or edited (its id stays).

    `etag`, if given, is the one the editor has read. `reset` forgets the progress; with `reset_transforms` these start
    again, and the others go on: for kinds whose transforms have progress of their own. A pin without a mentor pins the
    task to the node that holds it, or would get it.
    """

    database: str
    id: int = 0
    etag: int | None = None
    reset: bool = False
    reset_transforms: tuple[str, ...] = ()

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses a taken name, a kind or key that no placement could use, an unknown task or connection string, a
        stale etag, a changed kind, a rename onto a name whose claim is still held, a pin to nobody, and one task too
        many."""
        database = the_database(record, self.database)
        check_name("Task name", self.name)
        self._check_header()
        present = self._present(database)
        named = database.task_named(self.name)
        if named is not None and (present is None or named.id != present.id):
            refuse(
                "BadRequestException",
                f"Task name '{self.name}' is used by task {named.id}. Choose another name.",
            )
        used = self.connection_string
        if used is not None and fold(used) not in database.connection_strings:
            refuse("BadRequestException", f"Connection string '{used}' does not exist. Create it first.")
        task = Task(
            **{field: getattr(self, field) for field in TaskDefinition.__struct_fields__},
            id=present.id if present else entry.index,
            etag=entry.index,
            placement_index=entry.index,
            retry=present.retry if present else 0,
            resets=self._resets(present, entry.index),
        )
        if task.pinned and task.mentor is None:
            task = replace(task, mentor=_present_holder(record, database, present or task))
        if present is not None and _placement_reads(present) == _placement_reads(task):
            task = replace(task, placement_index=present.placement_index)
        if present is not None:
            record = _rename_claim(record, database, present, task)
        progress = database.progress
        if present is None or self.reset:
            progress = progress.set(task.id, Progress(generation=entry.index))
        changed = replace(database.with_task(task), progress=progress)
        return with_database(record, changed, entry, value=task.id)

    def _resets(self, present: Task | None, index: int) -> Map[str, int]:
        """When transforms were reset alone, the newest ones."""
        known = {} if present is None or self.reset else dict(present.resets)
        known |= {fold(name): index for name in self.reset_transforms}
        return Map(sorted(known.items(), key=lambda item: (item[1], item[0]))[-RESETS_KEPT_MAX:])

    def _check_header(self) -> None:
        if not self.kind.isalnum() or self.kind == UPDATE_KIND:
            refuse("BadRequestException", f"Task kind '{self.kind}' is not a kind of ongoing task.")
        if not 0 <= self.key <= KEY_MAX:
            refuse("BadRequestException", f"Task key {self.key} is out of range; it must be 0 to {KEY_MAX}.")
        check_labels(self.requires)

    def _present(self, database: Database) -> Task | None:
        if self.id == 0:
            if len(database.tasks) >= TASKS_PER_DATABASE_MAX:
                refuse("LimitExceededException", f"A database holds at most {TASKS_PER_DATABASE_MAX} tasks.")
            return None
        present = _the_task(database, self.id)
        if present.kind != self.kind:
            refuse("BadRequestException", f"Task {self.id} is of kind {present.kind} and stays so.")
        if self.etag is not None and self.etag != present.etag:
            refuse(
                "ConcurrencyException",
                f"Task {self.id} was edited meanwhile (etag {present.etag}, yours {self.etag}). Read it again.",
            )
        return present


class SetTaskState(Command, frozen=True, kw_only=True, tag="SetTaskState"):
    """A task is enabled or disabled; its id, key and progress stay."""

    database: str
    id: int
    disabled: bool

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown task. Enabling one that is held back lets it go."""
        database = the_database(record, self.database)
        task = _the_task(database, self.id)
        endings = task.endings if self.disabled else ()
        task = replace(task, disabled=self.disabled, endings=endings, etag=entry.index)
        return with_database(record, database.with_task(task), entry, value=task.id)


class BlameTask(Command, frozen=True, kw_only=True, tag="BlameTask"):
    """A run of the task has ended its node, as that has found when it started again: it held the event loop."""

    key: str
    epoch: int
    tag: str
    reason: str

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The value says whether it counts: once for each run, and not after an edit of the task."""
        ended = EndedRun(epoch=self.epoch, tag=self.tag, state="EndedItsNode", reason=self.reason[:REASON_LENGTH_MAX])
        database = with_ending(record, self.key, ended)
        if database is None:
            return Outcome(record=record, value=False)
        return with_database(record, database, entry, value=True)


def with_ending(record: Record, key: str, ended: EndedRun) -> Database | None:
    """The database with that run held against its task; None if it does not count: the task is gone, knows it already,
    or was edited since."""
    found = task_of(record, key)
    if found is None:
        return None
    database, task = found
    if task.id not in database.tasks or any(run.epoch == ended.epoch for run in task.endings):
        return None
    if ended.epoch % GENERATION_STRIDE < task.etag:
        return None
    return database.with_task(replace(task, endings=(*task.endings, ended)[-RUNS_KEPT_MAX:]))


class SetTaskPin(Command, frozen=True, kw_only=True, tag="SetTaskPin"):
    """A task's preferred mentor node and whether it is pinned there; without a mentor it is pinned to the node that
    holds it, or would get it. The body is not restarted for it."""

    database: str
    id: int
    mentor: str | None
    pinned: bool = False

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown task, and a pin to nobody."""
        database = the_database(record, self.database)
        task, mentor = _the_task(database, self.id), self.mentor
        if self.pinned and mentor is None:
            mentor = _present_holder(record, database, task)
        task = replace(task, mentor=mentor, pinned=self.pinned, placement_index=entry.index)
        return with_database(record, database.with_task(task), entry, value=task.id)


class RetryFailed(Command, frozen=True, kw_only=True, tag="RetryFailed"):
    """The documents that a task has skipped are to be tried again. Its body starts again and does so, now or
    whenever it can, on whatever node it then runs."""

    database: str
    id: int

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown task."""
        database = the_database(record, self.database)
        task = replace(_the_task(database, self.id), retry=entry.index, etag=entry.index)
        return with_database(record, database.with_task(task), entry, value=task.id)


class DeleteTask(Command, frozen=True, kw_only=True, tag="DeleteTask"):
    """A task goes, with its progress. A held claim stands until it is released or void."""

    database: str
    id: int

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """Refuses an unknown task."""
        database = the_database(record, self.database)
        task = _the_task(database, self.id)
        key = database.claim_key(task)
        claim = record.claims.get(key)
        if claim is not None and claim.state != "Held":
            record = record.without_claim(key)
        return with_database(record, database.without_task(task), entry, value=self.id)


class ProgressMade(Struct, frozen=True, kw_only=True):
    """How far one run has come."""

    database: str
    id: int
    epoch: int
    progress: Progress


class Checkpoint(Command, frozen=True, kw_only=True, tag="Checkpoint"):
    """Progress of many runs of one node, coalesced. What does not hold any more is skipped."""

    made: tuple[ProgressMade, ...]

    def apply(self, record: Record, entry: Entry) -> Outcome:
        """The value lists the task ids whose progress was accepted."""
        accepted = []
        changed = set()
        for made in self.made:
            after = with_progress(record, made)
            if after is not None:
                record = after
                accepted.append(made.id)
                changed.add(fold(made.database))
        return Outcome(record=record, value=accepted, changes=Changes(databases=frozenset(changed)))


def with_progress(record: Record, made: ProgressMade) -> Record | None:
    """The record with this progress, or None: another epoch holds the claim, the task is gone or was reset."""
    database = record.database(made.database)
    if database is None or made.id not in database.tasks:
        return None
    claim = record.claims.get(database.claim_key(database.tasks[made.id]))
    if claim is None or claim.state != "Held" or claim.epoch != made.epoch:
        return None
    present = database.progress.get(made.id, Progress(generation=0))
    if made.progress.generation != present.generation or made.progress.processed < present.processed:
        return None
    stored = replace(bounded(made.progress), epoch=made.epoch)
    databases = record.databases.set(
        fold(database.name), replace(database, progress=database.progress.set(made.id, stored))
    )
    return replace(record, databases=databases)


def _present_holder(record: Record, database: Database, task: Task) -> str:
    """The node of the group that holds the task; of a task that nobody holds, the one that would get it now."""
    claim = last_claim(record, database, task)
    stays = set(database.topology.all_nodes) - set(database.deletion_in_progress)
    if claim is not None and claim.state == "Held" and claim.tag in stays:
        return claim.tag
    # Held back or not, enabled or not: it is to be pinned where it would run.
    tag, rule = PlacementGroup(record, database).place(replace(task, pinned=False, endings=()))
    if tag is None:
        refuse(
            "BadRequestException",
            f"Task '{task.name}' cannot be pinned to its node, as it has none ({rule}). Name one in MentorNode.",
        )
    return tag


def _placement_reads(task: Task) -> tuple[object, ...]:
    return task.key, task.mentor, task.pinned, task.traits, task.requires


def _the_task(database: Database, id: int) -> Task:
    task = database.tasks.get(id)
    if task is None:
        refuse("TaskDoesNotExistException", f"Database '{database.name}' has no task {id}.")
    return task


def _rename_claim(record: Record, database: Database, before: Task, after: Task) -> Record:
    """A claim follows its task's new name, so that no other node can claim it while the old body runs."""
    old = database.claim_key(before)
    new = database.claim_key(after)
    claim = record.claims.get(old)
    if old == new or claim is None:
        return record
    there = record.claims.get(new)
    if there is not None and there.state == "Held":
        refuse(
            "ConcurrencyException",
            f"A task named '{after.name}' was deleted and its run has not ended yet. Try again in a moment.",
        )
    return record.without_claim(old).with_claim(new, claim)
