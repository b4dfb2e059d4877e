"""SQL ETL: documents of this database become rows of a relational one, each change exactly once.

Every transform has its own progress, kept in the target beside the rows; the record's copy is for display. Documents
that fail by themselves are listed and skipped; when it looks like the script's or the target's fault, nothing is
skipped and the batch is tried again later, while the other transforms of the task go on.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from immutables import Map

from raftnode.documents import change_vector
from raftnode.documents.store.model import Batch, Document
from raftnode.foundation import timestamps
from raftnode.foundation.decoding import JsonDecoder, from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database, Progress
from raftnode.record.ownership import task_key
from raftnode.scripting.javascript import ScriptEnded, ScriptError
from raftnode.scripting.sandbox import Sandbox, ScriptWorkers
from tasks.etl.transform import TransformedDocument
from tasks.kinds.registry import TaskDefinition, TaskFailed
from tasks.kinds.sql_etl import configuration as sql_configuration
from tasks.kinds.sql_etl.stream import TransformFailed, TransformProgress, TransformStream
from tasks.runtime.context import TaskContext
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import table_owners as sql_owners
from tasks.sinks.sql.fence import FencedTask
from tasks.sinks.sql.pool import SqlPools
from tasks.sinks.sql.rows import DocumentRefusal, DocumentRows
from tasks.sinks.sql.sink import SqlSink
from tasks.sinks.sql.tables import NotWritable

log = structlog.get_logger(__name__)

NAME = "SqlEtl"
POISONOUS_MAX = 3
"""So many documents of a batch are looked for, one by one, on which the script exceeds its limits."""
RETRIED_AT_ONCE = 50
"""So many of the documents that were skipped are tried again in one transaction."""
IDLE_S = 30.0
DISABLED_S = 3600.0
"""A task whose transforms are all disabled has nothing to do until it is edited, which ends its run."""

_progress_decoder: JsonDecoder[dict[str, TransformProgress]] = JsonDecoder(dict[str, TransformProgress])


class SqlEtlKind:
    """The kind "SqlEtl"."""

    name = NAME
    connection_type = "Sql"

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`. The task moves when its name or its connection string's name changes."""
        etl = sql_configuration.parse(configuration, database)
        sql_owners.check_tables(etl, database)
        sql_owners.check_transforms(etl)
        sql_owners.check_tasks(etl, configuration.get("TaskId") or 0, database)
        return TaskDefinition(
            name=etl.name,
            kind=NAME,
            key=task_key(NAME, etl.name, fold(etl.connection_string_name)),
            configuration=msgspec.json.encode(etl),
            mentor=etl.mentor_node or None,
            pinned=etl.pin_to_mentor_node,
            disabled=etl.disabled,
            requires=etl.requires,
            connection_string=etl.connection_string_name,
        )

    def parse_connection(self, configuration: Mapping[str, Any], database: Database) -> None:
        """See `TakesConnections.parse_connection`."""
        sql_connection.check_path(sql_connection.parse(configuration))
        sql_owners.check_connection(configuration, database)

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        await _Runner(context).run()


KIND = SqlEtlKind()


class _TooManyPoisonous(Exception):
    """More than POISONOUS_MAX documents of a batch make the script exceed its limits."""


