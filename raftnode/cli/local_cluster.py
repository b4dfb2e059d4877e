"""A cluster of real node processes on this machine's loopback, for the demo and the benchmarks."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from raftnode.foundation.http_client import HttpClient, HttpError
from raftnode.web.views.base import Json

POLL_SEC = 0.02
PORT_MIN = 10_000
share = (0, 1)
"""Which of how many equal shares of the ports `free_ports` looks at: two processes that do so at once, and start what
listens there only later, must have different ones."""


class NodeDied(Exception):
    """A node process ended by itself; the message holds the end of its log."""


@dataclass
class LocalNode:
    """One node process: where it listens, where it keeps its data, and the process while it runs.

    A node that is no founder joins the founders' cluster. `prefix` is a command to run the node's under.
    """

    tag: str
    http_port: int
    cluster_port: int
    data_dir: Path
    log_file: Path
    host: str = "127.0.0.1"
    founder: bool = True
    flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The node's HTTP address."""
        return f"http://{self.host}:{self.http_port}"


class LocalCluster:
    """Starts, freezes, thaws, kills and restarts nodes, and asks them over HTTP. Ends them all on exit."""

    start_timeout_sec = 30.0

    def __init__(self, directory: Path, tags: Sequence[str], *, flags: Sequence[str] = ()) -> None:
        self._flags = tuple(flags)
        ports = free_ports(2 * len(tags))
        self.nodes = {
            tag: LocalNode(
                tag=tag,
                http_port=ports[2 * i],
                cluster_port=ports[2 * i + 1],
                data_dir=directory / tag,
                log_file=directory / f"{tag}.log",
            )
            for i, tag in enumerate(tags)
        }
        directory.mkdir(parents=True, exist_ok=True)
        self.http = HttpClient()

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        for tag in self.nodes:
            self.start(tag)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await self.http.__aexit__(None, None, None)

    def start(self, tag: str) -> None:
        """Starts the node's process; its output goes to its log file."""
        node = self.nodes[tag]
        founders = [n for n in self.nodes.values() if n.founder]
        initial = [{"tag": n.tag, "url": n.url, "cluster_address": f"{n.host}:{n.cluster_port}"} for n in founders]
        announcer = ("--cluster.initial-nodes", json.dumps(initial)) if node.founder else ("--join", founders[0].url)
        command = [
            *(*node.prefix, sys.executable, "-m", "raftnode", "run"),
            *("--node.tag", node.tag, "--node.data-dir", str(node.data_dir)),
            *("--http.host", node.host, "--http.port", str(node.http_port)),
            *("--cluster.host", node.host, "--cluster.port", str(node.cluster_port)),
            *(*announcer, *self._flags, *node.flags),
        ]
        with node.log_file.open("ab") as log:
            node.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def signal(self, tag: str, number: signal.Signals) -> None:
        """Sends a signal to the node's process."""
        process = self.nodes[tag].process
        assert process is not None
        process.send_signal(number)

    def wake(self, tag: str) -> None:
        """Thaws the node's process; it may have ended."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(tag, signal.SIGCONT)

    def ended(self, tag: str) -> int | None:
        """The exit status of the node's process (negative: the signal that ended it), None while it lives."""
        process = self.nodes[tag].process
        return process.poll() if process else None

    def stop(self) -> None:
        """Ends every node, frozen ones too, and waits for each."""
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.process.terminate()
        for node in self.nodes.values():
            if node.process is None:
                continue
            try:
                node.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()

    async def status(self, tag: str) -> Json | None:
        """The node's status as JSON, None while it does not answer."""
        with contextlib.suppress(HttpError):
            answer = await self.http.request("GET", f"{self.nodes[tag].url}/status", timeout_s=1.0)
            status: Json = answer.json()
            return status
        return None

    async def formed(self) -> None:
        """Waits until every node has a lease and knows the whole cluster. Raises NodeDied or TimeoutError."""
        async with asyncio.timeout(self.start_timeout_sec):
            for tag in self.nodes:
                while not await self._ready(tag):
                    self._check_alive(tag)
                    await asyncio.sleep(POLL_SEC)

    async def _ready(self, tag: str) -> bool:
        try:
            await self.http.request("GET", f"{self.nodes[tag].url}/health/ready", timeout_s=1.0)
        except HttpError:
            return False
        return True

    def _check_alive(self, tag: str) -> None:
        status = self.ended(tag)
        if status is not None:
            tail = self.nodes[tag].log_file.read_text(errors="replace")[-2000:]
            raise NodeDied(f"Node {tag} ended with status {status}:\n{tail}")


def free_ports(count: int) -> list[int]:
    """That many loopback ports nobody listens on now, all different.

    They lie below those that the kernel gives to outgoing connections: else a connection could take the port of a node
    that is down for a moment, or dialling that node could connect to itself.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    candidates = range(PORT_MIN + share[0], lowest, share[1])
    for _ in candidates:
        if len(found) == count:
            break
        port = random.choice(candidates)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def pids(cluster: LocalCluster) -> dict[str, int]:
    """The process ids of the living nodes."""
    return {
        tag: node.process.pid for tag, node in cluster.nodes.items() if node.process and node.process.poll() is None
    }


def memory_pss_bytes(pid: int) -> int:
    """The process's proportional share of memory (Linux)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_sec(pid: int) -> float:
    """The processor time the process has used, user and system (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
