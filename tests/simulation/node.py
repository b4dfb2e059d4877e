"""A simulated machine and the real daemon's parts on it: record, consensus, lease, observer, claims and supervisor.

Only the doors to the world are simulated: clock, chance, disk, transport, the kernel's kill timer, and the documents,
which have tests of their own. The parts are put together by `raftnode.assembly`, as in the daemon.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from observer.rules.facts import ObserverLimits
from raftnode.assembly import Assembly, Ports, Setup
from raftnode.cluster.announce import NodeRefused
from raftnode.cluster.replica import Replica
from raftnode.consensus.model import ConsensusFailed, Peer, RaftConfig, StorageDamaged
from raftnode.consensus.transport.handshake import handshake_of
from raftnode.documents.database_copies import DatabaseCopy
from raftnode.foundation.incarnation import NodeIncarnation
from raftnode.record import machine as record_machine
from raftnode.record.commands import Changes, Command, Entry, Envelope, FormCluster, Outcome
from raftnode.record.model import ClusterNode, CommandResult, Record, Timings
from tests.clocks import FASTEST, SLOWEST
from tests.simulation.disk import MemoryDisk, PowerLost
from tests.simulation.loop import PROCESS, Process
from tests.simulation.network import SimulatedTransport

if TYPE_CHECKING:
    from tests.simulation.world import World

WALL_AT_ZERO_MS = 1_800_000_000_000
LIMITS = ObserverLimits(stabilization_ms=2000, rotate_ms=5000, replace_ms=20_000, distance_max=65536)


class ProcessClock:
    """The clocks of one process: they begin at zero with it and run at the machine's own rate. The wall's goes on."""

    def __init__(self, machine: "Machine") -> None:
        self._machine, self._loop = machine, machine.world.loop
        self.rate = machine.rate
        self._began_s = self._loop.time()
        self._upper_ns = self._lower_ns = 0

    def elapsed_upper_ns(self) -> int:
        return self._upper_ns + int((self._loop.time() - self._began_s) * self.rate * 1e9)

    def elapsed_lower_ns(self) -> int:
        return self._lower_ns + int((self._loop.time() - self._began_s) * self.rate * 1e9)

    def wall_ms(self) -> int:
        return WALL_AT_ZERO_MS + int(self._loop.time() * self.rate * 1000) + self._machine.wall_off_ms


class KernelTimer:
    """The kernel's: kills the process, also one that stands still."""

    def __init__(self, machine: "Machine", process: Process, clock: ProcessClock) -> None:
        self._machine, self._process, self._clock = machine, process, clock
        self._timer: asyncio.TimerHandle | None = None

    def now_ns(self) -> int:
        return self._clock.elapsed_upper_ns()

    def kill_at(self, boottime_ns: int) -> None:
        self.disarm()
        world, clock = self._machine.world, self._clock
        true_s = world.loop.time() + max(0, boottime_ns - clock.elapsed_upper_ns()) / clock.rate / 1e9
        self._timer = world.loop.call_at_true(true_s, self._kill, context=world.context)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _kill(self) -> None:
        if self._process.alive:
            self._machine.world.note(f"{self._machine.tag} is killed by its watchdog")
            self._machine.die()


class EmptyDatabases:
    """Copies that are always loaded and empty; deletions are confirmed."""

    def __init__(
        self, tag: str, record: Callable[[], Record], deleted: Callable[[str], Coroutine[Any, Any, None]]
    ) -> None:
        self._tag, self._record, self._deleted = tag, record, deleted

    async def run(self) -> None: ...

    async def store(self, name: str) -> Any:
        return None

    def sends(self, folded: str, tag: str, sender: Any) -> None: ...

    def sent_to(self, folded: str, tag: str) -> Any:
        return None

    def changed(self, record: Record, changes: Changes) -> None:
        for name in sorted(changes.databases):
            database = record.databases.get(name)
            if database is not None and self._tag in database.deletion_in_progress:
                asyncio.get_running_loop().create_task(self._deleted(database.name))

    def status(self) -> dict[str, DatabaseCopy]:
        return {
            folded: DatabaseCopy(status="Loaded", documents=1, last_etag=1)
            for folded, database in self._record().databases.items()
            if self._tag in database.topology.all_nodes
        }


