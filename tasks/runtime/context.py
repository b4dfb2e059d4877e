"""What a task's body sees of the daemon. Bodies, also those of plug-ins, use nothing else.

A body acts only between two calls to its context. Each call first looks whether the run is still owned, and raises
NotOwned if not: a body that wakes late learns it before its next effect. Calls come from one flow of the body; what
runs beside it has no effects.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from raftnode.documents.replication.sender import DocumentSender, SenderStatus
from raftnode.documents.store.model import Batch, Document
from raftnode.documents.store.snapshot import SnapshotMoment, StoreSnapshot
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation import timestamps
from raftnode.foundation.http_client import HttpClient
from raftnode.record.model import Database, FailedDocument, Progress, Task
from raftnode.record.progress import STATE_BYTES_MAX, bounded
from raftnode.scripting.javascript import ScriptLimits
from tasks.runtime.operations import Operations
from tasks.runtime.ports import RunRequest
from tasks.runtime.run_journal import FreezeDetector, RunJournal, machine_ns
from tasks.runtime.shared_resources import SharedResources
from tasks.runtime.subprocesses import offspring

ERRORS_MAX = 100


class NotOwned(Exception):
    """The lease or the claim of this run has gone: the body must end without a further effect."""


class SqlLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections a node has to one SQL target, and how long one statement may take there."""

    connections_max: int = 4
    statement_timeout_ms: int = 30_000


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a body's work. Waits between tries are random between half and all of a back-off that doubles."""

    batch_documents_max: int = 1024
    batch_bytes_max: int = 16 << 20
    backoff_min_ms: int = 500
    backoff_max_ms: int = 30_000
    script: ScriptLimits = ScriptLimits()
    script_processes_max: int = 0
    sql: SqlLimits = SqlLimits()


class RunFigures(msgspec.Struct, rename="pascal"):
    """What a run shows of itself. `processed` counts documents since the task began, `rows` and `batches` since this
    run did; `failed` counts the documents that are skipped now, and `errors` are the newest of them. `error` is
    what holds the task up now. `seen_etag` is how far the node's copy has been looked at, None while unknown.
    `last_error` is what held it up last, also once that is over, and `next_run` when it goes on if it rests until then.
    `superseded` counts the runs on this node, the newest in a row, that the target has refused as stale. `fenced` tells
    whether the target keeps runs that were replaced out; None while it is not known. `details` is what the kind shows
    besides, see `tasks.kinds.registry.ShowsMore`."""

    processed: int = 0
    failed: int = 0
    rows: int = 0
    batches: int = 0
    error: str | None = None
    last_batch_at: str | None = None
    errors: list[FailedDocument] = []
    seen_etag: int | None = None
    superseded: int = 0
    fenced: bool | None = None
    last_error: str | None = None
    last_error_at: str | None = None
    next_run: str | None = None
    details: dict[str, Any] = {}

    @classmethod
    def after(cls, progress: Progress | None) -> "RunFigures":
        """What a run that goes on from there knows at its beginning of those before it."""
        if progress is None:
            return cls()
        return cls(processed=progress.processed, failed=progress.failed, errors=list(progress.failures))

    def document_failed(self, id: str, error: str) -> None:
        """List a document that failed by itself."""
        self.failed += 1
        self.errors = [*self.errors[1 - ERRORS_MAX :], FailedDocument(document_id=id, error=error, at=timestamps.now())]

    def note_error(self) -> None:
        """Remember what holds the run up now, if anything does."""
        if self.error and self.error != self.last_error:
            self.last_error, self.last_error_at = self.error, timestamps.now()

    def told_with(self, progress: Progress) -> Progress:
        """The progress with what the run shows of itself, as every node is to know it."""
        shown = msgspec.structs.replace(
            progress, failed=self.failed, failures=tuple(self.errors), error=self.error or ""
        )
        return bounded(shown)

    def batch_done(self) -> None:
        """A batch was stored: whatever was wrong before is over."""
        self.batches += 1
        self.superseded = 0
        self.error = None
        self.last_batch_at = timestamps.now()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run: one claim, one epoch, one body. `connection` is the JSON of the task's connection string."""

    database: str
    task: Task
    claim_key: str
    epoch: int
    generation: int
    cluster_id: str
    node: str
    connection: bytes | None = None
    progress: Progress | None = None


