"""A cluster of real node processes for scenario tests: started, frozen, killed, restarted and asked over HTTP."""

import asyncio
import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from raftnode.cli.local_cluster import LocalCluster, LocalNode, free_ports, pids
from raftnode.foundation.http_client import HttpError
from tests.harness.runs import Interval, Span, Witness, machine_ns, read

POLL_SEC = 0.04
KILL_POLL_SEC = 0.1
TIMEOUT_SEC = 60.0
LOG_BYTES_SHOWN = 8_000
IMPORT_BATCH = 500
PATIENT = (
    *("--cluster.lease-ms", "1200"),
    *("--cluster.task-stop-timeout-ms", "500"),
    *("--cluster.time-before-moving-to-rehab-ms", "2000"),
)
"""The fast profile with leases that outlast the stalls of a machine with other work: for tests that are not about time,
in which a node that loses its lease, or is ended because it could not stop in time, is a failure."""
STEADY = ("--cluster.election-min-ms", "500", "--cluster.election-max-ms", "1000")
"""Beside PATIENT: a leader that stalls for a moment stays the leader, for tests in which another one is a failure."""


class Cluster(LocalCluster):
    """Real nodes on loopback with the fast profile. Inside `async with` they run and have formed a cluster.

    When the block fails, the end of every node's log is printed, so that pytest shows it. The data directories lie
    below `directory` and stay.
    """

    start_timeout_sec = 100.0  # interpreters that start at once on a busy machine take long

    def __init__(
        self, directory: Path, tags: Sequence[str] = "ABCDE", *, profile: str = "fast", flags: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, tags, flags=("--cluster.profile", profile, *flags))
        self.directory = directory
        self.witness = Witness()
        self._starts: dict[str, int] = {}
        for node in self.nodes.values():
            node.prefix = die_with_us()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self.formed()
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(self, *failure: object) -> None:
        try:
            await super().__aexit__(*failure)
        finally:
            if failure and failure[0] is not None:
                print(self.logs())

    # Processes.

    def start(self, tag: str) -> None:
        """Starts the node's process and remembers how long it lives."""
        super().start(tag)
        process = self.nodes[tag].process
        assert process is not None
        began_ns = machine_ns()
        self._starts[tag] = self._starts.get(tag, 0) + 1
        killed: list[int] = []
        threading.Thread(target=_watch_kill, args=(process.pid, killed), daemon=True).start()
        threading.Thread(target=self._watch, args=(tag, process.pid, began_ns, killed), daemon=True).start()

    def _watch(self, tag: str, pid: int, began_ns: int, killed: list[int]) -> None:
        # WNOWAIT leaves the exit status to Popen, which may have taken it first.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.witness.lives.setdefault(tag, []).append(Span(began_ns, min([machine_ns(), *killed])))

    async def kill(self, tag: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal and waits for the process's end; its exit status."""
        self.signal(tag, number)
        return await self.died(tag)

    async def died(self, tag: str) -> int:
        """Waits until the node's process has ended, by whatever; its exit status (negative: the signal)."""
        lives = self.witness.lives.setdefault(tag, [])
        process = self.nodes[tag].process
        assert process is not None
        status = await asyncio.to_thread(process.wait, TIMEOUT_SEC)
        await self.wait_until(lambda: len(lives) == self._starts[tag], f"the end of {tag}'s process to be noted")
        return status

    async def freeze(self, tag: str) -> None:
        """Stops the node's process (SIGSTOP) as a whole, and waits until it stands still."""
        self.signal(tag, signal.SIGSTOP)
        process = self.nodes[tag].process
        assert process is not None
        await self.wait_until(lambda: _stands_still(process.pid), f"{tag} to stand still")
        self.witness.freezes.setdefault(tag, []).append(Span(machine_ns(), None))

    def thaw(self, tag: str) -> None:
        """Lets a frozen process go on; it may have ended meanwhile."""
        freezes = self.witness.freezes.get(tag, [])
        if freezes and freezes[-1].to_ns is None:
            freezes[-1] = Span(freezes[-1].from_ns, machine_ns())
        self.wake(tag)

    async def restart(self, tag: str) -> None:
        """Starts a node whose process has ended, and waits until it is ready."""
        self.start(tag)
        await self.ready(tag)

    async def add(self, tag: str, *flags: str) -> None:
        """Starts a new node that joins the cluster (flags: `--watcher` ...), and waits until it is ready."""
        self.nodes[tag] = self._newcomer(tag, flags)
        await self.restart(tag)

    def _newcomer(self, tag: str, flags: tuple[str, ...]) -> LocalNode:
        http_port, cluster_port = free_ports(2)
        files = (self.directory / tag, self.directory / f"{tag}.log")
        return LocalNode(tag, http_port, cluster_port, *files, founder=False, flags=flags, prefix=die_with_us())

    def twin(self, tag: str, name: str, data_dir: Path | None = None) -> None:
        """Another node of that tag, with ports of its own, on a copy of the directory as it is now, or on the one that
        is given. It is called `name` here, and not started. What ran is known of each by its own journal."""
        directory = data_dir or self.directory / name
        if data_dir is None:
            shutil.copytree(self.nodes[tag].data_dir, directory, ignore=shutil.ignore_patterns("runs.jsonl*"))
        http_port, cluster_port = free_ports(2)
        files = (directory, self.directory / f"{name}.log")
        self.nodes[name] = LocalNode(
            self.nodes[tag].tag, http_port, cluster_port, *files, founder=False, prefix=die_with_us()
        )

    async def ready(self, tag: str) -> None:
        """Waits until the node says that it is ready."""
        await self.wait_until(lambda: self._ready(tag), f"{tag} to be ready")

    def living(self) -> list[str]:
        """The tags of the nodes whose process has not ended."""
        return list(pids(self))

    # Conditions.

    async def wait_until(self, condition: Callable[[], Any], what: str, timeout_sec: float = TIMEOUT_SEC) -> Any:
        """Waits until the condition (a coroutine function or not) gives something true, and gives that.

        Fails with `what`, the last answer, and how every node sees the cluster.
        """
        last: object = None
        try:
            async with asyncio.timeout(timeout_sec):
                while True:
                    try:
                        value = condition()
                        last = await value if inspect.isawaitable(value) else value
                    except HttpError as error:
                        last = error
                    else:
                        if last:
                            return last
                    await asyncio.sleep(POLL_SEC)
        except TimeoutError:
            views = {tag: _summary(await self.status(tag)) for tag in self.living()}
            views |= {tag: f"ended with status {self.ended(tag)}" for tag in self.nodes if tag not in views}
            seen = "\n".join(f"  {tag}: {json.dumps(view)}" for tag, view in views.items())
            raise AssertionError(
                f"waited {timeout_sec:g} s for {what}; last answer: {last!r}; the nodes' views:\n{seen}"
            ) from None

    def logs(self) -> str:
        """The end of each node's log."""
        parts = []
        for node in self.nodes.values():
            text = node.log_file.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace") if node.process else ""
            parts.append(f"----- log of {node.tag} ({node.log_file}), exit status {self.ended(node.tag)} -----\n{text}")
        return "\n".join(parts)

    # What a user does.

    async def call(self, method: str, path: str, body: Any = None, tag: str | None = None) -> Any:
        """One request to a node (default: any living one), under an id of its own, as the HTTP client repeats one when
        a connection that it has kept turns out to be closed; its answer as JSON. Raises HttpError."""
        node = self.nodes[tag or self.living()[0]]
        headers = {} if method == "GET" else {"raft-request-id": uuid.uuid4().hex}
        answer = await self.http.request(method, node.url + path, json=body, headers=headers, timeout_s=15)
        return answer.json() if answer.body else None

    async def create_database(self, name: str, members: Sequence[str], tag: str | None = None) -> None:
        """A database on those nodes."""
        body = {"DatabaseName": name, "Topology": {"Members": list(members)}}
        await self.call("PUT", f"/admin/databases?name={name}", body, tag)

    async def import_documents(self, database: str, documents: Sequence[dict[str, Any]], tag: str) -> None:
        """Writes documents (their id in `@metadata.@id`) to one node."""
        for i in range(0, len(documents), IMPORT_BATCH):
            batch = documents[i : i + IMPORT_BATCH]
            commands = [{"Type": "PUT", "Id": d["@metadata"]["@id"], "Document": d} for d in batch]
            await self.call("POST", f"/databases/{database}/bulk_docs", {"Commands": commands}, tag)

    async def lead(self, tag: str) -> None:
        """Makes the node the leader."""

        async def leads() -> bool:
            if await self.leader() == tag:
                return True
            await self.call("POST", f"/admin/cluster/reelect?nodeTag={tag}")
            return False

        await self.wait_until(leads, f"{tag} to lead")

    async def put_connection_string(self, database: str, string: dict[str, Any]) -> None:
        """Adds or edits a connection string."""
        await self.call("PUT", f"/databases/{database}/admin/connection-strings", string)

    async def put_etl(self, database: str, task: dict[str, Any], task_id: int | None = None) -> int:
        """Adds an ETL task, or edits the one with that id; its id."""
        query = "" if task_id is None else f"?id={task_id}"
        answer = await self.call("PUT", f"/databases/{database}/admin/etl{query}", task)
        return int(answer["TaskId"])

    async def pin(self, database: str, task_id: int, tag: str, *, pinned: bool) -> None:
        """Makes the node the task's mentor, and pins it there or not."""
        path = f"/databases/{database}/admin/tasks/pin?key={task_id}&node={tag}&pinned={str(pinned).lower()}"
        await self.call("POST", path)

    # What a user sees.

    async def view(self, among: Iterable[str] | None = None) -> dict[str, Any]:
        """The status as a node with a lease sees it (among these nodes); empty while none has one."""
        for tag in self.living() if among is None else among:
            status = await self.status(tag)
            if status and status["Node"]["HasLease"] and status["Node"]["Leader"]:
                return status
        return {}

    async def leader(self, among: Iterable[str] | None = None) -> str:
        """The leader, once there is one."""
        view = await self.wait_until(lambda: self.view(among), "a leader")
        return str(view["Node"]["Leader"])

    async def topology(self, database: str, among: Iterable[str] | None = None) -> dict[str, Any]:
        """The database group."""
        view = await self.wait_until(lambda: self.view(among), "a node with a lease")
        topology: dict[str, Any] = view["Databases"][database]["Topology"]
        return topology

    async def task(self, database: str, name: str, among: Iterable[str] | None = None) -> dict[str, Any]:
        """A task as `/status` shows it."""
        view = await self.wait_until(lambda: self.view(among), "a node with a lease")
        tasks: list[dict[str, Any]] = view["Databases"][database]["Tasks"]
        return next(task for task in tasks if task["TaskName"] == name)

    def runs(self) -> dict[str, list[Interval]]:
        """Who acted on which task (by claim key), from when to when, in order of time."""
        directories = {node.data_dir: name for name, node in reversed(self.nodes.items())}
        return read({name: directory for directory, name in directories.items()}, self.witness)

    async def holder(self, database: str, name: str, among: Iterable[str] | None = None) -> str | None:
        """The node that holds the task's claim now."""
        task = await self.task(database, name, among)
        return task["Holder"] if task["ClaimState"] == "Held" else None


def northwind() -> list[dict[str, Any]]:
    """The sample documents."""
    text = (resources.files("raftnode") / "demo" / "northwind.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def die_with_us() -> tuple[str, ...]:
    """A command prefix under which a node is killed when the test process dies, however it dies."""
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def _watch_kill(pid: int, killed: list[int]) -> None:
    """Notes since when SIGKILL has waited for a process that waits for a disk: it does nothing more, but may last."""
    with contextlib.suppress(OSError):
        while not killed:
            if kill_pending(pid):
                killed.append(machine_ns())
            time.sleep(KILL_POLL_SEC)


def kill_pending(pid: int) -> bool:
    """Raises OSError when there is no such process."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", status, re.MULTILINE)
    return any(int(mask, 16) & (1 << (signal.SIGKILL - 1)) for mask in masks)


def _stands_still(pid: int) -> bool:
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    return all((thread / "stat").read_text().rsplit(")", 1)[1].split()[0] in "TX" for thread in threads)


def _summary(status: dict[str, Any] | None) -> Any:
    if status is None:
        return "does not answer"
    node = {key: status["Node"][key] for key in ("Role", "Leader", "Term", "LeaseLeftMs", "AppliedIndex", "NotReady")}
    databases = {
        name: {
            "Members": database["Topology"]["Members"],
            "Rehabs": database["Topology"]["Rehabs"],
            "Promotables": database["Topology"]["Promotables"],
            "Tasks": {t["TaskName"]: [t["Placement"]["Node"], t["Holder"], t["ClaimState"]] for t in database["Tasks"]},
        }
        for name, database in status["Databases"].items()
    }
    return node | databases
