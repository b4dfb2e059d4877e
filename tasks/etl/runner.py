"""The body that all ETL kinds share: documents of this database become something else in a target, batch by batch.

Every transform has its own progress, kept in the target; the record's copy is for display. Documents that fail by
themselves are listed and skipped; when it looks like the script's or the target's fault, nothing is skipped and
the batch is tried again later, while the other transforms of the task go on.
"""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Generic, TypeVar

import msgspec
import structlog
from immutables import Map

from raftnode.documents import change_vector
from raftnode.documents.store.model import Batch, Document
from raftnode.foundation import timestamps
from raftnode.foundation.decoding import JsonDecoder
from raftnode.foundation.names import fold
from raftnode.record.model import Progress
from raftnode.scripting.javascript import ScriptEnded, ScriptError
from raftnode.scripting.sandbox import Sandbox, ScriptWorkers
from tasks.etl.refusals import DocumentRefusal, TransformFailed, accept_refusals
from tasks.etl.sink import EtlSink, Loads, MadeBatch, TooManyPoisonous, off_the_loop
from tasks.etl.stream import TransformProgress, TransformStream
from tasks.etl.transform import BatchTooLarge, TransformedDocument
from tasks.kinds.registry import TaskFailed
from tasks.runtime.context import TaskContext

log = structlog.get_logger(__name__)

POISONOUS_MAX = 3
"""So many documents of a batch are looked for, one by one, on which the script exceeds its limits."""
RETRIED_AT_ONCE = 50
"""So many of the documents that were skipped are tried again in one transaction."""
LOGGED_MAX = 10
IDLE_S = 30.0
DISABLED_S = 3600.0
"""A task whose transforms are all disabled has nothing to do until it is edited, which ends its run."""

_progress_decoder: JsonDecoder[dict[str, TransformProgress]] = JsonDecoder(dict[str, TransformProgress])


Stream = TypeVar("Stream", bound=TransformStream)


