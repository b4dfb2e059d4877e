"""The chaos lab: five real nodes in network namespaces, clients that never stop, and a few accidents a round.

`Chaos.run` gives one line a round and the breaches it found. A round: one to three faults, a few seconds of them, all
mended; then, within SETTLE_SEC, every node must be ready, every copy a Member's, every task where placement wants it,
and all that was acknowledged until then in the target. Everything random comes from the seed.
"""

import asyncio
import contextlib
import json
import random
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.chaos import history, instants
from tests.chaos.clients import DATABASE, GROUP, Clients
from tests.chaos.faults import Faults
from tests.chaos.history import Instant
from tests.harness.cluster import PATIENT
from tests.harness.runs import Interval
from tests.harness.wall_clock import WallClock
from tests.partition.lab import MANAGEMENT_HOST, Lab, unavailable
from tests.scenarios.doors import Door

__all__ = ["Chaos", "ChaosReport", "unavailable"]

SMALL_DISK = "E"
SMALL_DISK_MB = 192
SETTLE_SEC = 60.0
BETWEEN_SEC = (0.2, 2.0)
LASTS_SEC = (0.5, 5.0)
PAGE_MAX = 10_000
UNLICENSED = 3
"""In each third round the cluster has no highly available tasks."""
TOLERANT = {
    "hasty": {"Sticky": True, "ResourceHeavy": True, "PartitionTolerant": True, "GraceMin": 0},
    "patient": {"Sticky": True, "PartitionTolerant": True, "GraceMin": 30},
}
"""Tasks as backups are, by their traits: one moves as soon as its holder is lost, while that may go on; the other waits
for it."""
TASKS = ("rows", "instants", *TOLERANT)


