"""A PostgreSQL server for tests: the one that RAFTNODE_TEST_POSTGRES_URL names, else a private one of this machine."""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import asyncpg
import pytest

from raftnode.cli.local_cluster import free_ports

VARIABLE = "RAFTNODE_TEST_POSTGRES_URL"
USER = "postgres"
START_TIMEOUT_S = 30


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a database in which tests may create others. Skips with the reason where there is none."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    with private_server() as url:
        yield url


@contextlib.contextmanager
def private_server(files: Mapping[str, bytes] = MappingProxyType({}), **options: object) -> Iterator[str]:
    """The same, of a server that is started with these options and owns these files, in the parent of its data."""
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    if not binaries:
        pytest.skip(f"no PostgreSQL: set {VARIABLE} or install the package postgresql")
    if os.getuid() == 0 and not _user_exists():
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {USER}")
    directory = Path(tempfile.mkdtemp(prefix="raftnode-postgres-"))
    try:
        for name, content in files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(directory / name, USER)
        with _running(Path(binaries[-1]), directory, options) as url:
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def table(definition: str) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """A table in a database of its own: the database's URL and a connection."""
    name = f"test_{uuid.uuid4().hex}"
    with server() as base:
        admin = await asyncpg.connect(base)
        await admin.execute(f"CREATE DATABASE {name}")
        url = f"{base.rsplit('/', 1)[0]}/{name}"
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE TABLE {definition}")
        try:
            yield url, connection
        finally:
            await connection.close()
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await admin.close()


@contextlib.contextmanager
def _running(binaries: Path, directory: Path, more: Mapping[str, object]) -> Iterator[str]:
    as_user: dict[str, str] = {}
    if os.getuid() == 0:
        shutil.chown(directory, USER)
        as_user = {"user": USER}
    data = directory / "data"
    subprocess.run(
        [binaries / "initdb", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-sync", "-D", data],
        check=True,
        capture_output=True,
        cwd=directory,
        **as_user,  # type: ignore[call-overload]
    )
    port = free_ports(1)[0]
    options = {"listen_addresses": "127.0.0.1", "port": port, "fsync": "off", "unix_socket_directories": directory}
    arguments = [f"--{name}={value}" for name, value in {**options, **more}.items()]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, *arguments],
            stdout=log,
            stderr=log,
            cwd=directory,
            **as_user,  # type: ignore[call-overload]
        )
    try:
        _wait_until_ready(process, binaries, port, directory)
        yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown: sessions that tests have left are no reason to wait
        try:
            process.wait(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", binaries: Path, port: int, directory: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while subprocess.run([binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"PostgreSQL did not start: {(directory / 'log').read_text()[-2000:]}")


def _user_exists() -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER) is not None
    return False