class EtlRunner(ABC, Generic[Loads, Stream]):
    """The body of one run."""

    held_up_by: tuple[type[Exception], ...] = (TransformFailed, ScriptError)
    """What holds up one transform and not the others."""
    makes_ahead = False
    """Whether a batch may be made while the one before it is written. A document of both may then be carried twice."""

    def __init__(self, context: TaskContext, transforms: Sequence[str]) -> None:
        self._context, self._transforms = context, transforms
        limits, processes_max = context.settings.script, context.settings.script_processes_max
        self._sandbox = Sandbox(context.shared.get(ScriptWorkers, lambda: ScriptWorkers(limits, processes_max)))
        self._stored: dict[str, TransformProgress] = {}
        self._all: list[Stream] = []
        self._streams: list[Stream] = []
        self._ahead: dict[Stream, asyncio.Task[MadeBatch[Loads]]] = {}

    @abstractmethod
    async def open(self) -> EtlSink[Loads]:
        """Reach the target, and keep the runs before this one out of it. Raises TaskFailed."""

    @abstractmethod
    def streams(self, progress: Mapping[str, TransformProgress]) -> list[Stream]:
        """The transforms, each with its progress by name."""

    @abstractmethod
    async def transformed(
        self, stream: Stream, documents: Sequence[Document]
    ) -> tuple[list[Loads], list[DocumentRefusal]]:
        """What goes to the target for each document, and which documents the script failed on. Raises TooManyPoisonous,
        BatchTooLarge, and what `held_up_by` names."""

    @property
    @abstractmethod
    def replaced(self) -> AbstractSet[str]:
        """The targets of transforms in which a document's next version replaces what it has."""

    async def run(self) -> None:
        """Until cancelled or failed."""
        run, info = self._context.run, self._context.info
        if info.seen_etag is None:
            known = run.progress.last_etags if run.progress else {}
            info.seen_etag = known.get(self._context.documents.database_id, 0)
        sink = await self.open()
        info.fenced = sink.fenced
        try:
            self._stored = _progress_decoder.decode(sink.progress)
            self._all = self.streams({name: self._since_reset(name) for name in self._transforms})
            self._streams = [stream for stream in self._all if stream.enabled]
            self._tell()
            while True:
                moved = [await self._turn(sink, stream) for stream in self._streams]
                if not any(moved):
                    await self._rest(sink)
        finally:
            for stream in list(self._ahead):
                await self._drop_ahead(stream)
            await self._sandbox.close()

    def _since_reset(self, name: str) -> TransformProgress:
        """What counts of a transform's progress that the target has."""
        known = self._stored.get(name, TransformProgress())
        asked = self._context.run.task.resets.get(fold(name), 0)
        if known.reset >= asked:
            return known
        return TransformProgress(processed=known.processed, retried=known.retried, reset=asked)

    async def _rest(self, sink: EtlSink[Loads]) -> None:
        """Wait for documents, or for a transform to be tried again. After a while without any, store what was only
        looked at, and free the engine; from then on the task costs nothing until something happens."""
        if not self._streams:
            await self._context.sleep(DISABLED_S)
            return
        documents = self._context.documents
        etag = min(stream.etag for stream in self._streams if stream.error is None)
        until_s = min((stream.retry_at_s for stream in self._streams if stream.error is not None), default=math.inf)
        idle_until_s = _now_s() + IDLE_S
        changed = await documents.wait_changed(etag, max(0.0, min(until_s, idle_until_s) - _now_s()))
        if changed > etag or until_s <= idle_until_s:
            return
        await self._sandbox.close()
        if any(self._stored.get(s.transform.name, TransformProgress()) != s.progress for s in self._all):
            await self._store_place(sink)
        await documents.wait_changed(etag, None if until_s == math.inf else max(0.0, until_s - _now_s()))

    async def _turn(self, sink: EtlSink[Loads], stream: Stream) -> bool:
        """Carry one batch of a transform over, unless it waits to be tried again. A transform that fails as a whole
        waits by itself; raises TransformFailed when none is left that could go on. False: there was nothing to do."""
        if stream.error is not None and _now_s() < stream.retry_at_s:
            return False
        try:
            if await sink.find(stream.targets):
                stream.goes_on()
                self._tell()
            await self._retry(sink, stream)
            return await self._advance(sink, stream)
        except self.held_up_by as error:
            wait_s = stream.hold_up(error, self._context.settings, _now_s())
            if all(other.error is not None for other in self._streams):
                raise TransformFailed(self._held_up()) from None
            log.warning(
                "A transform has failed and is tried again; the others of its task go on.",
                task=self._context.run.claim_key,
                transform=stream.transform.name,
                reason=stream.error,
                wait_s=round(wait_s, 3),
            )
            self._tell()
            return False

    def _held_up(self) -> str | None:
        """Why transforms wait; None when none does."""
        return "; ".join(stream.error for stream in self._streams if stream.error is not None) or None

    async def _advance(self, sink: EtlSink[Loads], stream: Stream) -> bool:
        """Carry one batch over. False: there was nothing to see."""
        self._context.check()
        try:
            made = await self._made_ahead(stream) or await self._make(stream, stream.etag, beside=False)
        except TooManyPoisonous as error:
            stream.batch_documents_max = max(1, error.documents // 4)
            return True
        except BatchTooLarge as error:
            stream.takes_fewer_than(error.documents)
            return True
        batch = made.batch
        if batch.last_etag == made.after_etag:
            return False
        if not made.todo:
            stream.progress = stream.advanced(batch)
            self._show()
            return True
        if self.makes_ahead and not batch.end:
            self._ahead[stream] = asyncio.create_task(self._make(stream, batch.last_etag, beside=True))
        try:
            await self._store(sink, stream, batch, made.todo, made.loads, made.failures)
        except BaseException:
            await self._drop_ahead(stream)
            raise
        return True

    async def _make(self, stream: Stream, after_etag: int, *, beside: bool) -> MadeBatch[Loads]:
        """Read a batch and transform it, by the progress as it is now."""
        batch = await self._context.documents.after(
            after_etag, stream.collections, limit=stream.batch_documents_max, beside=beside
        )
        todo = await off_the_loop(len(batch.items), stream.pending, batch)
        try:
            loads, failures = await self.transformed(stream, todo) if todo else ([], [])
        except TooManyPoisonous:
            raise TooManyPoisonous(len(todo)) from None
        return MadeBatch(after_etag, batch, todo, loads, failures)

    async def _made_ahead(self, stream: Stream) -> MadeBatch[Loads] | None:
        """The batch that was made while the one before it was written, unless the transform has been set back."""
        making = self._ahead.pop(stream, None)
        made = None if making is None else await making
        return made if made is not None and made.after_etag == stream.etag else None

    async def _drop_ahead(self, stream: Stream) -> None:
        making = self._ahead.pop(stream, None)
        if making is not None:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _retry(self, sink: EtlSink[Loads], stream: Stream) -> None:
        """Try the documents again that the transform has skipped, if that was asked for, until nothing changes."""
        asked = self._context.run.task.retry
        if asked <= stream.progress.retried:
            return
        lags = not change_vector.dominates(self._context.documents.change_vector, stream.progress.had)
        if lags and asked == stream.tried_while_lagging:
            return
        before = stream.progress.failed
        left = before + 1
        while 0 < stream.progress.failed < left:
            left = stream.progress.failed
            ids = [*stream.progress.unlisted, *(failure.document_id for failure in stream.progress.failures)]
            for start in range(0, len(ids), RETRIED_AT_ONCE):
                await self._retry_some(sink, stream, ids[start : start + RETRIED_AT_ONCE])
        if lags and stream.progress.failed:
            # What this copy has not got yet is tried when it has.
            stream.tried_while_lagging = asked
        else:
            stream.progress = msgspec.structs.replace(stream.progress, retried=asked)
        if not before:
            return
        await self._store_place(sink)
        log.info(
            "The documents that a transform had skipped were tried again.",
            task=self._context.run.claim_key,
            transform=stream.transform.name,
            carried=before - stream.progress.failed,
            failed=stream.progress.failed,
            copy_lags=lags,
        )

    async def _retry_some(self, sink: EtlSink[Loads], stream: Stream, ids: Sequence[str]) -> None:
        """At most RETRIED_AT_ONCE documents. What is gone is left out of the list."""
        known = self._context.documents.change_vector
        found = await self._context.documents.get(ids)
        done = set(stream.retriable(ids, found, known))
        due = [d for id, d in zip(ids, found, strict=True) if d is not None and stream.has(d) and id in done]
        try:
            rows, failures = await self.transformed(stream, due)
        except (TooManyPoisonous, BatchTooLarge):
            few = POISONOUS_MAX if len(ids) > POISONOUS_MAX else 1
            for start in range(0, len(ids), few):
                await self._retry_some(sink, stream, ids[start : start + few])
            return

        after = stream.progress

        def progress(refused: Sequence[DocumentRefusal]) -> bytes:
            nonlocal after
            after = stream.tried(done, [*failures, *refused], due)
            return msgspec.json.encode(self._progress() | {stream.transform.name: after})

        await sink.write(rows, progress, accept_refusals)
        stream.progress = after
        self._stored = self._progress()
        self._context.info.rows += sum(one.count for one in rows)
        self._tell()

    async def loaded(self, stream: Stream, documents: Sequence[Document]) -> list[TransformedDocument]:
        """The script's answers. A batch on which it exceeds a limit is halved until the document stands alone. Raises
        TooManyPoisonous."""
        return await self._loaded(stream, documents, []) if documents else []

    async def _loaded(
        self, stream: Stream, documents: Sequence[Document], poisonous: list[str]
    ) -> list[TransformedDocument]:
        """The script's answers. A batch on which it exceeds a limit is halved until the document stands alone."""
        self._context.check()
        try:
            return await stream.transform.apply(
                self._sandbox, documents, partial(self._context.documents.get, beside=True)
            )
        except ScriptEnded as error:
            if len(documents) == 1:
                poisonous.append(documents[0].id)
                if len(poisonous) > POISONOUS_MAX:
                    raise TooManyPoisonous from None
                return [TransformedDocument(error=str(error))]
        middle = len(documents) // 2
        first = await self._loaded(stream, documents[:middle], poisonous)
        return first + await self._loaded(stream, documents[middle:], poisonous)

    async def _store(
        self,
        sink: EtlSink[Loads],
        stream: Stream,
        batch: Batch,
        documents: Sequence[Document],
        rows: Sequence[Loads],
        failures: list[DocumentRefusal],
    ) -> None:
        set_back, before = stream.set_back(batch, documents, self._all, self.replaced), self._progress()
        for other in self._all:
            other.progress = set_back.get(other.transform.name, other.progress)
        name, after = stream.transform.name, stream.progress

        def progress(refused: Sequence[DocumentRefusal]) -> bytes:
            nonlocal after
            after = stream.advanced(batch, documents, [*failures, *refused])
            return msgspec.json.encode(self._progress() | {name: after})

        def check_refusals(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
            stream.check_refusals(accepted, [*failures, *refusals], final=final)

        try:
            failures = failures + await sink.write(rows, progress, check_refusals)
        except TaskFailed:
            for other in self._all:
                other.progress = before[other.transform.name]
            raise
        stream.progress = after
        self._stored = self._progress()
        stream.goes_on()
        stream.accepted += len(documents) - len(failures)
        stream.failed += len(failures)
        stream.takes_more()
        self._context.info.rows += sum(one.count for one in rows)
        self._context.info.batch_done()
        self._log_skipped(name, failures)
        self._tell()

    def _log_skipped(self, transform: str, failures: Sequence[DocumentRefusal]) -> None:
        """A few of them: a batch may have hundreds, and the task lists them."""
        task = self._context.run.claim_key
        for one in failures[:LOGGED_MAX]:
            log.warning("A document was skipped.", task=task, transform=transform, document=one.id, reason=one.reason)
        if more := len(failures[LOGGED_MAX:]):
            log.warning("More documents of the batch were skipped.", task=task, transform=transform, count=more)

    async def _store_place(self, sink: EtlSink[Loads]) -> None:
        """Store the progress without rows."""
        await sink.write([], lambda refused: msgspec.json.encode(self._progress()), accept_refusals)
        self._stored = self._progress()
        self._tell()

    def _tell(self) -> None:
        """Show how far the run is, here and, by way of the record, on every node."""
        self._show()
        self._context.report(self._overall())

    def _progress(self) -> dict[str, TransformProgress]:
        """Of every transform by name, of those that are disabled or gone too: they may come back."""
        return self._stored | {stream.transform.name: stream.progress for stream in self._all}

    def _show(self) -> None:
        info, progress = self._context.info, self._progress()
        mine = [progress.get(name, TransformProgress()) for name in self._transforms]
        info.error = self._held_up()
        info.processed = sum(p.processed for p in progress.values())
        info.failed = sum(p.failed for p in mine)
        info.errors = sorted((failure for p in mine for failure in p.failures), key=lambda failure: failure.at)
        info.details |= {"Transforms": [{"Name": s.transform.name, "SeenEtag": s.etag} for s in self._all]}
        info.seen_etag = min((stream.etag for stream in self._streams), default=None)

    def _overall(self) -> Progress:
        """The whole task's progress for display, and for tombstones: what every transform has seen, also those that
        are disabled, which must still see deletions when they are enabled again."""
        progress = self._progress()
        seen = [progress.get(name, TransformProgress()) for name in self._transforms]
        common = set(seen[0].last_etags).intersection(*(p.last_etags for p in seen)) if seen else set()
        return Progress(
            generation=self._context.run.generation,
            epoch=self._context.run.epoch,
            change_vector=change_vector.meet(*(p.change_vector for p in seen)),
            last_etags=Map({id: min(p.last_etags[id] for p in seen) for id in common}),
            processed=self._context.info.processed,
            at=timestamps.now(),
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
