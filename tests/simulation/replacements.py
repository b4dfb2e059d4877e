"""Nodes that are replaced: an operator removes one, alive or dead, and another joins, under a new tag or, with an empty
disk and a new id, under the old one. One at a time, tried until it is done."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from raftnode.cluster.replica import Unavailable
from raftnode.consensus.model import Add, NotCommitted, OutcomeUnknown, Peer, Remove
from raftnode.record.commands import AddNode, RemoveNode
from raftnode.record.model import ClusterNode, CommandResult
from tests.simulation.node import Machine, address, url

if TYPE_CHECKING:
    from tests.simulation.world import World

PAUSE_S = 0.3
LINGERS_S = (0.0, 8.0)
LETTERS = "FGHIJKLMNOPQRSTUVWXYZ"


class Replacements:
    """`busy`: the tag whose replacement is under way."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._made = 0
        self.busy = ""

    def begin(self, tag: str) -> None:
        """Begins to replace the node, unless another one is being replaced or needs it more."""
        needed = {other for other, machine in self._world.machines.items() if machine.damaged or machine.flipped}
        if not self.busy and needed <= {tag} and self._made < len(LETTERS):
            self.busy = tag
            self._made += 1
            self._world.loop.create_task(self._replace(self._world.machines[tag]), context=self._world.context)

    def damaged(self) -> None:
        """Begins with a node whose disk is damaged, if there is one."""
        for tag, machine in self._world.machines.items():
            if machine.damaged:
                self.begin(tag)
                return

    async def _replace(self, old: Machine) -> None:
        world, chance = self._world, self._world.chance
        same_tag = old.damaged or chance.random() < 0.4
        if same_tag:
            old.die()
        tag = old.tag if same_tag else LETTERS[self._made - 1]
        node_id = f"{tag}-{self._made + 1}"
        world.note(f"{old.tag} is to be replaced by {tag}, {node_id}")
        await self._until(old, lambda nodes: old.tag not in nodes, lambda at: self._remove(at, old.tag))
        world.note(f"{old.tag} is removed")
        world.retire(old, chance.uniform(*LINGERS_S))
        await self._enter(tag, node_id, old)
        self.busy = ""

    async def join(self, tag: str) -> None:
        """A node with that tag, which nobody has, joins with an empty disk. Nothing else is being replaced."""
        assert not self.busy
        self.busy = tag
        self._made += 1
        await self._enter(tag, f"{tag}-{self._made + 1}", None)
        self.busy = ""

    async def _enter(self, tag: str, node_id: str, old: Machine | None) -> None:
        world = self._world
        node = ClusterNode(tag=tag, url=url(tag), cluster_address=address(tag), node_id=node_id, kind="Promotable")
        await self._until(
            old, lambda nodes: tag in nodes and nodes[tag].node_id == node_id, lambda at: self._add(at, node)
        )
        knows = sorted({*world.tags, tag})
        machine = world.machines[tag] = Machine(world, tag, node_id, knows)
        machine.start()

    async def _until(
        self,
        old: Machine | None,
        done: Callable[[Mapping[str, ClusterNode]], bool],
        attempt: Callable[[Machine], Coroutine[Any, Any, CommandResult]],
    ) -> None:
        """Attempts it at one node after the other until one that knows all that was acknowledged sees it done."""
        world = self._world
        while True:
            others = [machine for machine in world.machines.values() if machine is not old and machine.ready]
            if others and await self._ask(world.chance.choice(others), done, attempt):
                return
            await asyncio.sleep(PAUSE_S)

    async def _ask(
        self,
        at: Machine,
        done: Callable[[Mapping[str, ClusterNode]], bool],
        attempt: Callable[[Machine], Coroutine[Any, Any, CommandResult]],
    ) -> bool:
        """Looks and attempts in the node's process, as long as that lives."""
        process = at.process
        assert process is not None

        async def ask() -> bool:
            try:
                await at.raft.barrier(timeout_ms=2000)
                if (nodes := at.replica.record.nodes) and done(nodes):
                    return True
                result = await attempt(at)
                if result.error is not None:
                    self._world.note(f"{at.tag} refuses: {result.error.message}")
            except (Unavailable, NotCommitted, OutcomeUnknown) as error:
                self._world.note(f"{at.tag}: {error}")
            return False

        task = process.context.run(self._world.loop.create_task, ask())
        while not task.done() and process.alive:  # noqa: ASYNC110 (a dead process's task is never done)
            await asyncio.sleep(PAUSE_S)
        return task.done() and task.result()

    @staticmethod
    async def _remove(at: Machine, tag: str) -> CommandResult:
        if at.raft.status.leader == tag:
            await at.raft.transfer_leadership(None, timeout_ms=3000)
        return await at.replica.change_membership(Remove(tag), RemoveNode(tag=tag), timeout_ms=5000)

    @staticmethod
    async def _add(at: Machine, node: ClusterNode) -> CommandResult:
        peer = Peer(node.tag, node.cluster_address, voter=False, node_id=node.node_id)
        return await at.replica.change_membership(Add(peer), AddNode(node=node), timeout_ms=5000)
