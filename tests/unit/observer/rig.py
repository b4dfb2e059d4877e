"""Real parts around the observer: the record on its replica, the lease of every node, health. Only the wire, the log
and the clock are the test's own."""

from typing import Any

from observer.health import Health
from observer.observer import Observer
from observer.rules.facts import ObserverLimits
from raftnode.cluster.replica import Replica
from raftnode.consensus.model import NotCommitted, Proposed
from raftnode.liveness.heartbeat import Heartbeat
from raftnode.liveness.report import CopyReport, NodeReport
from raftnode.record.commands import Command, encode
from raftnode.record.commands.cluster import FormCluster
from raftnode.record.commands.databases import CreateDatabase
from raftnode.record.model import Database
from tests.unit.liveness.test_heartbeat import TIMINGS, BeatCluster

PERIOD_MS = 200
STABLE_MS = 5_000
LIMITS = ObserverLimits(stabilization_ms=STABLE_MS, rotate_ms=5_000, replace_ms=900_000, distance_max=1_000)
R_MS = TIMINGS.time_before_moving_to_rehab_ms
ELECTED_MS = 1_700_000_000_000


class Wires(BeatCluster):
    """The nodes' leases on a wire, each node with a report of its own."""

    def __init__(self, tags: str) -> None:
        self.reports = {tag: NodeReport(node_id=f"id-{tag}") for tag in tags}
        super().__init__(tags)
        self.clocks.ms = float(ELECTED_MS)

    def elect(self, tag: str, term: int = 1) -> None:
        for other in self.rafts.values():
            if other.status.role != "Follower":
                other.become("Follower", term)
        super().elect(tag, term)

    def node(self, tag: str, clock: Any, heartbeat_ms: int = 200) -> Heartbeat:
        return Heartbeat(
            raft=self.rafts[tag],
            network=self.wires[tag],
            clock=clock,
            boot=1,
            nonce=ord(tag),
            timings=lambda: self.timings[tag],
            nodes=lambda: self.known,
            heartbeat_ms=heartbeat_ms,
            own_report=lambda: self.reports[tag],
        )


class InstantLog:
    """A log that commits at once, or refuses, and never outlives its term."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.term = 1
        self.refuses = ""
        self.appended = 0

    async def propose_here(self, command: bytes, *, term: int) -> Proposed:
        if self.refuses:
            raise NotCommitted(self.refuses)
        return self.append(command)

    def append(self, command: bytes) -> Proposed:
        self.appended += 1
        index = self.replica.record.index + 1
        answer = self.replica.apply(index, self.term, command)
        self.replica.after_tick()
        return Proposed(index, self.term, answer)


class Rig:
    """Nodes A, B, C and D; A leads; Northwind is on A, B and C."""

    def __init__(self) -> None:
        tags = "ABCD"
        self.wires = Wires(tags)
        self.replica = Replica()
        self.log = InstantLog(self.replica)
        self.replica.attach(self.log)  # type: ignore[arg-type]
        self.do(FormCluster(cluster_id="c", nodes=tuple(self.wires.known.values()), timings=TIMINGS))
        self.do(CreateDatabase(name="Northwind", nodes=("A", "B", "C")))
        for tag in tags:
            self.reports_of(tag)
        self.lead("A")

    def lead(self, tag: str, term: int = 1) -> None:
        self.leader = tag
        self.log.term = term
        self.errors: dict[str, str] = {}
        self.health = Health(
            tag=tag,
            heartbeat=self.wires.nodes[tag],
            clock=self.wires.clocks,
            own_report=lambda: self.wires.reports[tag],
            last_error=lambda other: self.errors.get(other, ""),
        )
        self.observer = Observer(
            replica=self.replica,
            heartbeat=self.wires.nodes[tag],
            health=self.health,
            clock=self.wires.clocks,
            period_ms=PERIOD_MS,
            limits=LIMITS,
        )
        self.wires.elect(tag, term)

    def do(self, command: Command) -> Any:
        answer = self.log.append(encode(command)).answer
        assert answer.error is None, answer.error
        return answer.value

    def reports_of(self, tag: str, *, status: Any = "Loaded", **fields: Any) -> None:
        """What the node reports from now on; a new value every time, as off a wire."""
        given: dict[str, Any] = {"last_etag": 7, "sent": dict.fromkeys("ABCD", 7), "documents": 3}
        copy = CopyReport(status=status, **given | fields)
        self.wires.reports[tag] = NodeReport(node_id=f"id-{tag}", databases={"Northwind": copy})

    def cut(self, *tags: str) -> None:
        """These nodes are cut off from all others."""
        others = set("ABCD") - set(tags)
        self.wires.cut = {(a, b) for tag in tags for other in others for a, b in ((tag, other), (other, tag))}

    async def go(self, ms: int, step_ms: int = 100) -> None:
        """Time passes; every step the nodes beat and the observer takes a turn."""
        for _ in range(0, ms, step_ms):
            self.wires.go(step_ms)
            await self.observer.turn()

    @property
    def database(self) -> Database:
        database = self.replica.record.database("Northwind")
        assert database is not None
        return database

    @property
    def sentences(self) -> list[str]:
        return [decision.message for decision in self.replica.record.observer.decisions]
