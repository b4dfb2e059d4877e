"""Writing to a target in a transaction that is rolled back: what it would refuse."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from tasks.etl.refusals import DocumentRefusal, accept_refusals
from tasks.kinds.registry import TaskFailed
from tasks.sinks.sql import connections as sql_engine
from tasks.sinks.sql.pool import SqlPool
from tasks.sinks.sql.rows import BatchWrite, DocumentRows
from tasks.sinks.sql.tables import SqlTable, reflect


class _RolledBack(Exception):
    """Ends the transaction."""


async def rolled_back(
    pool: SqlPool,
    tables: Sequence[SqlTable],
    documents: Sequence[DocumentRows],
    application: str,
    *,
    quoted: bool = True,
) -> list[DocumentRefusal]:
    """The documents that the target refuses. No row stays, and no task's row in the target is looked at. Raises
    NotWritable, TaskFailed."""
    refused: list[DocumentRefusal] = []
    try:
        async with pool.connection(application) as pooled, pooled.connection.begin():
            connection = pooled.connection
            timeout_ms, path = pool.limits.statement_timeout_ms, pool.target.search_path
            await sql_engine.limit_transaction(connection, application, timeout_ms, path)
            read = partial(connection.run_sync, partial(reflect, tables=tables, quoted=quoted))
            writing = BatchWrite(connection, await read(), read, accept_refusals, lambda: None)
            await writing.write(documents)
            refused = writing.refused
            raise _RolledBack
    except _RolledBack:
        return refused
    except (SQLAlchemyError, OSError) as error:
        raise TaskFailed(f"the target failed: {sql_engine.said(error)}") from error
