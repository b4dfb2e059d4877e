"""Clients that go on whatever happens, at any node that answers, and remember what was acknowledged."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from raftnode.foundation.http_client import HttpError
from tests.partition.lab import Lab

DATABASE = "Chaos"
GROUP = "ABE"
"""The nodes that hold the database; whoever loses its copy gets one again."""
PAUSE_S = 0.02
REQUEST_TIMEOUT_S = 4.0


class Clients:
    """Two that write documents, each to a majority of the copies, and two that raise a value in the record."""

    def __init__(self, lab: Lab, chance: random.Random, notes: Path) -> None:
        self._lab, self._chance = lab, chance
        self._notes = notes.open("a", buffering=1)
        self._told = asyncio.Event()
        self._next = 0
        self.documents: set[int] = set()
        self.values: dict[str, int] = {}
        self.requests = self.failures = 0

    async def run(self) -> None:
        """Until told to stop; what was begun is finished."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(self._until_told(self._write))
                for name in ("first", "second"):
                    group.create_task(self._until_told(self._raiser(name)))
        finally:
            self._notes.close()

    def stop(self) -> None:
        """No new requests."""
        self._told.set()

    async def _until_told(self, once: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not self._told.is_set():
            await once()
            await asyncio.sleep(PAUSE_S)

    async def _write(self) -> None:
        """Each document is written once: what was not acknowledged is given up, and may be there or not. So a row
        that is there twice was loaded twice."""
        self._next += 1
        number = self._next
        document = {"Value": number, "@metadata": {"@collection": "Items"}}
        command = {"Type": "PUT", "Id": f"items/{number}", "Document": document}
        path = f"/databases/{DATABASE}/bulk_docs?numberOfReplicasToWaitFor=majority&waitForReplicasTimeout=00:00:03"
        if await self._ask("POST", path, {"Commands": [command]}, GROUP):
            self.documents.add(number)
            self._notes.write(f"document {number}\n")

    def _raiser(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """A value is asked for until it is acknowledged, each time under the same request id: what a cut-off node was
        asked for first, and proposes when another has answered long ago, takes no effect a second time."""

        async def once() -> None:
            value = self.values.get(name, 0) + 1
            string = {"Name": name, "Type": "Sql", "FactoryName": "System.Data.SQLite"}
            string["ConnectionString"] = f"Data Source=/nowhere/{value}"
            path = f"/databases/{DATABASE}/admin/connection-strings?raft-request-id={name}-{value}"
            while not await self._ask("PUT", path, string, self._lab.nodes):
                pass
            self.values[name] = value
            self._notes.write(f"{name} {value}\n")
            await asyncio.sleep(0.1)

        return once

    async def _ask(self, method: str, path: str, body: Any, among: Iterable[str]) -> bool:
        """One request to one of the nodes; whether it was acknowledged."""
        node = self._lab.nodes[self._chance.choice(sorted(among))]
        self.requests += 1
        try:
            await self._lab.http.request(method, node.url + path, json=body, timeout_s=REQUEST_TIMEOUT_S)
        except HttpError:
            self.failures += 1
            await asyncio.sleep(PAUSE_S)
            return False
        return True
