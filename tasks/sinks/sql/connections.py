"""Connections to SQL targets: SQLAlchemy's async engine, set up so that a lost runner cannot block its successor."""

import logging
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tasks.kinds.registry import TaskFailed
from tasks.sinks.sql import mysql_errors, tls
from tasks.sinks.sql.connection_string import MYSQL, SQLITE, SqlConnection

CONNECT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 0.1
"""A target that does not answer a goodbye in this time does not get one: a body must end when it is told to."""
ANSWER_TIMEOUT_S = 10
"""How much longer than the server's limit for a statement its answer is waited for."""
BUSY_TIMEOUT_S = 10.0
"""How long a runner waits for the lock of an SQLite file."""
BUSY_ATTEMPT_S = 0.05
"""How long one attempt at it lasts: a thread that waits for a lock cannot be interrupted."""
FENCE_TIMEOUT_MS = 5_000
"""How long a runner waits for its task's row before it says who has it, and tries again."""
TRANSACTION_SETTINGS = {
    "idle_in_transaction_session_timeout": 3_000,
    "tcp_keepalives_idle": 3,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "client_connection_check_interval": 1_000,
}
"""With these PostgreSQL ends a transaction whose runner is frozen, dead or cut off, and with it the lock on the fence:
when it waits for the next statement, when it sends an answer, and (from version 14) while it works on a statement. They
are set in each transaction, as behind PgBouncer a session is not ours and its start takes no parameters. What only an
older server lacks is left out (`_SINCE`)."""
_SINCE = {"tcp_user_timeout": 12, "client_connection_check_interval": 14}

_TARGET_CLASSES = {"08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "F0", "HV", "XX001", "XX002"}
"""SQLSTATE classes that have nothing to do with what is written: connection, transaction, login, lack of resources,
locks, an operator, the system. All others may be about one row: types, constraints, triggers, row level security."""
_SERVER_CLASSES = {"08", "25", "26", "28", "3D", "53300", "57P01", "57P02", "57P03", "57P04", "57P05"}
"""Those among them that have nothing to do with the tables either: no transaction of the task can be any better."""
_STATEMENT_CLASSES = {"0A", "42", "55000", "XX"}
"""Classes of what is wrong with a statement, whatever its values; or with a value that is read as a statement is, or
by an extension that has no better code than that of an internal error (hstore)."""

_ROW_ERRORS_OF_SQLITE = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")

# All the pool has to say is that a connection ended badly; one cut short on purpose does, others fail in the sink.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


def is_sqlite(target: SqlConnection) -> bool:
    """Whether the target is a file of SQLite."""
    return target.url.drivername == SQLITE


def create(target: SqlConnection, application: str, statement_timeout_ms: int) -> AsyncEngine:
    """An engine without a pool: `sql_pool` is the pool."""
    if is_sqlite(target):
        engine = create_async_engine(
            target.url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_ATTEMPT_S}
        )
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_immediate)
        return engine
    answer_timeout_s = statement_timeout_ms / 1000 + ANSWER_TIMEOUT_S
    if target.url.drivername == MYSQL:
        return _create_mysql(target, statement_timeout_ms, answer_timeout_s)
    # No statement is prepared for later: behind PgBouncer the next transaction may be on another server connection.
    arguments: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": answer_timeout_s,
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "server_settings": {"application_name": application[:63]},
    }
    if target.ssl in tls.VERIFYING or target.ssl_root or target.ssl_certificate:
        # The driver would look for ~/.postgresql/root.crt, which is another file on each node.
        arguments["async_creator_fn"] = partial(_connect_with_certificates, target)
    elif target.ssl is not None:
        arguments["ssl"] = target.ssl
    if target.hosts:
        arguments["host"] = [host for host, _ in target.hosts]
        arguments["port"] = [port for _, port in target.hosts]
        arguments["target_session_attrs"] = target.session
    return create_async_engine(
        target.url,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args=arguments,
    )


async def _connect_with_certificates(target: SqlConnection, *args: Any, **given: Any) -> Any:
    import asyncpg  # at first use

    return await asyncpg.connect(*args, **given, ssl=await tls.context(target))


def _create_mysql(target: SqlConnection, statement_timeout_ms: int, answer_timeout_s: float) -> AsyncEngine:
    try:
        from tasks.sinks.sql import mysql_connections
    except ImportError:
        raise TaskFailed(
            "a target of MariaDB or MySQL needs a driver that this node lacks; run: pip install 'raftnode[mysql]'"
        ) from None
    connect = partial(mysql_connections.connect, target, statement_timeout_ms, answer_timeout_s)
    return create_async_engine(
        target.url,
        poolclass=NullPool,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={"async_creator_fn": connect},
    )


