"""Engines without a loop, a network or a disk: one thread, virtual time, and every accident at the test's command."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from raftnode.consensus.engine import Engine, EngineEnvironment, RequestRefused, open_storage
from raftnode.consensus.model import ConsensusFailed, Peer, RaftConfig

NS_PER_MS = 1_000_000


class CrashFile:
    """A file whose unsynced part a crash may take."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def read(self, offset: int, size_bytes: int) -> bytes:
        return bytes(self.data[offset : offset + size_bytes])

    def size_bytes(self) -> int:
        return len(self.data)

    def truncate(self, size_bytes: int) -> None:
        del self.data[size_bytes:]

    def sync(self) -> None:
        self.durable = bytes(self.data)

    def close(self) -> None: ...

    def crash(self, chance: Random) -> None:
        if self.data.startswith(self.durable):
            kept = chance.randint(len(self.durable), len(self.data))
            self.data = self.data[:kept]
        else:
            self.data = bytearray(self.durable)
        self.durable = bytes(self.data)


class CrashDisk:
    """A disk that can crash, and refuse to write."""

    def __init__(self) -> None:
        self.files: dict[Path, CrashFile] = {}
        self.failing: OSError | None = None

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == directory]

    def open(self, path: Path) -> CrashFile:
        if self.failing is not None:
            raise self.failing
        return self.files.setdefault(path, CrashFile())

    def replace(self, source: Path, target: Path) -> None:
        self.files[target] = self.files.pop(source)

    def remove(self, path: Path) -> None:
        self.files.pop(path, None)

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(path for path in paths if path not in self.files)

    def sync_directory(self, directory: Path) -> None: ...

    def crash(self, chance: Random) -> None:
        for file in self.files.values():
            file.crash(chance)


class VirtualClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def elapsed_upper_ns(self) -> int:
        return self.now_ns

    elapsed_lower_ns = elapsed_upper_ns

    def wall_ms(self) -> int:
        return self.now_ns // NS_PER_MS

    def pass_ms(self, milliseconds: float) -> None:
        self.now_ns += int(milliseconds * NS_PER_MS)


class AppliedCommands:
    """The state machine: every applied command with its place."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, int, bytes]] = []

    def apply(self, index: int, term: int, command: bytes) -> Any:
        self.applied.append((index, term, command))
        return index

    def refuses(self, command: bytes) -> str | None:
        return None

    def dump(self) -> Callable[[], Iterable[bytes]]:
        applied = tuple(self.applied)
        return lambda: (b"%d %d " % (index, term) + command for index, term, command in applied)

    def restore(self, chunks: Iterable[bytes]) -> None:
        split = [chunk.split(b" ", 2) for chunk in chunks]
        self.applied = [(int(index), int(term), command) for index, term, command in split]

    def after_tick(self) -> None: ...

    @property
    def commands(self) -> list[bytes]:
        return [command for _, _, command in self.applied]


class SimulatedNode:
    """One engine, its disk and its state machine; it is also the engine's wire and its events."""

    def __init__(self, world: "RaftWorld", tag: str) -> None:
        self.world = world
        self.tag = tag
        self.disk = CrashDisk()
        self.alive = self.tick_scheduled = False
        self.outside: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.failures: list[ConsensusFailed] = []
        self.wipes: list[str] = []

    def start(self) -> None:
        world = self.world
        self.machine = AppliedCommands()
        empty = list(self.machine.dump()())
        storage = open_storage(self.disk, world.config, world.peers)
        if storage.description is not None:
            self.machine.restore(storage.snapshots.chunks())
        around = EngineEnvironment(self.machine, world.config, world.clock, world.chance, self, self.offload, self)
        self.engine = Engine(self.tag, world.peers, storage, empty, around)
        self.alive = True

    def offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.outside.append((work, done))

    def run_outside(self) -> None:
        """Runs what was put off the loop."""
        while self.outside:
            work, done = self.outside.popleft()
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            done(outcome)

    def crash(self) -> None:
        self.alive = False
        self.outside.clear()
        self.world.disconnect_all(self.tag)
        self.disk.crash(self.world.chance)

    # the engine's wire

    def send(self, tag: str, payload: bytes) -> bool:
        if not self.world.is_up(self.tag, tag):
            return False
        self.world.queues[self.tag, tag].append(payload)
        return True

    def backlog_bytes(self, tag: str) -> int:
        return 0

    # the engine's events

    def schedule_tick(self) -> None:
        self.tick_scheduled = True

    def applied(self, index: int, term: int, answer: Any) -> None:
        self.world.note_applied(self, index, term)

    def jumped(self, index: int) -> None: ...

    def members_changed(self) -> None: ...

    def wiped(self, reason: str) -> None:
        self.wipes.append(reason)

    def failed(self, error: ConsensusFailed) -> None:
        self.failures.append(error)


