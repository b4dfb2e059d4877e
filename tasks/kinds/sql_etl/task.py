"""SQL ETL: documents of this database become rows of a relational one, each change exactly once.

`tasks.etl` has what all ETL kinds share. Every transform's progress is kept in the target beside the rows.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
import structlog

from raftnode.documents.store.model import Document
from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from raftnode.record.model import Database
from raftnode.record.ownership import task_key
from tasks.etl.refusals import DocumentRefusal
from tasks.etl.runner import EtlRunner
from tasks.etl.sink import off_the_loop
from tasks.etl.stream import TransformProgress
from tasks.etl.transform import TransformedDocument
from tasks.etl.trial import Trial, TrialTools
from tasks.kinds.registry import TaskDefinition, TaskFailed
from tasks.kinds.sql_etl import configuration as sql_configuration
from tasks.kinds.sql_etl.stream import SqlTransformStream
from tasks.kinds.sql_etl.trial import try_script
from tasks.runtime.context import TaskContext
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import table_owners as sql_owners
from tasks.sinks.sql import tls as sql_tls
from tasks.sinks.sql.fence import FencedTask
from tasks.sinks.sql.pool import SqlPools
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.sink import SqlSink
from tasks.sinks.sql.types import NotWritable

log = structlog.get_logger(__name__)

NAME = "SqlEtl"


class SqlEtlKind:
    """The kind "SqlEtl"."""

    name = NAME
    connection_type = "Sql"
    resets_transforms = True

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
        target = sql_connection.parse(configuration)
        sql_connection.check_path(target)
        sql_tls.check_files(target)
        sql_owners.check_connection(configuration, database)

    async def try_script(self, trial: Trial, tools: TrialTools) -> msgspec.Struct:
        """See `TriesScripts.try_script`."""
        return await try_script(trial, tools)

    async def run(self, context: TaskContext) -> None:
        """See `TaskKind.run`."""
        await _SqlEtlRun(context).run()


KIND = SqlEtlKind()


class _SqlEtlRun(EtlRunner[DocumentRows, SqlTransformStream]):
    """The body of one run."""

    held_up_by = (*EtlRunner.held_up_by, NotWritable)

    def __init__(self, context: TaskContext) -> None:
        self._etl = from_json(context.run.task.configuration, sql_configuration.SqlEtlConfiguration)
        super().__init__(context, [transform.name for transform in self._etl.transforms])
        if context.run.connection is None:
            raise TaskFailed(f"connection string '{context.run.task.connection_string}' is gone; create it again")
        self._target = sql_connection.parse(from_json(context.run.connection))
        tables = self._etl.sql_tables
        self._insert_only = {fold(table.table_name) for table in tables if table.insert_only_mode}
        self._replaced = {fold(table.table_name) for table in tables if not table.insert_only_mode}

    @property
    def replaced(self) -> AbstractSet[str]:
        """See `EtlRunner`."""
        return self._replaced

    async def open(self) -> SqlSink:
        """See `EtlRunner`."""
        run, settings = self._context.run, self._context.settings
        pools = self._context.shared.get(SqlPools, lambda: SqlPools(settings.sql, f"raftnode {run.node}"))
        return await SqlSink.open(
            pools.pool(self._target, self._etl.command_timeout),
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
            quoted=self._etl.quote_tables,
        )

    def streams(self, progress: Mapping[str, TransformProgress]) -> list[SqlTransformStream]:
        """See `EtlRunner`."""
        id = self._context.documents.database_id
        return [SqlTransformStream(t, progress[t.name], id, self._insert_only) for t in self._etl.transforms]

    async def transformed(
        self, stream: SqlTransformStream, documents: Sequence[Document]
    ) -> tuple[list[DocumentRows], list[DocumentRefusal]]:
        """What goes to the sink, a deletion without rows, and which documents the script failed on."""
        live = [d for d in documents if stream.has(d)]
        loaded = await self.loaded(stream, live)
        return await off_the_loop(sum(len(one.rows) for one in loaded), self._rows, stream, documents, loaded)

    def _rows(
        self, stream: SqlTransformStream, documents: Sequence[Document], answers: Sequence[TransformedDocument]
    ) -> tuple[list[DocumentRows], list[DocumentRefusal]]:
        loaded, rows, failures = iter(answers), [], []
        for document in documents:
            result = next(loaded) if stream.has(document) else TransformedDocument()
            loads = [(fold(table), row) for table, row in result.rows]
            reason = result.error or stream.misplaced(loads)
            if reason is not None:
                failures.append(DocumentRefusal(document.id, reason))
            else:
                rows.append(stream.written(document, loads, self._all))
        return rows, failures
