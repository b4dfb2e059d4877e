"""What people do to a simulated cluster: create, edit, pin, stop and delete tasks, drain nodes, move the leadership,
take snapshots. Every command that was acknowledged is remembered."""

from typing import TYPE_CHECKING

from raftnode.consensus.model import NotCommitted, OutcomeUnknown
from raftnode.record.commands import (
    Command,
    CreateDatabase,
    DeleteTask,
    PutTask,
    SetDraining,
    SetLicence,
    SetNodeTraits,
    SetTaskPin,
    SetTaskState,
    encode,
)
from raftnode.record.model import KindTraits, Task
from raftnode.record.ownership import task_key
from tests.simulation.body import NAME
from tests.simulation.node import Machine

if TYPE_CHECKING:
    from tests.simulation.world import World

DATABASE = "Northwind"
TASKS_MIN, TASKS_MAX = 3, 8
TRAITS = (
    KindTraits(),
    KindTraits(sticky=True, grace_min=0),
    KindTraits(),
    KindTraits(sticky=True, grace_min=0, partition_tolerant=True, resource_heavy=True),
    KindTraits(sticky=True, grace_min=1, partition_tolerant=True),
)
"""Of the tasks, one after the other: as those of ETLs and of backups are, with graces that end within the world's life
and others that do not."""


class Operators:
    """People at the consoles of random nodes. `plain`: no task has traits and the licence stays, for hunts after rules
    that concern every task alike."""

    plain = False

    def __init__(self, world: "World") -> None:
        self._world = world
        self._number = 0

    def act(self) -> None:
        """Somebody does something."""
        world, chance = self._world, self._world.chance
        at = [machine for machine in world.machines.values() if machine.ready]
        if not at:
            return
        machine = chance.choice(at)
        command = self._command(machine)
        if command is not None:
            world.on(machine, self._propose(machine, command))

    def _command(self, machine: Machine) -> Command | None:
        world, chance = self._world, self._world.chance
        record = machine.replica.record
        database = record.database(DATABASE)
        if not record.nodes:
            return None
        if database is None:
            return CreateDatabase(
                name=DATABASE, nodes=world.group, replication_factor=len(world.group), dynamic_nodes_distribution=True
            )
        tasks = sorted(database.tasks.values(), key=lambda task: task.id)
        if len(tasks) < TASKS_MIN:
            return self._new_task()
        task, what = chance.choice(tasks), chance.random()
        if what < 0.2 and len(tasks) < TASKS_MAX:
            return self._new_task()
        if what < 0.3:
            return DeleteTask(database=DATABASE, id=task.id)
        if what < 0.5:
            return self._edited(task)
        if what < 0.65:
            mentor = chance.choice([None, *database.topology.members])
            return SetTaskPin(
                database=DATABASE,
                id=task.id,
                mentor=mentor,
                pinned=(bool(mentor) or not self.plain) and chance.random() < 0.3,
            )
        if what < 0.75:
            return SetTaskState(database=DATABASE, id=task.id, disabled=not task.disabled)
        if what < 0.85:
            node = record.nodes[chance.choice(sorted(record.nodes))]
            return SetDraining(tag=node.tag, draining=not node.draining)
        if what < 0.9:
            return SetNodeTraits(tag=chance.choice(sorted(record.nodes)), weight=chance.choice((1, 2, 5)))
        if what < 0.92 and not self.plain:
            return SetLicence(
                highly_available_tasks=chance.random() < 0.5, dynamic_nodes_distribution=chance.random() < 0.5
            )
        self._besides(machine)
        return None

    def _besides(self, machine: Machine) -> None:
        """What is no command."""
        world = self._world
        if world.chance.random() < 0.5:
            world.note(f"{machine.tag} takes a snapshot")
            machine.process.context.run(machine.raft.take_snapshot)  # type: ignore[union-attr]
        else:
            world.on(machine, self._hand_over(machine))

    async def _hand_over(self, machine: Machine) -> None:
        try:
            await machine.raft.transfer_leadership(None, timeout_ms=2000)
        except (NotCommitted, OutcomeUnknown) as error:
            self._world.note(f"{machine.tag}: {error}")

    def _new_task(self) -> PutTask:
        self._number += 1
        name = f"task {self._number}"
        traits = KindTraits() if self.plain else TRAITS[self._number % len(TRAITS)]
        return PutTask(database=DATABASE, name=name, kind=NAME, key=task_key(NAME, name), traits=traits)

    def _edited(self, task: Task) -> PutTask:
        self._number += 1
        return PutTask(
            database=DATABASE,
            id=task.id,
            name=task.name,
            kind=NAME,
            key=task.key,
            mentor=task.mentor,
            pinned=task.pinned,
            disabled=task.disabled,
            traits=task.traits,
            configuration=b'{"edit": %d}' % self._number,
        )

    async def _propose(self, machine: Machine, command: Command) -> None:
        world = self._world
        self._number += 1
        data = encode(command, f"operator-{self._number}")
        try:
            proposed = await machine.raft.propose(data, timeout_ms=3000)
        except (NotCommitted, OutcomeUnknown):
            return
        machine.logs.answered(proposed.index, data)
        answer = "refused" if proposed.answer.error else "done"
        world.note(f"{machine.tag}: {type(command).__name__} is {answer} at {proposed.index}")

    async def undo(self, machine: Machine) -> None:
        """Before the end: nothing is drained, and the licence permits everything."""
        if not self.plain:
            await self._propose(machine, SetLicence(highly_available_tasks=True, dynamic_nodes_distribution=True))
        for node in sorted(machine.replica.record.nodes.values(), key=lambda node: node.tag):
            if node.draining:
                await self._propose(machine, SetDraining(tag=node.tag, draining=False))
