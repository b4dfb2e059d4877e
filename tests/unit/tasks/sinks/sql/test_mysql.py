"""What MariaDB and MySQL do in their own way: the session, transactions that end by themselves, collations, engines,
TLS and several hosts."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trustme
from sqlalchemy.engine import make_url

from raftnode.cli.local_cluster import free_ports
from tasks.kinds.registry import TaskFailed
from tasks.runtime.context import SqlLimits
from tasks.sinks.sql import connection_string as sql_connection
from tasks.sinks.sql.pool import SqlPool
from tasks.sinks.sql.rows import DocumentRows
from tasks.sinks.sql.tables import SqlTable
from tasks.sinks.sql.types import NotWritable
from tests import mariadb
from tests.unit.tasks.conftest import SqlTarget
from tests.unit.tasks.sinks.sql.test_sink import LINES, ORDERS, gone, next_run, order, sink, write

pytestmark = pytest.mark.mysql
T = (SqlTable("t", "id"),)


def row(id: str, **columns: Any) -> DocumentRows:
    return DocumentRows(id, ("t",), [("t", columns)])


async def test_a_runner_frozen_inside_its_transaction_does_not_block_its_successor(mysql_target: SqlTarget) -> None:
    await mysql_target.execute('CREATE TABLE "Orders" ("Id" varchar(50), "Company" varchar(50), "Total" int)')
    async with sink(mysql_target, epoch=10, tables=(ORDERS,)) as frozen:

        async def freeze() -> None:
            async with frozen._pool.connection("frozen") as held, frozen._transaction(held.connection):
                await held.connection.execute(sa.text("INSERT INTO `Orders` VALUES ('o/1', 'frozen', 1)"))
                await held.connection.execute(sa.text("SET SESSION idle_transaction_timeout = 1"))
                await next_run(mysql_target, SqlLimits())

        with pytest.raises(Exception, match=r"(?i)lost connection|gone away|1927|reset"):
            await freeze()
    assert await mysql_target.rows('SELECT "Company" FROM "Orders"') == [("new",)]


async def test_a_transaction_that_has_ended_by_itself_is_not_taken_for_one_that_goes_on(
    mysql_target: SqlTarget,
) -> None:
    """Statements that define tables commit; what follows them has not passed the fence."""
    await mysql_target.execute("CREATE TABLE t (id varchar(50))")
    async with sink(mysql_target, tables=T) as opened:

        async def end() -> None:
            async with opened._pool.connection("ends") as held, opened._transaction(held.connection):
                await held.connection.execute(sa.text("CREATE TABLE other (id int)"))
                await held.connection.execute(sa.text("INSERT INTO t VALUES ('late')"))

        with pytest.raises(Exception, match="SAVEPOINT"):
            await end()
    assert await mysql_target.rows("SELECT * FROM t") == []


async def test_a_deadlock_leaves_nothing_and_the_batch_is_written_again(mysql_target: SqlTarget) -> None:
    await mysql_target.execute(
        "CREATE TABLE t (id varchar(50) PRIMARY KEY, v int)", "INSERT INTO t VALUES ('o/1', 0), ('o/2', 0)"
    )
    async with sink(mysql_target, tables=T) as opened:

        async def deadlock() -> None:
            url = mysql_target.connection.url.render_as_string(hide_password=False)
            async with mariadb.connection(url) as other:
                await mariadb.rows(other, "BEGIN")
                await mariadb.rows(other, "UPDATE t SET v = 1 WHERE id = 'o/1'")
                # The one that has changed more is kept: that is the other.
                await mariadb.rows(other, "INSERT INTO t SELECT concat('x/', seq), 1 FROM seq_1_to_100")
                async with opened._pool.connection("this") as held, opened._transaction(held.connection):
                    await held.connection.execute(sa.text("UPDATE t SET v = 2 WHERE id = 'o/2'"))
                    waiting = mariadb.rows(other, "UPDATE t SET v = 1 WHERE id = 'o/2'")
                    locked = sa.text("UPDATE t SET v = 2 WHERE id = 'o/1'")

                    await asyncio.gather(waiting, held.connection.execute(locked))

        with pytest.raises(Exception, match=r"Deadlock|SAVEPOINT"):
            await deadlock()
        assert await mysql_target.rows("SELECT v FROM t WHERE v = 2") == []
        assert await write(opened, row("o/1", v=3)) == []
    assert await mysql_target.rows("SELECT v FROM t WHERE id = 'o/1'") == [(3,)]


async def test_ids_that_a_collation_takes_for_the_same_are_told_apart(mysql_target: SqlTarget) -> None:
    await mysql_target.execute("CREATE TABLE t (id varchar(50) COLLATE utf8mb4_general_ci, v int)")
    async with sink(mysql_target, tables=T) as opened:
        await write(opened, row("o/e", v=1), row("o/é", v=1), row("o/e ", v=1), row("O/E", v=1))
        await write(opened, row("o/e", v=2))
        await write(opened, DocumentRows("O/E", ("t",)))
    assert set(await mysql_target.rows("SELECT id, v FROM t")) == {("o/e ", 1), ("o/é", 1), ("o/e", 2)}


async def test_rows_that_refer_to_others_go_before_them_and_come_after_them(mysql_target: SqlTarget) -> None:
    await mysql_target.execute(
        'CREATE TABLE "Orders" ("Id" varchar(50) PRIMARY KEY, "Company" varchar(50), "Total" int)',
        'CREATE TABLE "Lines" ("OrderId" varchar(50), "Quantity" int, '
        'FOREIGN KEY ("OrderId") REFERENCES "Orders" ("Id"))',
    )
    async with sink(mysql_target, tables=(LINES, ORDERS)) as opened:
        assert await write(opened, order("o/1", quantities=[1]), order("o/2", quantities=[2])) == []
        assert await write(opened, order("o/1", quantities=[3]), gone("o/2")) == []
    assert await mysql_target.rows('SELECT "OrderId", "Quantity" FROM "Lines"') == [("o/1", 3)]


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("CREATE TABLE t (id varchar(50)) ENGINE=MyISAM", "of engine MyISAM, which has no transactions"),
        ("CREATE VIEW t AS SELECT 'x' AS id", "is a view"),
    ],
)
async def test_tables_without_transactions_are_refused(mysql_target: SqlTarget, definition: str, reason: str) -> None:
    await mysql_target.execute(definition)
    async with sink(mysql_target, tables=T) as opened:
        with pytest.raises(NotWritable, match=reason):
            await write(opened, row("o/1"))


async def test_a_row_that_no_statement_can_hold_is_refused_alone(mysql_target: SqlTarget) -> None:
    await mysql_target.execute("CREATE TABLE t (id varchar(50), v longtext)")
    async with sink(mysql_target, tables=T) as opened:
        refused = await write(opened, row("o/1", v="x" * 9_000_000), row("o/2", v="y" * 5_000_000))
    assert [(r.id, "max_allowed_packet" in r.reason) for r in refused] == [("o/1", True)]
    assert await mysql_target.rows("SELECT id FROM t") == [("o/2",)]


async def test_a_column_that_is_missing_holds_up_the_transform(mysql_target: SqlTarget) -> None:
    await mysql_target.execute("CREATE TABLE t (id varchar(50))")
    async with sink(mysql_target, tables=T) as opened:
        with pytest.raises(NotWritable, match="has no column 'v'"):
            await write(opened, row("o/1", v=1))
        await mysql_target.execute("ALTER TABLE t ADD v int")
        assert await write(opened, row("o/1", v=1)) == []


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that offers TLS, and takes itself for a replica."""
    directory = tmp_path_factory.mktemp("tls", numbered=True)
    issued = authority.issue_cert("localhost")
    files = {"ssl_ca": authority.cert_pem, "ssl_cert": issued.cert_chain_pems[0], "ssl_key": issued.private_key_pem}
    for name, blob in files.items():
        blob.write_to_path(str(directory / name))
    for path in (directory, *directory.parents):  # the server is another user
        with suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
        if path == Path("/tmp"):
            break
    for name in files:
        (directory / name).chmod(0o644)
    with mariadb.private_server(**{name: directory / name for name in files}) as url:
        yield url


