"""What the tests of partitions do and look at: documents written all along, who leads, who runs nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import permutations
from typing import Any

from raftnode.foundation.http_client import HttpError
from tests.harness.runs import machine_ns
from tests.partition.lab import Lab
from tests.scenarios.conftest import Group

MEMBERS = "ABE"
"""The nodes of each test's database; its task "onA" is meant for A, and so on."""
RETRY_SEC = 0.02


class Writing:
    """Writes documents one after the other, each to the first of the nodes that takes it, until told to stop."""

    def __init__(self, group: Group, tags: str) -> None:
        self.group, self.tags = group, tags
        self.count = 0
        self.told = False

    async def run(self) -> None:
        """Until told to stop; what was begun is finished, so that `count` is what there is."""
        while not self.told:
            for tag in self.tags:
                try:
                    await self.group.write(self.count + 1, self.count + 1, tag)
                    self.count += 1
                    break
                except HttpError:
                    await asyncio.sleep(RETRY_SEC)

    async def some(self, count: int) -> None:
        """Waits until that many more are written."""
        wanted = self.count + count
        await self.group.cluster.wait_until(lambda: self.count >= wanted, f"{wanted} documents to be written")


@asynccontextmanager
async def writing(group: Group, tags: str) -> AsyncIterator[Writing]:
    """Documents are written for as long as the block lasts, which begins when there are some."""
    writer = Writing(group, tags)
    task = asyncio.ensure_future(writer.run())
    try:
        await writer.some(20)
        yield writer
    finally:
        writer.told = True
        await task


def insert_only() -> dict[str, Any]:
    """The part of a task's definition with which a document that is loaded twice leaves two rows."""
    return {"SqlTables": [{"TableName": "Items", "DocumentIdColumn": "Id", "InsertOnlyMode": True}]}


def key(group: Group, name: str) -> str:
    """The task's claim key."""
    return f"{group.name.lower()}/SqlEtl/{name.lower()}"


# What happens.


async def lead(lab: Lab, tag: str) -> None:
    """Makes the node the leader."""

    async def leads() -> bool:
        if await lab.leader() == tag:
            return True
        await lab.call("POST", f"/admin/cluster/reelect?nodeTag={tag}")
        return False

    await lab.wait_until(leads, f"{tag} to lead")
    await lab.wait_until(lambda: all_good(lab), "every node to be ready")


def deaf(lab: Lab, tag: str) -> None:
    """The node hears nobody; the others hear it."""
    for other in lab.nodes:
        if other != tag:
            lab.network.drop(other, tag)


def mute(lab: Lab, tag: str) -> None:
    """Nobody hears the node; it hears the others."""
    for other in lab.nodes:
        if other != tag:
            lab.network.drop(tag, other)


def lossy(lab: Lab, percent: int) -> None:
    """Every link loses that share of its packets, each way."""
    for sender, receiver in permutations(lab.nodes, 2):
        lab.network.lose(sender, receiver, percent)


def revive(lab: Lab) -> None:
    """Starts the nodes whose process has ended: a service manager's part."""
    for tag in lab.nodes:
        if lab.ended(tag) is not None:
            lab.start(tag)


# What is seen.


async def all_good(lab: Lab) -> bool:
    """Whether every node has a lease, and says that the same one leads."""
    views = [await lab.status(tag) for tag in lab.nodes]
    leaders = {view["Node"]["Leader"] if view and view["Node"]["HasLease"] else None for view in views}
    return len(leaders) == 1 and None not in leaders


async def tasks(group: Group, among: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The group's tasks by name, as a node with a lease among these shows them; none while there is no such node."""
    view = await group.cluster.view(among)
    database = view["Databases"].get(group.name) if view else None
    return {task["TaskName"]: task for task in database["Tasks"]} if database else {}


async def idle_candidate(lab: Lab, tag: str) -> None:
    """Waits until the node has no lease and none of its bodies lives."""

    async def idle() -> bool:
        status = await lab.status(tag)
        runs = [t["RunHere"] for d in status["Databases"].values() for t in d["Tasks"]] if status else []
        alive = [run for run in runs if run and run["State"] in ("Running", "Stopping", "Error")]
        return status is not None and status["Node"]["Role"] == "Candidate" and not alive

    await lab.wait_until(idle, f"{tag} to be a Candidate that runs nothing")


async def moved(group: Group, name: str, away: str, among: Iterable[str]) -> None:
    """Waits until these nodes show the task on another Member, and the one it has left in Rehab."""

    async def there() -> bool:
        task = (await tasks(group, among)).get(name)
        topology = await group.cluster.topology(group.name, among)
        return bool(task and task["Holder"] in set(MEMBERS) - {away} and away in topology["Rehabs"])

    await group.cluster.wait_until(there, f"{away} in Rehab and {name} on another")


async def goes_on(group: Group, writer: Writing, *names: str) -> None:
    """Waits until the tasks have carried something that is not yet written."""
    seen = writer.count
    for name in names:
        done = partial(lambda name: len(group.rows(name)) > seen, name)
        await group.cluster.wait_until(done, f"{name} to go on")


async def returned(group: Group) -> None:
    """Waits until every node is a Member again and holds the task that is meant for it."""
    for tag in MEMBERS:
        await group.is_member(tag)
        await group.held_by(f"on{tag}", tag)


def last_acted_ns(lab: Lab, group: Group, name: str, tag: str) -> int:
    """When the node last did something for the task. It must have ended there, else that is now."""
    return max((i.to_ns for i in lab.runs()[key(group, name)] if i.node == tag), default=machine_ns())


async def same_documents(group: Group, count: int) -> dict[str, Any]:
    """Waits until every Member has that many documents and all have the same; these, by id."""

    async def copies() -> Any:
        found = []
        for tag in MEMBERS:
            path = f"/databases/{group.name}/docs?startsWith=items/&pageSize={count + 1}"
            answer = await group.cluster.call("GET", path, tag=tag)
            found.append(
                {d["@metadata"]["@id"]: (d["Value"], d["@metadata"]["@change-vector"]) for d in answer["Results"]}
            )
        return found[0] if len(found[0]) == count and found.count(found[0]) == len(found) else None

    same: dict[str, Any] = await group.cluster.wait_until(copies, f"the same {count} documents on {MEMBERS}")
    return {id: value for id, (value, _) in same.items()}
