"""Connections to SQL targets: SQLAlchemy's async engine, set up so that a lost runner cannot block its successor."""

import logging
from contextlib import suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DataError as DataErrorOfDriver
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tasks.sql_connection import SQLITE, SqlConnection

CONNECT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 0.1
"""A target that does not answer a goodbye in this time does not get one: a body must end when it is told to."""
STATEMENT_TIMEOUT_S = 60
BUSY_TIMEOUT_S = 10.0
"""How long a runner waits for the lock of an SQLite file."""
BUSY_ATTEMPT_S = 0.05
"""How long one attempt at it lasts: a thread that waits for a lock cannot be interrupted."""
IDLE_IN_TRANSACTION_TIMEOUT_MS = 3_000
"""After this PostgreSQL ends a transaction whose runner is frozen or cut off, and with it the lock on the fence."""

_REFUSING_CLASSES = {"22", "23", "44", "P0"}
"""SQLSTATE classes that blame the data: data exception, constraint, check option, exception raised by a trigger."""

# All the pool has to say is that a connection ended badly; one cut short on purpose does, others fail in the sink.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


def create(connection: SqlConnection, application: str) -> AsyncEngine:
    """An engine without a pool: a sink is one connection."""
    if connection.url.drivername == SQLITE:
        engine = create_async_engine(
            connection.url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_ATTEMPT_S}
        )
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
        return engine
    arguments: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": STATEMENT_TIMEOUT_S,
        "server_settings": {
            "application_name": application[:63],
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
            "tcp_keepalives_idle": "3",
            "tcp_keepalives_interval": "1",
            "tcp_keepalives_count": "3",
        },
    }
    if connection.ssl is not None:
        arguments["ssl"] = connection.ssl
    return create_async_engine(
        connection.url,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args=arguments,
    )


def _configure_sqlite(connection: Any, _: Any) -> None:
    # Without this the driver begins transactions by itself, late and deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


async def abort(driver: Any) -> None:
    """Make whatever the driver's connection is doing fail now, without a word to the server."""
    if hasattr(driver, "terminate"):
        driver.terminate()
    else:
        with suppress(ValueError):  # it is closed already
            await driver.interrupt()


def is_locked(error: BaseException) -> bool:
    """Whether an SQLite file is locked by another writer."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorname", "") == "SQLITE_BUSY"


def blames_data(error: BaseException) -> bool:
    """Whether the database refused what it was given, and not the statement, the connection or everything."""
    if isinstance(error, OverflowError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if state:
            return state[:2] in _REFUSING_CLASSES
        return isinstance(error, IntegrityError | DataErrorOfDriver) or isinstance(
            getattr(error.orig, "__cause__", None), ValueError
        )
    return isinstance(error, StatementError) and isinstance(error.orig, ValueError | TypeError | LookupError)


def said(error: BaseException) -> str:
    """What a driver said, in one line, without the statement."""
    origin = getattr(error, "orig", None) or error
    text = str(getattr(origin, "__cause__", None) or origin).strip()
    return " ".join(text.split()) or type(origin).__name__