class TaskContext:
    """The body's side of one run. `owned` looks at lease, session and claim; `save` replicates progress.

    `http` is the node's client, `node_url` the address of another node by its tag, None if it is not in the cluster;
    `sending` shows a sender of documents to a node beside those of the group, None when it has ended. `shared` has what
    the bodies of this node use together, `operations` what they do for users. `requests` are what users ask of this
    run. `directory` is the node's, for files that the body needs for a while; `definitions` gives the database as the
    record has it. `acted` is called before each call, so that whoever shows the run sees how fast it is.
    """

    def __init__(
        self,
        run: Run,
        store: DocumentStore,
        *,
        settings: RunSettings,
        info: RunFigures,
        owned: Callable[[], bool],
        save: Callable[[Run, Progress], asyncio.Future[bool]],
        journal: RunJournal,
        freezes: FreezeDetector,
        http: HttpClient | None = None,
        node_url: Callable[[str], str | None] = lambda tag: None,
        sending: Callable[[str, DocumentSender | None], None] = lambda tag, sender: None,
        sent_to: Callable[[str], SenderStatus | None] = lambda tag: None,
        shared: SharedResources | None = None,
        operations: Operations | None = None,
        requests: "asyncio.Queue[RunRequest] | None" = None,
        directory: Path = Path("."),
        acted: Callable[[], None] = lambda: None,
        definitions: Callable[[], Database | None] = lambda: None,
    ) -> None:
        self.run, self.settings, self.info = run, settings, info
        self._owned, self._save, self._journal, self._freezes = owned, save, journal, freezes
        self.http, self.node_url, self.sending, self.sent_to = http, node_url, sending, sent_to
        self.shared, self.operations = shared or SharedResources(), operations or Operations()
        self._requests: asyncio.Queue[RunRequest] = requests or asyncio.Queue()
        self.directory, self.definitions = directory, definitions
        self._active_since: int | None = None
        self._acted = acted
        self.documents = TaskDocuments(self, store)

    def still_owned(self) -> bool:
        """Whether the body may go on. Ask before every effect that does not go through the context."""
        with self._call():
            return self._owned()

    def check(self) -> None:
        """Raises NotOwned unless the body may go on."""
        with self._call():
            self._require()

    async def checkpoint(self, progress: Progress) -> None:
        """Replicate the progress; returns when it is on a majority of disks. Raises NotOwned if it was refused."""
        if progress.last_etags:
            self.info.seen_etag = progress.last_etags.get(self.documents.database_id, self.info.seen_etag)
        assert len(progress.state) <= STATE_BYTES_MAX, "the record stays small"
        with self._checked():
            if not await self._save(self.run, self.info.told_with(progress)):
                raise NotOwned(f"the cluster refused progress of epoch {self.run.epoch}: a newer run holds the task")

    def report(self, progress: Progress) -> None:
        """Replicate the progress soon, for display, where the truth is in the sink."""
        with self._checked():
            self._save(self.run, self.info.told_with(progress))

    async def asked(self, timeout_s: float | None) -> Any:
        """The next thing that a user asks of this run; None if nothing is in the time given. At rest meanwhile."""
        with self._checked():
            try:
                async with asyncio.timeout(timeout_s):
                    request = await self._requests.get()
            except TimeoutError:
                return None
            if not self._owned():
                self._requests.put_nowait(request)  # whoever ends the run answers it
            return request

    async def sleep(self, seconds: float) -> None:
        """Wait; the body is at rest meanwhile."""
        with self._checked():
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def subprocess(
        self,
        *command: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command as a process that ends, with all that it has started itself, when the block is left, and when the
        node ends, however it ends. The other arguments are those of `asyncio.create_subprocess_exec`; without `stdin`
        it reads nothing. A command that cannot be started exits with 127 (not found) or 126, one that a signal has
        ended with 128 and its number. `kill` ends all that the command has started, too. Raises NotOwned.
        """
        self.check()
        async with offspring(*command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env) as process:
            yield process

    @contextmanager
    def _checked(self) -> Iterator[None]:
        with self._call():
            self._require()
            yield
            self._require()

    def _require(self) -> None:
        if not self._owned():
            raise NotOwned(f"epoch {self.run.epoch} of {self.run.claim_key} is over")

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.rest()
        self._acted()
        try:
            yield
        finally:
            self._active_since = machine_ns()

    def begin(self) -> None:
        """The body acts from now on. Called by whoever runs it."""
        self._active_since = machine_ns()

    def rest(self, *, soon: bool = False) -> None:
        """Close the interval in which the body has acted. `soon`: see `RunJournal.write`."""
        since_ns, now_ns = self._active_since, machine_ns()
        if since_ns is None:
            return
        self._active_since = None
        key, epoch = self.run.claim_key, self.run.epoch
        for frozen_ns, thawed_ns in self._freezes.frozen_within(since_ns, now_ns):
            self._journal.write(key, epoch, "active", since_ns, frozen_ns, soon=soon)
            self._journal.write(key, epoch, "frozen", frozen_ns, thawed_ns, soon=soon)
            since_ns = thawed_ns
        self._journal.write(key, epoch, "active", since_ns, now_ns, soon=soon)


class TaskDocuments:
    """The body's view of its database on this node."""

    def __init__(self, context: TaskContext, store: DocumentStore) -> None:
        self._context, self._store = context, store

    @property
    def database_id(self) -> str:
        """The id of the database on this node: the key of `Progress.last_etags`."""
        return self._store.database_id

    @property
    def last_etag(self) -> int:
        """How far the database on this node goes."""
        return self._store.last_etag

    @property
    def change_vector(self) -> str:
        """All that the database on this node knows."""
        return self._store.change_vector

    async def after(
        self,
        etag: int,
        collections: frozenset[str] | None = None,
        *,
        limit: int | None = None,
        bytes_max: int | None = None,
        beside: bool = False,
    ) -> Batch:
        """The next documents and tombstones in the store's order, of these collections (None: of all). With `beside` it
        is no call of the body's flow, which may be acting meanwhile, and nothing is checked."""
        settings = self._context.settings
        limit = min(limit or settings.batch_documents_max, settings.batch_documents_max)
        bytes_max = min(bytes_max or settings.batch_bytes_max, settings.batch_bytes_max)
        with nullcontext() if beside else self._context._checked():
            return await self._store.after(etag, limit=limit, bytes_max=bytes_max, collections=collections)

    async def known_at(self, etag: int) -> str:
        """What the store knew when its order went up to that etag."""
        with self._context._checked():
            return await self._store.known_at(etag)

    def heard_of(self, database_id: str) -> str:
        """What another database, which sends here, is known to hold; empty if it does not."""
        return self._store.heard_of(database_id)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[tuple[SnapshotMoment, StoreSnapshot]]:
        """The store as of now, to be read in slices while writes go on. `check` before each effect of what is read."""
        self._context.check()
        async with self._store.snapshot() as taken:
            yield taken

    async def get(self, ids: Sequence[str], *, beside: bool = False) -> list[Document | None]:
        """The documents under these ids (in any case), None for each that is missing. `beside`: see `after`."""
        with nullcontext() if beside else self._context._checked():
            return await self._store.get(ids)

    async def wait_known(self, after_etag: int, change_vector: str, timeout_s: float | None) -> None:
        """Wait until the store goes beyond that etag, or knows something else, or for the time given."""
        with self._context._checked():
            await self._store.wait_known(after_etag, change_vector, timeout_s)

    async def wait_changed(self, after_etag: int, timeout_s: float | None) -> int:
        """Wait until the store goes beyond that etag, or for the time given; the store's last etag."""
        with self._context._checked():
            return await self._store.wait_changed(after_etag, timeout_s)
