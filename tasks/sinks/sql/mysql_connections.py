"""Connections to MariaDB and MySQL: each is set up so that values are kept or refused, and that a lost runner cannot
block its successor.

A session is ours alone. What it sets once is about how values are read and how long the server waits for this side; the
limits on locks are set in each transaction, see `sink`.
"""

import asyncio
from functools import partial
from typing import Any

import aiomysql
from pymysql.constants import CLIENT
from pymysql.err import Error, OperationalError

from tasks.sinks.sql import tls
from tasks.sinks.sql.connection_string import SqlConnection

CONNECT_TIMEOUT_S = 10
NAMES = "utf8mb4"
SQL_MODE = (
    "STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,"
    "NO_AUTO_VALUE_ON_ZERO"
)
"""A value that does not fit is an error, and 0 is 0 in a column that counts by itself."""
IDLE_TRANSACTION_TIMEOUT_S = 3
WAIT_TIMEOUT_S = 8
"""The server ends a session that says nothing for so long, and its transaction: that of a runner that is frozen, dead
or cut off. Longer than the pool keeps a connection that nobody uses; MariaDB ends a transaction that idles sooner."""


class MySqlConnection(aiomysql.Connection):  # type: ignore[misc]
    """One that does without TLS only if it may, and that does not wait for ever."""

    def __init__(self, *, tls_required: bool, answer_timeout_s: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tls_required, self._answer_timeout_s = tls_required, answer_timeout_s

    async def _request_authentication(self) -> None:
        # The driver would go on without encryption, and with the password.
        if self._tls_required and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(2026, "the server offers no TLS, and the connection string requires it")
        await super()._request_authentication()

    async def _read_bytes(self, num_bytes: int) -> bytes:
        async with asyncio.timeout(self._answer_timeout_s):
            return bytes(await super()._read_bytes(num_bytes))

    def is_closed(self) -> bool:
        """Whether this side or the server has closed it."""
        return bool(self.closed or self._reader.at_eof())

    def terminate(self) -> None:
        """Close it without a word to the server."""
        self.close()


async def connect(
    target: SqlConnection, statement_timeout_ms: int, answer_timeout_s: float, **given: Any
) -> MySqlConnection:
    """A connection to the first of the target's hosts that takes rows, its session set up."""
    context = None if target.ssl == "disable" else await tls.context(target)
    required = target.ssl in ("require", *tls.VERIFYING)
    hosts = target.hosts or ((str(target.url.host), target.url.port or 3306),)
    arguments = given | {"ssl": context, "charset": NAMES, "connect_timeout": CONNECT_TIMEOUT_S, "autocommit": False}
    failure: Exception | None = None
    for host, port in hosts:
        make = partial(MySqlConnection, tls_required=required, answer_timeout_s=answer_timeout_s)
        connection = make(**arguments | {"host": host, "port": port})
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection._connect()
                await _set_up(connection, statement_timeout_ms)
            if len(hosts) == 1 or target.session == "any" or not await _only_reads(connection):
                return connection
            failure = OperationalError(1290, f"{host}:{port} takes no writes (read_only)")
        except (Error, OSError) as error:
            failure = error
        connection.close()
    assert failure is not None
    if isinstance(failure, TimeoutError):
        raise OperationalError(2003, f"no answer within {CONNECT_TIMEOUT_S} s") from failure
    raise failure


async def _set_up(connection: MySqlConnection, statement_timeout_ms: int) -> None:
    seconds = max(1, statement_timeout_ms // 1000)
    values = {
        "sql_mode": f"'{SQL_MODE}'",
        "time_zone": "'+00:00'",
        "lock_wait_timeout": seconds,
        "wait_timeout": WAIT_TIMEOUT_S,
        "net_read_timeout": WAIT_TIMEOUT_S,
    }
    if "mariadb" in connection.get_server_info().lower():
        values["idle_transaction_timeout"] = IDLE_TRANSACTION_TIMEOUT_S
        values["max_statement_time"] = statement_timeout_ms / 1000
    await connection.query("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in values.items()))


async def _only_reads(connection: MySqlConnection) -> bool:
    await connection.query("SELECT @@global.read_only")
    # What the driver's own cursors read.
    return bool(int(connection._result.rows[0][0]))