@dataclass
class ChaosReport:
    """What the rounds came to."""

    rounds: int = 0
    breaches: list[str] = field(default_factory=list)
    settled_sec: list[float] = field(default_factory=list)
    documents: int = 0
    values: int = 0
    requests: int = 0
    failures: int = 0
    epochs: int = 0
    instants: int = 0

    def text(self) -> str:
        """A summary of a few lines; the last one says whether all was kept."""
        settled = sorted(self.settled_sec) or [0.0]
        median, worst = settled[len(settled) // 2], settled[-1]
        verdict = "no violation" if not self.breaches else f"{len(self.breaches)} violations"
        return (
            f"{self.documents} documents and {self.values} commands acknowledged in {self.requests} requests, of which "
            f"{self.failures} failed; {self.instants} instants of {self.epochs} runs\n"
            f"all was well again {median:.1f} s (median) to {worst:.1f} s (longest) after a round's faults\n"
            f"{self.rounds} rounds: {verdict}"
        )


class Chaos:
    """The lab, its clients and its target. Use as `async with`."""

    def __init__(self, directory: Path, postgres: str, seed: int, say: Callable[[str], None]) -> None:
        self.directory = directory
        self._postgres, self._say = postgres, say
        self._chance = random.Random(seed)
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "instants.jsonl"
        self._log.touch()
        flags = ("--cluster.stabilization-time-sec", "0", *PATIENT)
        self.lab = Lab(directory, "ABCDE", flags=flags)
        self._clocks = {tag: WallClock(self.lab, tag, directory / f"path-{tag}") for tag in self.lab.nodes}
        for tag in self.lab.nodes:
            _plug_in(directory / f"path-{tag}")
        self._clients = Clients(self.lab, random.Random(seed), directory / "acknowledged.log")
        self._stack = contextlib.AsyncExitStack()
        self.report = ChaosReport()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(_small_disk(self.lab.nodes[SMALL_DISK].data_dir))
            await stack.enter_async_context(self.lab)
            self._faults = Faults(self.lab, self._chance, self._clocks, SMALL_DISK)
            self._target = await stack.enter_async_context(_table(self._postgres))
            await self._door(stack)
            await self._define()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await asyncio.to_thread(self.lab.network.heal)
        for tag in self.lab.nodes:
            self.lab.wake(tag)
        await self._stack.aclose()

    async def run(self, rounds: int) -> ChaosReport:
        """So many rounds, and what must be true at the end."""
        running = asyncio.ensure_future(self._clients.run())
        try:
            for number in range(1, rounds + 1):
                await self._round(number)
                if self.report.breaches:
                    break
        finally:
            self._clients.stop()
            await running
        if not self.report.breaches:
            await self._at_the_end()
        return self.report

    async def _round(self, number: int) -> None:
        began_s = time.monotonic()
        struck = [await self._faults.licence()] if number % UNLICENSED == 0 else []
        for _ in range(self._chance.choice((1, 1, 2, 3))):
            struck.append(await self._faults.strike())
            await asyncio.sleep(self._chance.uniform(*BETWEEN_SEC))
            if self._chance.random() < 0.5:
                self._faults.revive()
        await asyncio.sleep(self._chance.uniform(*LASTS_SEC))
        mending_s = time.monotonic()
        breaches = []
        try:
            await self._faults.mend()
            await self._settled()
        except AssertionError as stuck:
            breaches.append(f"stuck: {stuck}")
        settled_s = time.monotonic() - mending_s
        breaches += await self._found()
        self.report.rounds = number
        self.report.settled_sec.append(settled_s)
        self.report.breaches += [f"round {number} ({'; '.join(struck)}): {breach}" for breach in breaches]
        self._say(
            f"round {number:3}: {'; '.join(struck)}: well again after {settled_s:.1f} s, "
            f"{len(self._clients.documents)} documents, {time.monotonic() - began_s:.1f} s"
            + (f", {len(breaches)} VIOLATIONS" if breaches else "")
        )

    # what must be

    async def _settled(self) -> None:
        acknowledged = set(self._clients.documents)
        await self.lab.wait_until(self._all_well, "all to be well again", SETTLE_SEC)

        async def carried() -> bool:
            return acknowledged <= set(await self._rows())

        await self.lab.wait_until(carried, "the target to have all that was acknowledged", SETTLE_SEC)

    async def _all_well(self) -> bool:
        self._faults.revive()
        leaders = set()
        for tag in self.lab.nodes:
            status = await self.lab.status(tag)
            if status is None or not status["Node"]["HasLease"] or status["Node"]["NotReady"]:
                return False
            leaders.add(status["Node"]["Leader"])
            database = status["Databases"].get(DATABASE)
            if database is None or sorted(database["Topology"]["Members"]) != sorted(GROUP):
                return False
            tasks = database["Tasks"]
            if any(task["Holder"] != task["Placement"]["Node"] for task in tasks) or len(tasks) != len(TASKS):
                return False
            if any(task["RunHere"] is not None and task["Holder"] != tag for task in tasks):
                return False
            if not status["Cluster"]["HighlyAvailableTasks"]:
                return False
        return len(leaders) == 1

    async def _found(self) -> list[str]:
        seen = self._instants()
        self.report.instants, self.report.epochs = len(seen), len({(i.task, i.epoch) for i in seen})
        self.report.documents = len(self._clients.documents)
        self.report.values = sum(self._clients.values.values())
        self.report.requests, self.report.failures = self._clients.requests, self._clients.failures
        return history.overlaps(seen, TOLERANT) + history.doubled(await self._rows(), "rows")

    async def _at_the_end(self) -> None:
        try:
            await self._settled()
        except AssertionError as stuck:
            self.report.breaches.append(f"stuck: {stuck}")
            return
        documents = self._clients.documents
        found = await self._found()
        found += history.lost(documents, await self._rows(), "documents in the target")
        for tag in GROUP:
            found += history.lost(documents, await self._stored(tag), f"documents on {tag}")
        found += history.went_back(self._clients.values, await self._values())
        # A full disk costs the journal of runs its lines, so that node's says nothing of when its runs ended.
        whole = [instant for instant in _as_instants(self.lab.runs()) if instant.node != SMALL_DISK]
        found += history.overlaps(whole, [f"{DATABASE.lower()}/InstantsEtl/{name}" for name in TOLERANT])
        self.report.breaches += [f"at the end: {breach}" for breach in found]

    # what is there

    async def _rows(self) -> list[int]:
        return [row["value"] for row in await self._target.fetch("SELECT value FROM items")]

    async def _stored(self, tag: str) -> list[int]:
        found: list[int] = []
        while True:
            path = f"/databases/{DATABASE}/docs?startsWith=items/&start={len(found)}&pageSize={PAGE_MAX}"
            page = (await self.lab.call("GET", path, tag=tag))["Results"]
            found += [document["Value"] for document in page]
            if len(page) < PAGE_MAX:
                return found

    async def _values(self) -> dict[str, int]:
        answer = await self.lab.call("GET", f"/databases/{DATABASE}/admin/connection-strings")
        strings = answer["SqlConnectionStrings"]
        found = {name: re.search(r"/nowhere/(\d+)", str(string)) for name, string in strings.items()}
        return {name: int(match[1]) for name, match in found.items() if match}

    def _instants(self) -> list[Instant]:
        lines = self._log.read_text().splitlines()
        read = [json.loads(line) for line in lines]
        return [Instant(line["at_ns"], line["task"], line["node"], line["epoch"]) for line in read]

    # making

    async def _door(self, stack: contextlib.AsyncExitStack) -> None:
        """Lets the nodes, each in a network of its own, reach the PostgreSQL of this machine's loopback."""
        port = int(re.search(r":(\d+)/", self._postgres)[1])  # type: ignore[index]
        door = Door(port, port, f"{self.lab.network.net}.{MANAGEMENT_HOST}")
        await door.open()
        stack.push_async_callback(door.shut)
        self._seen_from_nodes = re.sub(r"@[^:/]+:", f"@{door.host}:", self._postgres)

    async def _define(self) -> None:
        lab = self.lab
        body = {"DatabaseName": DATABASE, "Topology": {"Members": list(GROUP)}}
        await lab.call("PUT", f"/admin/databases?name={DATABASE}", body)
        url = re.fullmatch(r"postgresql://(\w+)@([^:]+):(\d+)/(\w+)", self._seen_from_nodes)
        assert url is not None
        target = f"Host={url[2]};Port={url[3]};Database={url[4]};Username={url[1]}"
        await lab.put_connection_string(
            DATABASE, {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": target}
        )
        rows: dict[str, Any] = {
            "EtlType": "Sql",
            "Name": "rows",
            "ConnectionStringName": "target",
            "SqlTables": [{"TableName": "items", "DocumentIdColumn": "id", "InsertOnlyMode": True}],
            "Transforms": [{"Name": "t", "Collections": ["Items"], "Script": "loadToitems({value: this.Value});"}],
        }
        await lab.put_etl(DATABASE, rows)
        await lab.put_etl(DATABASE, {"EtlType": "Instants", "Name": "instants", "File": str(self._log)})
        for name, traits in TOLERANT.items():
            given = {"EtlType": "Instants", "Name": name, "File": str(self._log), "Traits": traits}
            await lab.put_etl(DATABASE, given)


@contextlib.asynccontextmanager
async def _table(url: str) -> AsyncIterator[asyncpg.Connection]:
    """The target, a table without a key: what comes twice shows."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP TABLE IF EXISTS items")
        await connection.execute("CREATE TABLE items (id text, value integer)")
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _small_disk(directory: Path) -> AsyncIterator[None]:
    """A data directory that can be filled."""
    await asyncio.to_thread(directory.mkdir, parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m,mode=0700", "tmpfs", str(directory)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    try:
        yield
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(directory)], check=False)


def _plug_in(path: Path) -> None:
    """Installs the kind of task that logs its instants, as a package would, where the node looks for modules."""
    source = Path(instants.__file__)
    (path / source.name).write_text(source.read_text())
    metadata = path / "chaos_instants-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-instants\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[raftnode.tasks]\ninstants_etl = {source.stem}:KIND\n")


def _as_instants(by_task: dict[str, list[Interval]]) -> list[Instant]:
    """The journals' intervals, as the instants at which they begin and end."""
    return [
        Instant(at_ns, interval.task, interval.node, interval.epoch)
        for intervals in by_task.values()
        for interval in intervals
        for at_ns in (interval.from_ns, interval.to_ns)
    ]