class _Runner:
    """The body of one run."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._etl = from_json(context.run.task.configuration, sql_configuration.SqlEtlConfiguration)
        if context.run.connection is None:
            raise TaskFailed(f"connection string '{context.run.task.connection_string}' is gone; create it again")
        self._target = sql_connection.parse(from_json(context.run.connection))
        limits, processes_max = context.settings.script, context.settings.script_processes_max
        self._sandbox = Sandbox(context.shared.get(ScriptWorkers, lambda: ScriptWorkers(limits, processes_max)))
        self._stored: dict[str, TransformProgress] = {}
        self._replaced = {fold(t.table_name) for t in self._etl.sql_tables if not t.insert_only_mode}
        self._insert_only = {fold(t.table_name) for t in self._etl.sql_tables if t.insert_only_mode}
        self._all: list[TransformStream] = []
        self._streams: list[TransformStream] = []

    async def run(self) -> None:
        """Until cancelled or failed."""
        run, info = self._context.run, self._context.info
        if info.seen_etag is None:
            known = run.progress.last_etags if run.progress else {}
            info.seen_etag = known.get(self._context.documents.database_id, 0)
        settings = self._context.settings
        pools = self._context.shared.get(SqlPools, lambda: SqlPools(settings.sql, f"raftnode {run.node}"))
        sink = await SqlSink.open(
            pools.pool(self._target),
            self._etl.sql_tables,
            task=FencedTask(
                cluster=run.cluster_id,
                database=fold(run.database),
                kind=NAME,
                id=run.task.id,
                generation=run.generation,
            ),
            epoch=run.epoch,
            guard=self._context.check,
            application=f"raftnode {run.node} {run.claim_key}",
        )
        try:
            self._stored = _progress_decoder.decode(sink.progress)
            id = self._context.documents.database_id
            self._all = [
                TransformStream(t, self._stored.get(t.name, TransformProgress()), id, self._insert_only)
                for t in self._etl.transforms
            ]
            self._streams = [stream for stream in self._all if stream.enabled]
            self._tell()
            while True:
                moved = [await self._turn(sink, stream) for stream in self._streams]
                if not any(moved):
                    await self._rest(sink)
        finally:
            await self._sandbox.close()

    async def _rest(self, sink: SqlSink) -> None:
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

    async def _turn(self, sink: SqlSink, stream: TransformStream) -> bool:
        """Carry one batch of a transform over, unless it waits to be tried again. A transform that fails as a whole
        waits by itself; raises TransformFailed when none is left that could go on. False: there was nothing to do."""
        if stream.error is not None and _now_s() < stream.retry_at_s:
            return False
        try:
            if await sink.find(stream.tables):
                stream.goes_on()
                self._tell()
            await self._retry(sink, stream)
            return await self._advance(sink, stream)
        except (TransformFailed, NotWritable, ScriptError) as error:
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

    async def _advance(self, sink: SqlSink, stream: TransformStream) -> bool:
        """Carry one batch over. False: there was nothing to see."""
        documents = self._context.documents
        batch = await documents.after(stream.etag, stream.collections, limit=stream.batch_documents_max)
        if batch.last_etag == stream.etag:
            return False
        todo = stream.pending(batch)
        if not todo:
            stream.progress = stream.advanced(batch)
            self._show()
            return True
        try:
            rows, failures = await self._transformed(stream, todo)
        except _TooManyPoisonous:
            stream.batch_documents_max = max(1, len(todo) // 4)
            return True
        await self._store(sink, stream, batch, todo, rows, failures)
        return True

    async def _retry(self, sink: SqlSink, stream: TransformStream) -> None:
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

    async def _retry_some(self, sink: SqlSink, stream: TransformStream, ids: Sequence[str]) -> None:
        """At most RETRIED_AT_ONCE documents. What is gone is left out of the list."""
        known = self._context.documents.change_vector
        found = await self._context.documents.get(ids)
        done = set(stream.retriable(ids, found, known))
        due = [d for id, d in zip(ids, found, strict=True) if d is not None and stream.has(d) and id in done]
        try:
            rows, failures = await self._transformed(stream, due)
        except _TooManyPoisonous:
            for start in range(0, len(ids), POISONOUS_MAX):
                await self._retry_some(sink, stream, ids[start : start + POISONOUS_MAX])
            return

        after = stream.progress

        def progress(refused: Sequence[DocumentRefusal]) -> bytes:
            nonlocal after
            after = stream.tried(done, [*failures, *refused], due)
            return msgspec.json.encode(self._progress() | {stream.transform.name: after})

        await sink.write(rows, progress, _accept_refusals)
        stream.progress = after
        self._stored = self._progress()
        self._context.info.rows += sum(len(d.rows) for d in rows)
        self._tell()

    async def _transformed(
        self, stream: TransformStream, documents: Sequence[Document]
    ) -> tuple[list[DocumentRows], list[DocumentRefusal]]:
        """What goes to the sink, a deletion without rows, and which documents the script failed on."""
        live = [d for d in documents if stream.has(d)]
        loaded = iter(await self._loaded(stream, live, []) if live else [])
        rows, failures = [], []
        for document in documents:
            result = next(loaded) if stream.has(document) else TransformedDocument()
            loads = [(fold(table), row) for table, row in result.rows]
            reason = result.error or stream.misplaced(loads)
            if reason is not None:
                failures.append(DocumentRefusal(document.id, reason))
            else:
                rows.append(stream.written(document, loads, self._all))
        return rows, failures

    async def _loaded(
        self, stream: TransformStream, documents: Sequence[Document], poisonous: list[str]
    ) -> list[TransformedDocument]:
        """The script's answers. A batch on which it exceeds a limit is halved until the document stands alone."""
        self._context.check()
        try:
            return await stream.transform.apply(self._sandbox, documents)
        except ScriptEnded as error:
            if len(documents) == 1:
                poisonous.append(documents[0].id)
                if len(poisonous) > POISONOUS_MAX:
                    raise _TooManyPoisonous from None
                return [TransformedDocument(error=str(error))]
        middle = len(documents) // 2
        first = await self._loaded(stream, documents[:middle], poisonous)
        return first + await self._loaded(stream, documents[middle:], poisonous)

    async def _store(
        self,
        sink: SqlSink,
        stream: TransformStream,
        batch: Batch,
        documents: Sequence[Document],
        rows: Sequence[DocumentRows],
        failures: list[DocumentRefusal],
    ) -> None:
        set_back, before = stream.set_back(batch, documents, self._all, self._replaced), self._progress()
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
        if stream.batch_documents_max is not None:
            stream.batch_documents_max *= 2
        self._context.info.rows += sum(len(d.rows) for d in rows)
        self._context.info.batch_done()
        for failure in failures:
            log.warning(
                "A document was skipped.",
                task=self._context.run.claim_key,
                transform=name,
                document=failure.id,
                reason=failure.reason,
            )
        self._tell()

    async def _store_place(self, sink: SqlSink) -> None:
        """Store the progress without rows."""
        await sink.write([], lambda refused: msgspec.json.encode(self._progress()), _accept_refusals)
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
        mine = [progress.get(transform.name, TransformProgress()) for transform in self._etl.transforms]
        info.error = self._held_up()
        info.processed = sum(p.processed for p in progress.values())
        info.failed = sum(p.failed for p in mine)
        info.errors = sorted((failure for p in mine for failure in p.failures), key=lambda failure: failure.at)
        info.seen_etag = min((stream.etag for stream in self._streams), default=None)

    def _overall(self) -> Progress:
        """The whole task's progress for display, and for tombstones: what every transform has seen, also those that
        are disabled, which must still see deletions when they are enabled again."""
        progress = self._progress()
        seen = [progress.get(transform.name, TransformProgress()) for transform in self._etl.transforms]
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


def _accept_refusals(accepted: int, refusals: Sequence[DocumentRefusal], *, final: bool) -> None:
    """Nothing is written, so nothing is refused."""