class Machine:
    """One machine: its disk and its rate outlive its processes.

    `knows`: the nodes it starts among. `flipped`: a bit of the disk is not what it was, which the node finds out
    (`damaged`) or not. `reached`: the newest record that any of its processes has applied.
    `starved`: it has no memory for the next entry. `host` is where it listens: its tag, unless it works on a copy of
    another machine's disk. `twinned`: it was copied, or is a copy, and another process of its node may live.
    `superseded`: the cluster has gone past its disk, from which no process is started again.
    """

    def __init__(self, world: "World", tag: str, node_id: str, knows: Sequence[str]) -> None:
        self.world = world
        self.tag = tag
        self.node_id = node_id
        self.knows = tuple(knows)
        self.boot = 0
        self.booted = 0
        self.disk = MemoryDisk()
        self.rate = world.chance.choice((SLOWEST, FASTEST, world.chance.uniform(SLOWEST, FASTEST)))
        self.wall_off_ms = world.chance.randint(-2000, 2000)
        self.process: Process | None = None
        self.flipped = self.damaged = self.starved = False
        self.retired = self.twinned = self.superseded = False
        self.host = tag
        self.wire = world.wire
        self.logs = world.logs
        self.reached = Record()

    @property
    def directory(self) -> Path:
        """Where on its disk it keeps its log."""
        return Path(f"/{self.node_id}")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def running(self) -> bool:
        return self.alive and not self.process.paused  # type: ignore[union-attr]

    @property
    def ready(self) -> bool:
        """Whether the process runs and has come so far as to answer."""
        return self.running and self.booted == self.boot

    @property
    def wanted(self) -> bool:
        """Whether nobody has begun to replace it."""
        return not self.retired and self.world.replacements.busy != self.tag

    def start(self) -> None:
        """A new process on this machine's disk, unless that is damaged or nobody wants it any more."""
        if self.damaged or self.retired or self.superseded or self.alive:
            return
        self.boot += 1
        self.disk.full = False
        self.process = process = Process(self.tag, self.rate)
        self.clock = ProcessClock(self)
        process.world = self.world
        self.world.note(f"{self.tag} starts, boot {self.boot}")
        process.context.run(self._begin, process)

    def _begin(self, process: Process) -> None:
        task = self.world.loop.create_task(self._main(process))
        task.add_done_callback(lambda task: self._over(process, task))

    def _over(self, process: Process, task: "asyncio.Task[None]") -> None:
        if process.alive:
            error = task.exception()
            self.world.note(f"{self.tag} ends: {error!r}")
            self.damaged = self.damaged or isinstance(error, StorageDamaged)
            refused = isinstance(error, BaseExceptionGroup) and error.subgroup(NodeRefused)
            expected = refused and (self.twinned or not self.wanted)
            if not isinstance(error, ConsensusFailed | PowerLost) and not expected:
                self.world.breach(f"DEFECT {self.tag} ended by {error!r}")
            self.die()

    def die(self) -> None:
        """The process is gone, between one instant and the next."""
        process = self.process
        if process is None or not process.alive:
            return
        process.alive = False
        process.parked.clear()
        self.world.graveyard.append(process)
        self.world.bodies.died(process)
        self.disk.crash(self.world.chance)
        self.world.network.died(self.host)

    def pause(self) -> None:
        """The process stands still; its kernel's timer does not."""
        if self.running:
            assert self.process is not None
            self.process.paused = True
            self.world.network.paused(self.host)

    def thaw(self) -> None:
        """The process goes on as if nothing had happened."""
        if self.process is not None and self.process.alive and self.process.paused:
            self.world.loop.thaw(self.process)

    def twin(self, host: str) -> "Machine":
        """Another machine of that node, on a copy of the disk as it is now, which nobody has started."""
        twin = Machine(self.world, self.tag, self.node_id, self.knows)
        twin.host, twin.boot, twin.disk = host, self.boot, self.disk.copied()
        twin.wire, twin.logs, twin.reached = self.wire, self.logs, self.reached
        self.twinned = twin.twinned = True
        return twin

    @contextmanager
    def memory(self, index: int) -> Iterator[None]:
        """What applying an entry may use: none at all, once, after the machine has been starved."""
        if not self.starved:
            yield
            return
        self.starved = False
        self.world.note(f"{self.tag} runs out of memory at {index}")
        envelope = Envelope(command=Starved(), request_id=f"{index}")  # type: ignore[arg-type]
        with mock.patch.object(record_machine, "decode", return_value=envelope):
            yield

    # the daemon

    async def _main(self, process: Process) -> None:
        setup = self._setup()
        self.assembly = Assembly(setup, self._ports(process, setup), replica=RecordingReplica(self))
        self.replica, self.raft = self.assembly.replica, self.assembly.raft
        self.raft.on_role_change.append(self._role)
        self.raft.on_wiped.append(lambda reason: self.world.note(f"{self.tag} starts over: {reason}"))
        self.world.network.attach(self.assembly.transport)
        await self.raft.start()
        self.booted = self.boot
        async with asyncio.TaskGroup() as group:
            for _, loop in self.assembly.loops():
                group.create_task(loop)
            group.create_task(self.assembly.announcer.run())

    def _setup(self) -> Setup:
        world, pace = self.world, self.world.pace
        return Setup(
            own=NodeIncarnation(self.tag, self.node_id, self.boot, self.nonce()),
            url=url(self.host),
            cluster_address=address(self.host),
            peers=[Peer(tag, address(tag), tag != self.tag or self.tag in world.first_tags) for tag in self.knows],
            form=self._form(),
            directory=world.directory,
            raft=RaftConfig(
                data_dir=self.directory,
                heartbeat_ms=pace["heartbeat_ms"],
                election_min_ms=pace["election_min_ms"],
                election_max_ms=pace["election_max_ms"],
                snapshot_bytes_min=world.snapshot_bytes,
                segment_bytes_max=world.snapshot_bytes // 4,
                trailing_entries=20,
            ),
            observer_period_ms=pace["observer_period_ms"],
            limits=LIMITS,
        )

    def _ports(self, process: Process, setup: Setup) -> Ports[SimulatedTransport, EmptyDatabases]:
        who = handshake_of(self.wire, setup.own, 0)
        return Ports(
            clock=self.clock,
            random=self.world.chance,
            disk=self.disk,
            timer=KernelTimer(self, process, self.clock),
            transport=lambda replica: SimulatedTransport(self.world.network, process, who, self.host, replica),
            databases=lambda record, deleted: EmptyDatabases(self.tag, record, deleted),
            flags=lambda: (),
            failed=self._failed,
            superseded=self._superseded,
        )

    def nonce(self) -> int:
        """What no other process has."""
        return self.world.chance.randrange(1, 2**53)

    def _failed(self, reason: str) -> None:
        self.world.note(f"{self.tag} ends: {reason}")
        self.die()

    def _superseded(self) -> None:
        self.superseded = True

    def _role(self, role: str, term: int) -> None:
        if role in ("Leader", "LeaderElect"):
            self.world.note(f"{self.tag} is {role} of term {term}")
            self.logs.leads(self.tag, term)

    def _form(self) -> FormCluster:
        nodes = tuple(ClusterNode(tag=tag, url=url(tag), cluster_address=address(tag)) for tag in self.world.first_tags)
        fields = Timings.__struct_fields__
        timings = Timings(**{field: self.world.pace[field] for field in fields})
        return FormCluster(cluster_id="simulated-1", nodes=nodes, timings=timings)


class Starved(Command, frozen=True, kw_only=True):
    """Stands for a command for which there is no memory."""

    def apply(self, record: Record, entry: Entry) -> Outcome:
        raise MemoryError


def url(host: str) -> str:
    """Where a node's HTTP would be."""
    return f"http://{host}"


def address(host: str) -> str:
    """Where a node's consensus would be."""
    return f"{host}:1"


class RecordingReplica(Replica):
    """The replica, with every applied entry shown to the checkers."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def apply(self, index: int, term: int, command: bytes) -> CommandResult:
        before = self.record
        with self._machine.memory(index):
            result = super().apply(index, term, command)
        process = PROCESS.get()
        if process is None or process.alive:
            machine = self._machine
            machine.logs.applied(machine.tag, index, term, command, before, self.record)
            if index > machine.reached.index:
                machine.reached = self.record
        return result
