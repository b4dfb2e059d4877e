"""The HTTP port of a real node under fuzz: bent requests as bytes, and a node that is none the worse."""

import asyncio
import contextlib
import itertools
import os
from pathlib import Path
from random import Random

import pytest

from raftnode.cli.local_cluster import memory_pss_bytes
from tests.fuzz.requests import Requests
from tests.harness.cluster import Cluster
from tests.unit.web.routes import ROUTES, Route

CLIENTS = 24
ROUNDS = 10
WITHOUT_ANSWER_SEC = 0.1
ANSWER_SEC = 30.0
GROWTH_BYTES_MAX = 96 * 1024 * 1024
NUMBERS = itertools.count(1)
SEED = os.environ.get("RAFTNODE_TEST_FUZZ_SEED", "one and the same")
FLAGS = ("--log.format", "json", "--http.request-timeout-ms", "3000", "--http.body-bytes-max", str(1 << 20))


class Visitors:
    """Clients that send what they are given, and note what a node must never answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: dict[bytes, int] = {}
        self.defects: list[str] = []

    async def send(self, requests: list[bytes]) -> None:
        """All of the requests, one connection each, some at a time."""
        waiting = iter(requests)

        async def client() -> None:
            for request in waiting:
                await self._send(request)

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())

    async def _send(self, request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answer = b""
        try:
            with contextlib.suppress(OSError):
                writer.write(request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WITHOUT_ANSWER_SEC):
                        answer += await reader.read(1 << 16)
                # Where a node waits for the rest, it learns that there is none.
                writer.write_eof()
                async with asyncio.timeout(ANSWER_SEC):
                    while data := await reader.read(1 << 16):
                        answer += data
        finally:
            writer.transport.abort()
        status = answer[9:12]
        self.answers[status] = self.answers.get(status, 0) + 1
        if status == b"500" or b"Traceback" in answer:
            self.defects.append(f"{request[:2000]!r} -> {answer[:2000]!r}")


@pytest.mark.parametrize("count", [3000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_bent_requests_harm_nothing(tmp_path: Path, count: int) -> None:
    print(f"replay with RAFTNODE_TEST_FUZZ_SEED={SEED}")
    async with Cluster(tmp_path, "A", flags=FLAGS) as cluster:
        node = cluster.nodes["A"]
        assert node.process is not None
        requests = Requests(Random(SEED), await prepared(cluster))
        visitors = Visitors(node.http_port)
        sizes: list[int] = []
        for _ in range(ROUNDS):
            await visitors.send([requests.next() for _ in range(count // ROUNDS)])
            assert not visitors.defects, visitors.defects[0]
            assert cluster.ended("A") is None
            await cluster.call("GET", "/health/live")
            await prepared(cluster)
            sizes.append(memory_pss_bytes(node.process.pid))
        print(sizes, visitors.answers)
        assert visitors.answers[b"200"] > count / 20, "the attack has to get through to the handlers, too"
        assert sizes[-1] - sizes[0] < GROWTH_BYTES_MAX, f"it grew: {sizes}"
        await cluster.create_database("After", "A")
        await cluster.import_documents("After", [{"@metadata": {"@id": "n/1", "@collection": "Numbers"}}], "A")
        status = await cluster.status("A")
        assert status is not None
        assert list(status["Cluster"]["Nodes"]) == ["A"]
        assert "Traceback" not in node.log_file.read_text(errors="replace")


async def prepared(cluster: Cluster) -> int:
    """Sees to it that there is a database with a task, whatever an attack deleted; the task's id."""
    databases = await cluster.call("GET", "/databases?namesOnly=true")
    if "Shop" not in databases["Databases"]:
        await cluster.create_database("Shop", "A")
    for action, body in (("enable", {"DatabaseNames": ["Shop"]}), ("set-lock", {"Mode": "Unlock"})):
        await cluster.call("POST", f"/admin/databases/{action}", {"DatabaseNames": ["Shop"]} | body)
    for path in ("connection-strings", "etl"):
        route = next(route for route in ROUTES if route.id == ("PUT", f"/databases/{{database}}/admin/{path}"))
        answer = await cluster.call("PUT", f"/databases/Shop/admin/{path}", named(route))
    return int(answer["TaskId"])


def named(route: Route) -> dict[str, object]:
    """The route's body for the names that the other routes speak of. A task of a new name has rows of its own, as a
    table has one writer."""
    if "connection" in route.path:
        return {**route.body, "Name": "target"}
    name = f"orders{next(NUMBERS)}"
    tables = [{**table, "DocumentIdColumn": name} for table in route.body["SqlTables"]]
    return {**route.body, "Name": name, "SqlTables": tables}
