"""Real nodes that run out of disk, of file descriptors, of ports: each has an end that says what to do."""

import asyncio
import contextlib
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from raftnode.cli.local_cluster import NodeDied
from raftnode.foundation.http_client import HttpError
from tests.harness.cluster import PATIENT, Cluster

DISK_BYTES = 96 << 20
FILES_MAX = 512


@contextlib.contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[None]:
    """A file system at that directory; skips the test where there can be none."""
    directory.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", *arguments, str(directory)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs to mount a file system: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1))
    return ballast


def log_of(cluster: Cluster, tag: str) -> str:
    return cluster.nodes[tag].log_file.read_text(errors="replace")


async def reasons(cluster: Cluster, tag: str) -> str:
    """What the node says of its readiness."""
    async with aiohttp.ClientSession() as session, session.get(cluster.nodes[tag].url + "/health/ready") as answer:
        ready = await answer.json()
        assert (answer.status == 200) == ready["Ready"] == (not ready["Reasons"])
        return "\n".join(ready["Reasons"])


async def index(cluster: Cluster, name: str, tag: str) -> None:
    """A command for the log."""
    definition = {"Indexes": [{"Name": name, "Maps": ["from x in docs select x"]}]}
    await cluster.call("PUT", "/databases/Full/admin/indexes", definition, tag)


async def put(cluster: Cluster, id: str, tag: str, text: str = "") -> None:
    body = {"Text": text, "@metadata": {"@collection": "Items"}}
    await cluster.call("PUT", f"/databases/Full/docs?id={id}", body, tag)


async def holds(cluster: Cluster, tag: str, ids: set[str]) -> bool:
    answer: Any = await cluster.call("POST", "/databases/Full/docs", {"Ids": sorted(ids)}, tag)
    return all(answer["Results"])


async def test_a_node_on_a_full_disk_refuses_steps_out_and_comes_back_with_all_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    with mounted(tmp_path / "B", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "raftnode-test"):
        async with Cluster(tmp_path, "ABC", flags=("--cluster.stabilization-time-sec", "0", *PATIENT)) as cluster:
            await cluster.create_database("Full", "ABC")
            kept = {f"items/{n}" for n in range(20)}
            await asyncio.gather(*(put(cluster, id, "B") for id in kept))
            ballast = fill(tmp_path / "B")
            assert "The disk is almost full" in await reasons(cluster, "B")
            # Documents are refused, and the node goes on.
            with pytest.raises(HttpError, match="DatabaseLoadFailureException: The disk refused"):
                await put(cluster, "late", "B", "x" * 1_000_000)
            assert await holds(cluster, "B", kept)
            assert cluster.ended("B") is None
            # The log cannot be written: the others decide without this node, which ends and says why.
            for n in range(200):
                await index(cluster, f"i{n}", "A")
                if cluster.ended("B") is not None:
                    break
            assert await cluster.died("B") == 1
            assert "No space left on device" in log_of(cluster, "B")
            assert "make room on it, then start the node again" in log_of(cluster, "B")
            cluster.start("B")
            assert await cluster.died("B") == 1, "there still is no room"
            await index(cluster, "meanwhile", "C")
            ballast.unlink()
            await cluster.restart("B")
            assert await holds(cluster, "B", kept)
            await put(cluster, "items/again", "B")
            names = {
                index["Name"] for index in (await cluster.call("GET", "/databases/Full/indexes", tag="B"))["Results"]
            }
            assert {"i0", "meanwhile"} <= names


async def test_a_disk_that_takes_no_writes_any_more_ends_the_node_and_the_log_file_may_be_on_it(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "ABC", flags=PATIENT) as cluster:
        await cluster.create_database("Full", "ABC")
        await put(cluster, "items/1", "B")
        process = cluster.nodes["B"].process
        assert process is not None
        # From now on every write of the process to any file fails, as on a file system that went read-only.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(HttpError, match="The disk refused"):
            await put(cluster, "items/2", "B")
        await index(cluster, "i", "A")
        assert await cluster.died("B") == 1
        await cluster.restart("B")
        assert await holds(cluster, "B", {"items/1"})


async def test_a_data_directory_that_is_read_only_is_refused_at_the_start(tmp_path: Path) -> None:
    refusal = r"A cannot be used: .*Read-only file system.*Give one that is writable"
    with mounted(tmp_path / "A", "-t", "tmpfs", "-o", "ro,size=1m", "raftnode-test"):
        await refused_at_the_start(Cluster(tmp_path, "A"), refusal)


@pytest.mark.parametrize("name", ["http", "cluster"])
async def test_a_port_in_use_ends_the_start_and_names_the_setting(tmp_path: Path, name: str) -> None:
    cluster = Cluster(tmp_path, "A")
    with socket.socket() as other:
        other.bind(("127.0.0.1", getattr(cluster.nodes["A"], f"{name}_port")))
        other.listen()
        with pytest.raises(
            NodeDied, match=rf"(?i)cannot listen .*in use.*choose another with {name}.host and {name}.port"
        ):
            async with cluster:
                pass
    async with cluster:
        pass


async def test_without_file_descriptors_new_connections_are_refused_and_everything_else_goes_on(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "A")
    node = cluster.nodes["A"]
    node.prefix = (*node.prefix, "prlimit", f"--nofile={FILES_MAX}:{FILES_MAX}")
    async with cluster:
        await cluster.create_database("Full", "A")
        with contextlib.ExitStack() as crowd:
            for _ in range(FILES_MAX):
                crowd.enter_context(socket.create_connection(("127.0.0.1", node.http_port)))
            # The connection from before still serves: documents, commands and the node's own word.
            await put(cluster, "items/1", "A")
            await index(cluster, "i", "A")
            status = await cluster.call("GET", "/status")
            assert "new HTTP connections are refused" in " ".join(status["Node"]["NotReady"])
            with socket.create_connection(("127.0.0.1", node.http_port)) as late:
                late.settimeout(10)
                answer = await asyncio.to_thread(read_all, late)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"no file descriptor left" in answer
        await cluster.ready("A")
        assert await reasons(cluster, "A") == ""
        assert log_of(cluster, "A").count("New connections are refused") == 1
        assert "New connections are accepted again" in log_of(cluster, "A")


async def test_too_few_file_descriptors_for_a_node_are_refused_at_the_start(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "A")
    cluster.nodes["A"].prefix = (*cluster.nodes["A"].prefix, "prlimit", "--nofile=128:128")
    await refused_at_the_start(cluster, r"may open 128 files at once; a node needs 512.*ulimit -n")


async def refused_at_the_start(cluster: Cluster, refusal: str) -> None:
    with pytest.raises(NodeDied, match=refusal):
        await cluster.__aenter__()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
