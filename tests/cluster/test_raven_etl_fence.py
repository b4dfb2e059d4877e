"""The last request of a frozen run of a RavenDB ETL arrives after its successor's first, at whatever node."""

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from raftnode.foundation.http_client import HttpFailed
from tests.harness.cluster import Cluster
from tests.harness.holding_proxy import HoldingProxy

DATABASE, COPY = "Shop", "Copy"
FLAGS = ("--cluster.stabilization-time-sec", "0")
STILL = ("--cluster.time-before-moving-to-rehab-ms", "60000")
"""Nodes of the destination stand still for a while, and nothing is to be decided about that."""


class FenceScene:
    """A source of three nodes and a destination of two, each behind a proxy."""

    def __init__(self, source: Cluster, destination: Cluster, proxies: dict[str, HoldingProxy]) -> None:
        self.source, self.destination, self.proxies = source, destination, proxies

    async def begin(self) -> None:
        """Both databases, the task, and a first document."""
        await self.source.create_database(DATABASE, "ABC")
        await self.destination.create_database(COPY, "XY")
        urls = [self.proxies[tag].url for tag in "XY"]
        await self.source.put_connection_string(
            DATABASE, {"Type": "Raven", "Name": "copy", "Database": COPY, "TopologyDiscoveryUrls": urls}
        )
        transform = {"Name": "all", "ApplyToAllDocuments": True, "Script": ""}
        etl = {"EtlType": "Raven", "Name": "copy", "ConnectionStringName": "copy", "Transforms": [transform]}
        await self.source.put_etl(DATABASE, etl)
        await self.write("first")
        await self.stands("first", "XY")

    async def write(self, content: str, tag: str | None = None) -> None:
        await self.source.call("PUT", f"/databases/{DATABASE}/docs?id=orders/1-A", {"Is": content}, tag)

    async def content(self, tag: str) -> str | None:
        """What stands at a node of the destination."""
        with contextlib.suppress(HttpFailed):
            answer = await self.destination.call("GET", f"/databases/{COPY}/docs?id=orders/1-A", tag=tag)
            return str(answer["Results"][0]["Is"])
        return None

    async def stands(self, content: str | None, tags: str) -> None:
        """Waits until these nodes of the destination have that."""
        for tag in tags:

            async def there(tag: str = tag) -> bool:
                return await self.content(tag) == content

            await self.destination.wait_until(there, f"{tag} to have {content!r}")

    async def freeze_in_a_request(self, content: str) -> str:
        """The holder writes that to X, the request is held back, and the holder stands still until it is dead."""
        self.proxies["X"].hold(f'"Is":"{content}"'.encode())
        await self.write(content)
        await self.source.wait_until(self.proxies["X"].held.is_set, "the request to be held")
        holder = await self.source.wait_until(lambda: self.source.holder(DATABASE, "copy"), "a holder")
        await self.source.freeze(holder)
        return str(holder)

    async def moved(self, away: str) -> None:
        """Waits until another node holds the task."""
        others = [tag for tag in self.source.living() if tag != away]

        async def there() -> bool:
            return await self.source.holder(DATABASE, "copy", others) not in (None, away)

        await self.source.wait_until(there, "the task to move")

    async def revive(self, tag: str) -> None:
        """The frozen node has been killed by its kernel, and starts again."""
        self.source.thaw(tag)
        assert await self.source.died(tag) == -signal.SIGKILL
        await self.source.restart(tag)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[FenceScene]:
    async with (
        Cluster(tmp_path / "source", "ABC", flags=FLAGS) as source,
        Cluster(tmp_path / "destination", "XY", flags=STILL) as destination,
        HoldingProxy(destination.nodes["X"].http_port) as x,
        HoldingProxy(destination.nodes["Y"].http_port) as y,
    ):
        made = FenceScene(source, destination, {"X": x, "Y": y})
        await made.begin()
        yield made


async def answered(scene: FenceScene) -> str:
    """What the node said to the request that was held, once it has arrived."""
    x = scene.proxies["X"]
    x.release()
    await scene.destination.wait_until(lambda: x.answers, "the late request to be answered")
    return x.answers[0].split(b"\r\n", 1)[0].decode()


@pytest.mark.timeout(240)
async def test_a_late_request_of_a_frozen_run_stands_nowhere(scene: FenceScene) -> None:
    """At the same node as its successor's first; at another one, which has heard of the successor by replication; and
    at one that has not, as the destination is partitioned: there it is taken, and does not stand."""
    living = dict.fromkeys("ABC")
    frozen = await scene.freeze_in_a_request("late at the same node")
    await scene.write("second", next(tag for tag in living if tag != frozen))
    await scene.moved(frozen)
    await scene.stands("second", "XY")
    assert "409" in await answered(scene)
    await scene.stands("second", "XY")
    await scene.revive(frozen)

    frozen = await scene.freeze_in_a_request("late at another node")
    scene.proxies["X"].closed = True
    await scene.write("third", next(tag for tag in living if tag != frozen))
    await scene.moved(frozen)
    await scene.stands("third", "XY")
    assert "409" in await answered(scene), "X has heard of the successor from Y"
    await scene.stands("third", "XY")
    await scene.revive(frozen)
    scene.proxies["X"].closed = False
    await scene.source.call("PUT", f"/databases/{DATABASE}/docs?id=orders/2-A", {})  # the run may still use Y

    await in_a_partition(scene, living)


async def in_a_partition(scene: FenceScene, living: dict[str, Any]) -> None:
    """X and Y take turns in standing still, so that neither hears of the other."""
    destination = scene.destination
    scene.proxies["Y"].closed = True
    holder = await scene.source.wait_until(lambda: scene.source.holder(DATABASE, "copy"), "a holder")
    await scene.source.kill(holder)
    await scene.source.restart(holder)
    frozen = await scene.freeze_in_a_request("late in a partition")
    await destination.freeze("X")
    scene.proxies["X"].closed, scene.proxies["Y"].closed = True, False
    await scene.write("fourth", next(tag for tag in living if tag != frozen))
    await scene.moved(frozen)
    await scene.stands("fourth", "Y")
    await destination.freeze("Y")
    destination.thaw("X")
    # X takes it (201), unless what Y sent while X stood still lies before it in X's sockets: then it is refused.
    assert (await answered(scene)).split()[1] in ("201", "409")
    destination.thaw("Y")
    await scene.stands("fourth", "XY")
    await scene.revive(frozen)