async def limit_locks(connection: AsyncConnection, timeout_ms: int) -> None:
    """How long statements wait for locks of rows in MariaDB and MySQL, from here on in this session."""
    await connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = {max(1, timeout_ms // 1000)}")


async def limit_transaction(
    connection: AsyncConnection, application: str, statement_timeout_ms: int, search_path: str = ""
) -> None:
    """The first words of a transaction with a server: bounds on how long it can hold what it has locked, and in
    PostgreSQL a name by which others see it, which end with the transaction."""
    fence_timeout_ms = min(FENCE_TIMEOUT_MS, statement_timeout_ms // 2)
    if connection.dialect.name == "mysql":
        await limit_locks(connection, fence_timeout_ms)
    if connection.dialect.name != "postgresql":
        return
    driver = (await connection.get_raw_connection()).driver_connection
    version = driver.get_server_version().major if driver is not None else 0
    values = {k: v for k, v in TRANSACTION_SETTINGS.items() if version >= _SINCE.get(k, 0)} | {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": fence_timeout_ms,
        "application_name": application[:63],
    }
    if search_path:
        values["search_path"] = search_path
    # As text, as it stands before every transaction: to have it put together each time costs more than to execute it.
    settings = ", ".join(f"set_config('{name}', ${place}, true)" for place, name in enumerate(values, 1))
    await connection.exec_driver_sql(f"SELECT {settings}", tuple(map(str, values.values())))


def lock_timeout_ends() -> sa.ColumnElement[str]:
    """An expression that lifts the limit on waiting for locks for the rest of the transaction: rows of the user's own
    tables may be locked for as long as a statement may take."""
    return sa.func.set_config("lock_timeout", "0", sa.true())


async def who_has_it(connection: AsyncConnection, application: str) -> str:
    """The transactions of other runs of this task that are open in PostgreSQL, for an error message. The task is what
    `application` names after the node. Other databases do not know it: empty."""
    if connection.dialect.name != "postgresql":
        return ""
    found = await connection.execute(
        sa.text(
            "SELECT pid, application_name, state, extract(epoch FROM now() - xact_start) AS open_s "
            "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL "
            "AND left(regexp_replace(application_name, '^raftnode [A-Z]+ ', ''), 48) = left(:task, 48) LIMIT 3"
        ),
        {"task": application.split(" ", 2)[-1]},
    )
    return ", ".join(f"'{r.application_name}' (process {r.pid}, open for {r.open_s:.0f} s)" for r in found)


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


def is_lock_timeout(error: BaseException) -> bool:
    """Whether the server gave up waiting for a lock."""
    if mysql_errors.code(error) == mysql_errors.LOCKED:
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == "55P03"


def is_full(error: BaseException) -> bool:
    """Whether the server, or PgBouncer, allows no connection more."""
    if (number := mysql_errors.code(error)) is not None:
        return mysql_errors.is_full(number)
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state == "53300" or "no more connections allowed" in str(error)


def blame(error: BaseException) -> Literal["target", "row", "either"]:
    """Whose fault an error is: the connection's and its server's, or that of what was written. "either" means that the
    statement itself may be at fault: see whether it stands without its values."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return "target"
    if (number := mysql_errors.code(error)) is not None:
        return mysql_errors.blame(number)
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state:
        if {state, state[:2]} & _TARGET_CLASSES and state not in _STATEMENT_CLASSES:
            return "target"
        return "either" if {state, state[:2]} & _STATEMENT_CLASSES else "row"
    name = getattr(error.orig, "sqlite_errorname", "")
    if name == "SQLITE_ERROR":
        return "either"
    return "row" if name.startswith(_ROW_ERRORS_OF_SQLITE) else "target"


def is_of_server(error: BaseException) -> bool:
    """Whether an error says that the connection or its server cannot be used, whatever the table."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return True
    if (number := mysql_errors.code(error)) is not None:
        return mysql_errors.is_of_server(number)
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state:
        return bool({state, state[:2]} & _SERVER_CLASSES)
    return not getattr(error.orig, "sqlite_errorname", "")


def said(error: BaseException) -> str:
    """What a driver said, in one line, without the statement."""
    if mysql_errors.code(error) == mysql_errors.NO_SAVEPOINT and error.__context__ is not None:
        return said(error.__context__)  # what ended the transaction
    origin = getattr(error, "orig", None) or error
    text = str(getattr(origin, "__cause__", None) or origin).strip()
    if mysql_errors.code(error) and len(origin.args) > 1:
        cause = f": {origin.__cause__}" if origin.__cause__ is not None else ""
        text = f"{origin.args[1]} ({origin.args[0]}){cause}"
    return " ".join(text.split()) or type(origin).__name__


def unusable(error: BaseException, target: SqlConnection) -> TaskFailed:
    """The failure of a task whose target cannot be used, without the password."""
    return TaskFailed(target.redacted(f"the target {target} is not usable: {said(error)}"))
