"""kill -9 of all five nodes in the middle of writes: what was acknowledged is there, and all records are equal."""

import asyncio
import itertools
from functools import partial
from pathlib import Path
from typing import Any

from raftnode.foundation.http_client import HttpError
from tests.harness.cluster import Cluster

ROUNDS = 3
WRITERS = "ABCDE"


class Writers:
    """One writer a node: documents through Members, commands (index definitions) through every node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.documents: dict[str, int] = {}
        self.indexes: set[str] = set()
        self.numbers = itertools.count()

    def answered(self, commands: int) -> bool:
        """Whether that many commands were acknowledged."""
        return len(self.indexes) >= commands

    async def write(self, tag: str) -> None:
        """Writes until cancelled; notes what was answered."""
        while True:
            n = next(self.numbers)
            try:
                name = f"i{n}"
                definition = {"Indexes": [{"Name": name, "Maps": ["from x in docs select x"]}]}
                await self.cluster.call("PUT", "/databases/Kills/admin/indexes", definition, tag)
                self.indexes.add(name)
                if tag in "ABC":
                    document = {"N": n, "@metadata": {"@collection": "Numbers"}}
                    await self.cluster.call("PUT", f"/databases/Kills/docs?id=numbers/{n}", document, tag)
                    self.documents[f"numbers/{n}"] = n
            except HttpError:
                await asyncio.sleep(0.01)


async def test_everything_acknowledged_survives_the_death_of_all_nodes_and_all_records_are_equal(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, "ABCDE") as cluster:
        await cluster.create_database("Kills", "ABC")
        writers = Writers(cluster)
        for _ in range(ROUNDS):
            enough = partial(writers.answered, len(writers.indexes) + 40)
            async with asyncio.TaskGroup() as group:
                writing = [group.create_task(writers.write(tag)) for tag in WRITERS]
                await cluster.wait_until(enough, "forty more commands")
                await asyncio.gather(*(cluster.kill(tag) for tag in WRITERS))
                for task in writing:
                    task.cancel()
            for tag in WRITERS:
                cluster.start(tag)
            for tag in WRITERS:
                await cluster.ready(tag)
        await cluster.wait_until(lambda: all_equal(cluster), "five equal records")
        answer = await cluster.call("GET", "/databases/Kills/indexes")
        assert writers.indexes <= {index["Name"] for index in answer["Results"]}
        for tag in "ABC":
            await cluster.wait_until(partial(holds, cluster, tag, writers.documents), f"all documents on {tag}")


async def all_equal(cluster: Cluster) -> bool:
    """Whether all nodes have applied the same index and show the same record."""
    views = [await cluster.status(tag) for tag in WRITERS]
    if not all(views):
        return False
    records = [await cluster.call("GET", "/admin/databases?name=Kills", tag=tag) for tag in WRITERS]
    indexes = {view["Node"]["AppliedIndex"] for view in views if view}
    return len(indexes) == 1 and all(record == records[0] for record in records)


async def holds(cluster: Cluster, tag: str, documents: dict[str, int]) -> bool:
    """Whether the node has every acknowledged document."""
    ids = list(documents)
    for first in range(0, len(ids), 500):
        asked = ids[first : first + 500]
        answer: Any = await cluster.call("POST", "/databases/Kills/docs", {"Ids": asked}, tag)
        found = {d["@metadata"]["@id"]: d["N"] for d in answer["Results"] if d}
        if any(found.get(id) != documents[id] for id in asked):
            return False
    return True
