"""A world in which people send a request again under its id, as whoever has had no answer does, or send another request
under an id that was used. Both go to any node, while the usual accidents happen."""

import hashlib

from raftnode.consensus.model import NotCommitted, OutcomeUnknown
from raftnode.record.commands import Command, encode
from raftnode.record.model import ASKED_LENGTH_MAX, CommandResult
from tests.simulation.node import Machine
from tests.simulation.schedules import BUSY_S, as_it_comes
from tests.simulation.world import World

AGAIN_AFTER_S = (0.0, 10.0)
TIMEOUT_MS = 3_000
USED = "RequestIdUsedException"

Answer = tuple[str, CommandResult]
"""The hash of what was asked for, and what it was answered with."""


def repeating(world: World) -> None:
    """Each request comes a second time, or another one comes under its id."""
    as_it_comes(world)
    requests = _Requests(world)
    world.operators._propose = requests.first  # type: ignore[method-assign]


class _Requests:
    """Every request id has one request and one answer, however often and wherever it is sent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent: list[Command] = []
        self._answers: dict[str, Answer] = {}
        self._refused: set[tuple[str, str]] = set()

    async def first(self, machine: Machine, command: Command) -> None:
        """See Operators._propose."""
        world, chance = self._world, self._world.chance
        self._sent.append(command)
        request_id = f"request-{len(self._sent)}"
        other = chance.choice(self._sent) if chance.random() < 0.5 else command
        world.later(chance.uniform(*AGAIN_AFTER_S), lambda: self._again(request_id, other))
        await self._send(machine, request_id, command)

    def _again(self, request_id: str, command: Command) -> None:
        world = self._world
        ready = [machine for machine in world.machines.values() if machine.ready]
        if ready and world.loop.time() < BUSY_S:
            machine = world.chance.choice(ready)
            world.on(machine, self._send(machine, request_id, command))

    async def _send(self, machine: Machine, request_id: str, command: Command) -> None:
        asked = hashlib.sha256(encode(command)).hexdigest()[:ASKED_LENGTH_MAX]
        data = encode(command, request_id, asked)
        try:
            proposed = await machine.raft.propose(data, timeout_ms=TIMEOUT_MS)
        except (NotCommitted, OutcomeUnknown):
            return
        machine.logs.answered(proposed.index, data)
        self._told(request_id, asked, proposed.answer)

    def _told(self, request_id: str, asked: str, answer: CommandResult) -> None:
        if answer.error is not None and answer.error.type == USED:
            self._refused.add((request_id, asked))
        else:
            first = self._answers.setdefault(request_id, (asked, answer))
            if (first[0], *_said(first[1])) != (asked, *_said(answer)):
                self._world.breach(f"REPEAT {request_id} was answered with {first[1]} and with {answer}")
        known = self._answers.get(request_id)
        if known is not None and (request_id, known[0]) in self._refused:
            self._world.breach(f"REPEAT {request_id} was refused as another request than itself")


def _said(answer: CommandResult) -> tuple[object, ...]:
    return answer.index, answer.error, answer.value
