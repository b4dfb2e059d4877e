"""A MariaDB server for tests: the one that RAFTNODE_TEST_MYSQL_URL names, else a private one of this machine."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomysql
import pytest
from sqlalchemy.engine import make_url

from raftnode.cli.local_cluster import free_ports

VARIABLE = "RAFTNODE_TEST_MYSQL_URL"
USER = "mysql"
START_TIMEOUT_S = 60
PROGRAMS = ("mariadbd", "mariadb-install-db")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a server in which tests may create databases. Skips with the reason where there is none."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    with private_server() as url:
        yield url


@contextlib.contextmanager
def private_server(**options: object) -> Iterator[str]:
    """The same, of a server that is started with these options."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    install, program = (shutil.which(name, path=path) for name in reversed(PROGRAMS))
    if program is None or install is None:
        pytest.skip(f"no MariaDB: set {VARIABLE} or install the package mariadb-server")
    directory = Path(tempfile.mkdtemp(prefix="raftnode-mariadb-"))
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        shutil.chown(directory, USER)
        as_user = {"user": USER}
    try:
        subprocess.run(
            [
                install, "--no-defaults", f"--datadir={directory / 'data'}", "--skip-test-db",
                "--auth-root-authentication-method=normal", "--innodb-flush-log-at-trx-commit=0",
            ],
            check=True,
            capture_output=True,
            cwd=directory,
            **as_user,
        )  # fmt: skip
        with _running(program, directory, options, as_user) as url:
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[aiomysql.Connection]:
    """A connection that commits each statement."""
    parts = make_url(url)
    made = await aiomysql.connect(
        host=parts.host,
        port=parts.port,
        user=parts.username,
        password=parts.password or "",
        db=parts.database,
        charset="utf8mb4",
        autocommit=True,
        sql_mode="'ANSI_QUOTES,STRICT_ALL_TABLES'",
    )
    try:
        yield made
    finally:
        made.close()


async def rows(made: aiomysql.Connection, statement: str) -> list[tuple[Any, ...]]:
    """What a statement gives."""
    async with made.cursor() as cursor:
        await cursor.execute(statement)
        return list(await cursor.fetchall())


@contextlib.asynccontextmanager
async def database(base: str) -> AsyncIterator[str]:
    """The URL of a database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    async with connection(base) as admin:
        await rows(admin, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield make_url(base).set(database=name).render_as_string(hide_password=False)
        await rows(admin, f"DROP DATABASE {name}")


@contextlib.contextmanager
def _running(program: str, directory: Path, options: dict[str, object], as_user: dict[str, Any]) -> Iterator[str]:
    port = free_ports(1)[0]
    every = {
        "datadir": directory / "data",
        "port": port,
        "bind_address": "127.0.0.1",
        "socket": directory / "socket",
        "pid_file": directory / "pid",
        # The tests end their nodes, never this server or the machine.
        "innodb_flush_log_at_trx_commit": 0,
        "innodb_buffer_pool_size": "32M",
        "innodb_log_file_size": "32M",
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in (every | options).items()]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--no-defaults", "--skip-log-bin", "--skip-name-resolve", *arguments],
            stdout=log,
            stderr=log,
            cwd=directory,
            **as_user,
        )
    try:
        _wait_until_ready(process, directory)
        yield f"mysql://root@127.0.0.1:{port}/mysql"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", directory: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while "ready for connections" not in (directory / "log").read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"MariaDB did not start: {(directory / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
