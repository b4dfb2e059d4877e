"""Commands whose output nobody can take, and addresses at which somebody else answers: a sentence and an exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from raftnode.cli.local_cluster import free_ports


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTNODE_")}
    return kept | more


def raftnode(*arguments: str, redirect: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
    line = f'exec "$0" -m raftnode "$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, *arguments],
        env=environment(**more), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node, started without standard streams."""
    directory = tmp_path_factory.mktemp("node")
    http, cluster = free_ports(2)
    (directory / "log").touch()
    line = 'exec "$0" -m raftnode run "$@" <&- >&- 2>log'
    node = subprocess.Popen(
        ["bash", "-c", line, sys.executable, "--http.port", str(http), "--cluster.port", str(cluster)],
        cwd=directory, env=environment(),
    )  # fmt: skip
    try:
        while "The cluster is formed" not in (directory / "log").read_text():
            assert node.poll() is None, (directory / "log").read_text()
            time.sleep(0.05)
        address = f"http://127.0.0.1:{http}"
        created = raftnode("--url", address, "db", "create", "дом")
        assert created.returncode == 0, created.stderr
        yield address
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(timeout=30)
    assert node.returncode == 0


COMMANDS = [["db", "list"], ["status"], ["status", "--json"], ["tasks"], ["node", "list"]]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_is_a_sentence(url: str, arguments: list[str]) -> None:
    done = raftnode("--url", url, *arguments, redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "raftnode: standard output cannot be written: No space left on device.\n"


def test_a_closed_output_and_a_reader_that_has_gone_are_no_stack_trace(url: str) -> None:
    for redirect in (">&-", ">&- 2>&-", "| true", "<&- >&-"):
        done = raftnode("--url", url, "status", redirect=redirect)
        assert (done.returncode, done.stderr) == (0, ""), redirect


def test_letters_that_the_encoding_lacks_are_escaped(url: str) -> None:
    done = raftnode("--url", url, "db", "list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u0434\u043e\u043c" in done.stdout
    done = raftnode("--url", url, "status", "--database", "дым", PYTHONIOENCODING="ascii")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


class Stranger(BaseHTTPRequestHandler):
    """Some other service."""

    def do_GET(self) -> None:
        status, kind, body = {
            "page": (200, "text/html", "<html>hello</html>"),
            "json": (200, "application/json", '{"hello": "world"}'),
            "missing": (404, "text/html", "<html>no such page</html>"),
            "proxy": (502, "text/html", "<html>bad gateway</html>"),
        }[self.path.split("/")[1]]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.mark.parametrize(("says", "code"), [("page", 1), ("json", 1), ("missing", 1), ("proxy", 5)])
def test_another_service_at_the_address_is_told_from_a_node(says: str, code: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{says}"
        for command in (["status"], ["db", "create", "Shop"]):
            done = raftnode("--url", address, *command)
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            assert ("not a raftnode node" in done.stderr) == (code == 1), done.stderr
        server.shutdown()


def test_a_frozen_node_does_not_keep_one_from_the_others(url: str, tmp_path: Path) -> None:
    frozen = subprocess.Popen([sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True)
    try:
        assert frozen.stdout is not None
        first = f"http://127.0.0.1:{frozen.stdout.readline().strip()}"
        done = raftnode("--url", f"{first},{url}", "status", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["Node"]["Url"] == url
    finally:
        frozen.kill()
        frozen.wait()


FROZEN = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(600)
"""


INTERRUPTED = """
import os, signal, sys
module = sys.argv.pop(1)
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from raftnode.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.mark.parametrize(
    ("module", "code"), [("raftnode.cli.main", 130), ("raftnode.cli.run", 130), ("raftnode.node", 0)]
)
def test_ctrl_c_while_a_node_starts_ends_it_without_a_stack_trace(tmp_path: Path, module: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "run"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")