async def usable(text: str) -> str:
    """Whether the connection is encrypted: the cipher."""
    given = {"Name": "x", "Type": "Sql", "FactoryName": "MySqlConnector", "ConnectionString": text}
    pool = SqlPool(sql_connection.parse(given), SqlLimits())
    try:
        async with pool.connection("test") as held:
            found = await held.connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'")
            return str(found.mappings().one()["Value"])
    finally:
        await pool.close()


async def test_tls_as_the_mode_says(secure: str, authority: trustme.CA, tmp_path: Path, mysql_url: str) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    port, plain = make_url(secure).port, make_url(mysql_url).port
    at = f"Server=localhost;Port={port};Database=mysql;User ID=root"
    ca = f"SslCa={tmp_path / 'ca.pem'}"
    for mode in ("SslMode=Preferred", "SslMode=Required", f"SslMode=VerifyFull;{ca}"):
        assert (await usable(f"{at};{mode}")).startswith("TLS"), mode
    assert await usable(f"{at};SslMode=None") == ""
    by_address = at.replace("localhost", "127.0.0.1")
    assert (await usable(f"{by_address};SslMode=VerifyCA;{ca}")).startswith("TLS")
    with pytest.raises(TaskFailed, match=r"(?i)certificate|IP address mismatch"):
        await usable(f"{by_address};SslMode=VerifyFull;{ca}")
    with pytest.raises(TaskFailed, match=r"(?i)certificate verify failed"):
        await usable(f"{at};SslMode=VerifyFull")
    with pytest.raises(TaskFailed, match="No such file"):
        await usable(f"{at};SslMode=VerifyFull;SslCa=/nowhere.pem")
    without = f"Server=127.0.0.1;Port={plain};Database=mysql;User ID=root"
    assert await usable(f"{without};SslMode=Preferred") == ""
    with pytest.raises(TaskFailed, match="offers no TLS, and the connection string requires it"):
        await usable(f"{without};SslMode=Required")


async def test_several_hosts_are_tried_until_one_takes_writes(secure: str, mysql_url: str) -> None:
    """The first is not there, the second only reads."""
    replica, writes = make_url(secure).port, make_url(mysql_url).port
    async with mariadb.connection(secure) as made:
        await mariadb.rows(made, "SET GLOBAL read_only = 1")
        at = f"127.0.0.1:{free_ports(1)[0]},127.0.0.1:{replica}"
        text = "Server={};Database=mysql;User ID=root"
        assert await usable(text.format(f"{at},127.0.0.1:{writes}")) == ""
        with pytest.raises(TaskFailed, match="takes no writes"):
            await usable(text.format(at))
        await mariadb.rows(made, "SET GLOBAL read_only = 0")
        assert (await usable(text.format(at))).startswith("TLS")
