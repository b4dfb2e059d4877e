"""A PgBouncer for tests, in front of a PostgreSQL server."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy.engine import URL

from raftnode.cli.local_cluster import free_ports
from tests.postgres import USER

START_TIMEOUT_S = 30
Mode = Literal["session", "transaction"]


@contextlib.contextmanager
def pgbouncer(server: URL, mode: Mode, *, connections_max: int) -> Iterator[int]:
    """The port of a PgBouncer that has so many connections to each database of the server, with Debian's settings
    otherwise. Skips with the reason where there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer: install the package pgbouncer")
    directory = Path(tempfile.mkdtemp(prefix="raftnode-pgbouncer-"))
    port = free_ports(1)[0]
    (directory / "users.txt").write_text(f'"{server.username}" ""\n', encoding="ascii")
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {directory}/users.txt\npool_mode = {mode}\ndefault_pool_size = {connections_max}\n",
        encoding="ascii",
    )
    for path in (directory, *directory.iterdir()):
        if os.getuid() == 0:  # as root it does not run
            shutil.chown(path, USER)
    command = [program, "-q", str(directory / "pgbouncer.ini")]
    if os.getuid() == 0:
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        _wait_until_it_answers(port, process, directory / "log")
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"PgBouncer did not start: {log.read_text()[-2000:]}")
        time.sleep(0.01)
