"""RavenDB ETL: documents of this database become documents of another cluster's.

`tasks.etl` has what all ETL kinds share. Where the destination has the fence, every transform's progress is kept there,
in the transaction of the documents.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
import structlog

from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database, Task
from raftnode.record.ownership import task_key
from tasks.etl.refusals import DocumentRefusal
from tasks.etl.runner import EtlRunner
from tasks.etl.sink import off_the_loop
from tasks.etl.stream import TransformProgress
from tasks.etl.transform import TransformedDocument
from tasks.etl.trial import Trial, TrialTools
from tasks.kinds.connection_types import RavenConnectionString
from tasks.kinds.raven_etl import configuration as raven_configuration
from tasks.kinds.raven_etl.stream import RavenTransformStream
from tasks.kinds.raven_etl.trial import try_script
from tasks.kinds.registry import TaskDefinition, TaskFailed
from tasks.runtime.context import TaskContext
from tasks.sinks.documents.commands import DocumentCommands
from tasks.sinks.documents.sink import DocumentSink, FencedEtl

log = structlog.get_logger(__name__)

NAME = "RavenEtl"


class RavenEtlKind:
    """The kind "RavenEtl"."""

    name = NAME
    resets_transforms = True

    def parse(self, configuration: Mapping[str, Any], database: Database) -> TaskDefinition:
        """See `TaskKind.parse`. The task moves when its name or its connection string's name changes."""
        etl = raven_configuration.parse(configuration, database)
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

    async def try_script(self, trial: Trial, tools: TrialTools) -> msgspec.Struct:
        """See `TriesScripts.try_script`."""
        return await try_script(trial, tools)

    def shown(self, task: Task, connection: bytes | None, details: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `ShowsMore.shown`. RavenDB's OngoingTaskRavenEtl."""
        string = {} if connection is None else from_json(connection, dict[str, Any])
        return {
            "DestinationUrl": details.get("DestinationUrl"),
            "DestinationDatabase": string.get("Database"),
            "TopologyDiscoveryUrls": string.get("TopologyDiscoveryUrls"),
            "ConnectionStringName": task.connection_string,
        }

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        await _RavenEtlRun(context).run()


class _RavenEtlRun(EtlRunner[DocumentCommands, RavenTransformStream]):
    """The body of one run."""

    makes_ahead = True

    def __init__(self, context: TaskContext) -> None:
        self._etl = from_json(context.run.task.configuration, raven_configuration.RavenEtlConfiguration)
        super().__init__(context, [transform.name for transform in self._etl.transforms])
        if context.run.connection is None:
            raise TaskFailed(f"connection string '{context.run.task.connection_string}' is gone; create it again")
        self._string = msgspec.convert(from_json(context.run.connection), RavenConnectionString)

    @property
    def replaced(self) -> AbstractSet[str]:
        """See `EtlRunner`."""
        return {place for stream in self._all for place in stream.targets}

    async def open(self) -> DocumentSink:
        """See `EtlRunner`."""
        run, http = self._context.run, self._context.http
        assert http is not None
        sink = await DocumentSink.open(
            http,
            self._string,
            FencedEtl(
                cluster=run.cluster_id,
                database=fold(run.database),
                task=run.task.id,
                generation=run.generation,
                epoch=run.epoch,
            ),
            guard=self._context.check,
            timeout_s=self._etl.timeout_s,
            unfenced_progress=self._recorded(),
        )
        self._context.info.details |= {"DestinationUrl": sink.url}
        if not sink.fenced:
            log.warning(
                "The destination of an ETL does not know the fence: documents may arrive more than once, and a late "
                "request may leave an old version.",
                task=run.claim_key,
                url=sink.url,
            )
        return sink

    def streams(self, progress: Mapping[str, TransformProgress]) -> list[RavenTransformStream]:
        """See `EtlRunner`."""
        id = self._context.documents.database_id
        return [RavenTransformStream(t, progress[t.name], id) for t in self._etl.transforms]

    async def transformed(
        self, stream: RavenTransformStream, documents: Sequence[Document]
    ) -> tuple[list[DocumentCommands], list[DocumentRefusal]]:
        """See `EtlRunner`."""
        if stream.as_is:
            answers = [TransformedDocument()] * len(documents)
        else:
            given = [d if stream.has(d) else msgspec.structs.replace(d, deleted=True) for d in documents]
            answers = await self.loaded(stream, given)
        return await off_the_loop(len(documents), self._commands, stream, documents, answers)

    def _commands(
        self, stream: RavenTransformStream, documents: Sequence[Document], answers: Sequence[TransformedDocument]
    ) -> tuple[list[DocumentCommands], list[DocumentRefusal]]:
        loads, failures = [], []
        for document, answer in zip(documents, answers, strict=True):
            reason = answer.error or stream.misplaced([(fold(target), body) for target, body in answer.rows])
            if reason is not None:
                failures.append(DocumentRefusal(document.id, reason))
            else:
                loads.append(stream.commands(document, answer, self._all))
        return loads, failures

    def _recorded(self) -> bytes:
        """What the record has of the task's progress, for every transform: some may have come further."""
        progress = self._context.run.progress
        if progress is None:
            return b"{}"
        first, *others = self._transforms
        known = TransformProgress(change_vector=progress.change_vector, last_etags=dict(progress.last_etags))
        counted = msgspec.structs.replace(known, processed=progress.processed)
        return msgspec.json.encode({first: counted, **dict.fromkeys(others, known)})


KIND = RavenEtlKind()