class RaftWorld:
    """All nodes, the links between them, and what was promised to whoever proposed."""

    def __init__(self, tags: str, *, seed: int = 0, watchers: str = "", **settings: Any) -> None:
        self.chance = Random(seed)
        self.clock = VirtualClock()
        self.config = RaftConfig(
            data_dir=Path("/simulated"),
            **({"election_min_ms": 400, "election_max_ms": 800, "heartbeat_ms": 100} | settings),
        )
        self.peers = tuple(Peer(tag, f"{tag}:1", tag not in watchers) for tag in tags)
        self.queues: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.up: set[frozenset[str]] = set()
        self.nodes = {tag: SimulatedNode(self, tag) for tag in tags}
        self.pending: dict[tuple[str, int, int], bytes] = {}
        self.acknowledged: list[bytes] = []
        self.leaders: dict[int, str] = {}
        for node in self.nodes.values():
            node.start()
        self.connect_all()

    def __getitem__(self, tag: str) -> SimulatedNode:
        return self.nodes[tag]

    @property
    def alive(self) -> list[SimulatedNode]:
        return [node for node in self.nodes.values() if node.alive]

    # links

    def is_up(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self.up

    def link(self, a: str, b: str, up: bool) -> None:
        pair = frozenset((a, b))
        if up == (pair in self.up) or (up and not (self[a].alive and self[b].alive)):
            return
        (self.up.add if up else self.up.discard)(pair)
        self.queues[a, b].clear()
        self.queues[b, a].clear()
        for here, there in ((a, b), (b, a)):
            if self[here].alive:
                self[here].engine.connected(there, up)

    def connect_all(self) -> None:
        for a in self.nodes:
            for b in self.nodes:
                if a < b:
                    self.link(a, b, True)

    def disconnect_all(self, tag: str) -> None:
        for other in self.nodes:
            if other != tag:
                self.link(tag, other, False)

    def deliver(self, sender: str, to: str, count: int = 1_000_000) -> int:
        """Delivers up to `count` waiting messages, and says how many."""
        queue, delivered = self.queues[sender, to], 0
        while queue and delivered < count and self[to].alive:
            self[to].engine.receive(sender, queue.popleft())
            delivered += 1
        return delivered

    # running

    def round(self, milliseconds: float = 10) -> None:
        """A quiet step: time passes, everything is delivered, everybody ticks."""
        self.clock.pass_ms(milliseconds)
        for node in self.alive:
            for sender in self.nodes:
                self.deliver(sender, node.tag)
            node.run_outside()
            node.engine.tick()
        self.note_leaders()

    def run_until(self, condition: Callable[[], bool], *, rounds: int = 5_000) -> None:
        for _ in range(rounds):
            if condition():
                return
            self.round()
        raise AssertionError(f"not reached in {rounds} rounds: {self.describe()}")

    def leader(self) -> SimulatedNode:
        """The node that leads, once there is exactly one that everybody alive follows."""

        def found() -> list[SimulatedNode]:
            return [n for n in self.alive if n.engine.status.role == "Leader"]

        self.run_until(lambda: len(found()) == 1 and all(n.engine.status.leader == found()[0].tag for n in self.alive))
        return found()[0]

    def settle(self) -> None:
        """Until everybody has applied the same."""
        self.leader()
        self.run_until(
            lambda: len({n.engine.status.applied_index for n in self.alive}) == 1 and not self.pending_anywhere()
        )

    def pending_anywhere(self) -> bool:
        return any(n.engine.status.commit_index < n.engine.status.last_index for n in self.alive)

    def propose(self, node: SimulatedNode, command: bytes) -> bool:
        """Appends on a leader and notes that somebody waits for the answer."""
        try:
            index, term = node.engine.propose(command)
        except RequestRefused:
            return False
        self.pending[node.tag, index, term] = command
        return True

    def note_applied(self, node: SimulatedNode, index: int, term: int) -> None:
        command = self.pending.pop((node.tag, index, term), None)
        if command is not None:
            self.acknowledged.append(command)

    def note_leaders(self) -> None:
        for node in self.alive:
            if node.engine.status.role in ("Leader", "LeaderElect"):
                first = self.leaders.setdefault(node.engine.status.term, node.tag)
                assert first == node.tag, f"two leaders in term {node.engine.status.term}: {first} and {node.tag}"

    def describe(self) -> str:
        def line(node: SimulatedNode) -> str:
            now = node.engine.status
            return (
                f"{node.tag} {now.role} term {now.term} last {now.last_index} commit {now.commit_index}"
                f" applied {now.applied_index} leader {now.leader} {node.failures}"
            )

        return "; ".join(line(node) for node in self.alive)
