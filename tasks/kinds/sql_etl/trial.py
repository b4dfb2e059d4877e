"""A script of an SQL ETL on one document: the statements that it would make, and what the target says to them."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from raftnode.foundation.decoding import from_json
from raftnode.foundation.names import fold
from tasks.etl.sink import off_the_loop
from tasks.etl.stream import TransformProgress
from tasks.etl.transform import TransformedDocument
from tasks.etl.trial import ScriptFailure, Trial, TrialTools, only, shown_output, transformed
from tasks.kinds.registry import TaskFailed
from tasks.kinds.sql_etl import configuration as sql_configuration
from tasks.kinds.sql_etl.configuration import SqlEtlConfiguration
from tasks.kinds.sql_etl.stream import SqlTransformStream
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.connection_string import SqlConnection
from tasks.sinks.sql.pool import SqlPools
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.trial import rolled_back
from tasks.sinks.sql.types import NotWritable


class SqlCommand(msgspec.Struct, frozen=True, rename="pascal"):
    """A statement, with its values in it: to read, not to run."""

    command_text: str
    params: Sequence[Any] = ()


class TableSummary(msgspec.Struct, frozen=True, rename="pascal"):
    """RavenDB's TableQuerySummary."""

    table_name: str
    commands: Sequence[SqlCommand]


class SqlEtlTrialResult(msgspec.Struct, frozen=True, rename="pascal", kw_only=True):
    """RavenDB's SqlEtlTestScriptResult. `load_errors` are the target's, of a transaction that was rolled back."""

    summary: Sequence[TableSummary] = ()
    transformation_errors: Sequence[ScriptFailure] = ()
    load_errors: Sequence[ScriptFailure] = ()
    slow_sql_warnings: Sequence[Any] = ()
    debug_output: Sequence[str] = ()


async def try_script(trial: Trial, tools: TrialTools) -> SqlEtlTrialResult:
    """See `TriesScripts`."""
    etl = sql_configuration.parse(trial.configuration, trial.database)
    stream = SqlTransformStream(only(etl.transforms), TransformProgress(), "")
    document = trial.document
    gone = document.deleted and stream.takes(document.collection)
    answer = TransformedDocument() if gone else await transformed(stream, document, document, tools)
    loads = [(fold(table), row) for table, row in answer.rows]
    reason = answer.error or stream.misplaced(loads)
    if reason is not None:
        failure = ScriptFailure(document.id, reason)
        return SqlEtlTrialResult(transformation_errors=[failure], debug_output=shown_output(answer))
    rows = stream.written(document, loads, [stream])
    string = trial.database.connection_strings[fold(etl.connection_string_name)]
    target = sql_connection.parse(from_json(string.configuration))
    refused = await _refused(etl, rows, target, tools) if trial.rolled_back else []
    quote = "`" if target.url.drivername == sql_connection.MYSQL else '"'
    summary = await off_the_loop(len(loads), _summary, rows, etl, quote)
    return SqlEtlTrialResult(summary=summary, load_errors=refused, debug_output=shown_output(answer))


async def _refused(
    etl: SqlEtlConfiguration, rows: DocumentRows, target: SqlConnection, tools: TrialTools
) -> list[ScriptFailure]:
    file = target.url.database or ""
    if sql_engine.is_sqlite(target) and not await asyncio.to_thread(Path(file).is_file):
        # To open it would make it.
        return [ScriptFailure(rows.id, f"there is no file {file} on node {tools.node}")]
    pools = tools.shared.get(SqlPools, lambda: SqlPools(tools.settings.sql, f"raftnode {tools.node}"))
    pool = pools.pool(target, etl.command_timeout)
    application = f"raftnode {tools.node} test"
    try:
        refusals = await rolled_back(pool, etl.sql_tables, [rows], application, quoted=etl.quote_tables)
    except (TaskFailed, NotWritable) as error:
        return [ScriptFailure(rows.id, str(error))]
    return [ScriptFailure(refusal.id, refusal.reason) for refusal in refusals]


def _summary(document: DocumentRows, etl: SqlEtlConfiguration, quote: str) -> list[TableSummary]:
    """The statements for each table that the script names: the old rows go, the new ones come."""
    found = []
    for table in etl.sql_tables:
        folded = fold(table.table_name)
        if folded not in document.tables:
            continue
        parts = table.table_name.split(".")
        name = ".".join(_name(part, quote) for part in parts) if etl.quote_tables else table.table_name
        id = _name(table.document_id_column, quote)
        commands = []
        if not table.insert_only_mode:
            ids = ", ".join(_literal(one) for one in (document.id, *document.earlier))
            commands.append(SqlCommand(f"DELETE FROM {name} WHERE {id} IN ({ids})"))
        for of, row in document.rows:
            if of == folded:
                row = {table.document_id_column: document.id} | dict(row)
                commands.append(SqlCommand(_insert(name, row, quote)))
        found.append(TableSummary(table.table_name, commands))
    return found


def _insert(table: str, row: Mapping[str, Any], quote: str) -> str:
    columns, values = ", ".join(_name(name, quote) for name in row), ", ".join(map(_literal, row.values()))
    return f"INSERT INTO {table} ({columns}) VALUES ({values})"


def _name(name: str, quote: str) -> str:
    return quote + name.replace(quote, quote * 2) + quote


def _literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case int() | float() | Decimal():
            return str(value)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return _literal(msgspec.json.encode(value, enc_hook=_as_number).decode())


def _as_number(value: object) -> msgspec.Raw:
    return msgspec.Raw(str(value).encode())
