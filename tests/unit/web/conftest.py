"""A real node of one, in this process."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import config
from raftnode.cli.local_cluster import free_ports
from raftnode.foundation.garbage_collection import GarbageCollector
from raftnode.node import Node
from tests.unit.web.client import Client

READY_S = 20


def free_port() -> int:
    return free_ports(1)[0]


def settings_in(directory: Path, **flags: str) -> config.Settings:
    """Settings of a node of one with its own ports."""
    given = {
        "node.data_dir": str(directory),
        "http.port": str(free_port()),
        "http.body_bytes_max": str(1 << 20),
        "cluster.port": str(free_port()),
        "cluster.profile": "fast",
    }
    return config.load(None, {}, given | {key.replace("__", "."): value for key, value in flags.items()})


@asynccontextmanager
async def running(
    settings: config.Settings, *, join: str | None = None, tls: ssl.SSLContext | None = None, at: str | None = None
) -> AsyncIterator[Client]:
    """A node that is ready, until the block ends. `at`: where it is reached, if not where it says."""
    node = Node(settings, join=join)
    run = asyncio.create_task(node.run())
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or True)) as session:
            client = Client(session, at or settings.url)
            await _ready(client, run)
            client.node = node
            yield client
    finally:
        node.stop()
        await run


async def _ready(client: Client, run: asyncio.Task[None]) -> None:
    async with asyncio.timeout(READY_S):
        while not run.done():
            try:
                if (await client.get("/health/ready")).status == 200:
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.01)
    await run


@pytest.fixture(scope="module", autouse=True)
def _everything_is_looked_at_once() -> Iterator[None]:
    """Each node looks at all objects of its process when it starts. In this one that are those of all tests, and takes
    longer than most of them."""
    GarbageCollector(lambda: None).collect_all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GarbageCollector, "collect_all", lambda _: None)
        yield


@pytest.fixture
async def client(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of a ready node; the parameter, if there is one, are settings of it."""
    given: dict[str, str] = getattr(request, "param", {})
    async with running(settings_in(tmp_path / "data", **given)) as client:
        yield client
