"""The driver of the lease: real rules, a wire in memory, clocks moved by hand."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from raftnode.consensus.model import Peer, RaftStatus
from raftnode.foundation.ports import SystemClock
from raftnode.lease import FOREVER_NS, Incarnation, Report, Stamp
from raftnode.liveness.heartbeat import CHANNEL, Heartbeat
from raftnode.liveness.report import PAYLOAD_BYTES_MAX, NodeReport
from raftnode.record.model import Timings
from tests.unit.record.build import node as known_node

MS = 1_000_000
TIMINGS = Timings(heartbeat_ms=200, lease_ms=1800, task_stop_timeout_ms=1000, time_before_moving_to_rehab_ms=4000)


class Clocks:
    """All clocks of a machine, in step."""

    def __init__(self) -> None:
        self.ms = 0.0

    def elapsed_upper_ns(self) -> int:
        return int(self.ms * MS)

    elapsed_lower_ns = elapsed_upper_ns

    def wall_ms(self) -> int:
        return int(self.ms)


@dataclass
class ScriptedRaft:
    """What Raft would say."""

    tag: str
    tags: str
    votes: dict[str, int] = field(default_factory=dict)
    on_role_change: list[Callable[[Any, int], None]] = field(default_factory=list)
    stepped_down: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status = RaftStatus(term=1, applied_index=5, commit_index=5)
        self.consist_of(self.tags)

    def now(self, **changes: Any) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    def consist_of(self, tags: str) -> None:
        self.now(peers=tuple(Peer(tag, f"{tag}:1") for tag in tags), voters=frozenset(tags))

    def votes_granted(self, term: int) -> dict[str, int]:
        return self.votes

    def step_down(self, term: int | None) -> None:
        self.stepped_down.append(term)
        self.become("Follower", max(term or 0, self.status.term))

    def become(self, role: Any, term: int) -> None:
        self.now(role=role, term=term)
        for callback in self.on_role_change:
            callback(role, term)


class BeatCluster:
    """Nodes A, B, C ... on one wire. `cut` holds the (from, to) pairs that lose messages."""

    def __init__(self, tags: str, timings: Timings | None = TIMINGS) -> None:
        self.clocks = Clocks()
        self.timings = dict.fromkeys(tags, timings)
        self.known = {tag: known_node(tag, nonce=ord(tag)) for tag in tags}
        self.cut: set[tuple[str, str]] = set()
        self.rafts = {tag: ScriptedRaft(tag, tags) for tag in tags}
        self.wires = {tag: BeatWire(self, tag) for tag in tags}
        self.own = NodeReport(node_id="first")
        self.until: dict[str, list[int]] = {tag: [] for tag in tags}
        self.nodes = {tag: self.node(tag, self.clocks) for tag in tags}

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
            own_report=lambda: self.own,
            on_lease=self.until[tag].append,
        )

    def elect(self, tag: str, term: int = 1) -> None:
        now_ns = self.clocks.elapsed_upper_ns()
        for other in self.rafts.values():
            other.now(term=term, leader=tag)
        self.rafts[tag].votes = dict.fromkeys(self.rafts, now_ns)
        self.rafts[tag].become("Leader", term)

    def go(self, ms: int) -> None:
        """Time passes, and every 100 ms the nodes beat."""
        for _ in range(0, ms, 100):
            self.clocks.ms += 100
            for node in self.nodes.values():
                node._beat()


class BeatWire:
    def __init__(self, cluster: BeatCluster, tag: str) -> None:
        self.cluster, self.tag = cluster, tag
        self.handler: Callable[[str, bytes], None] = lambda tag, data: None
        self.sent = 0

    def send(self, tag: str, channel: str, payload: bytes) -> bool:
        assert channel == CHANNEL
        self.sent += 1
        if (self.tag, tag) not in self.cluster.cut:
            self.cluster.wires[tag].handler(self.tag, payload)
        return True

    def on_message(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        self.handler = handler


def roles(cluster: BeatCluster) -> dict[str, str]:
    return {tag: node.role for tag, node in cluster.nodes.items()}


def test_a_leader_and_its_followers_have_leases() -> None:
    cluster = BeatCluster("ABC")
    assert roles(cluster) == {"A": "Candidate", "B": "Candidate", "C": "Candidate"}
    cluster.elect("A")
    cluster.go(300)
    assert roles(cluster) == {"A": "Leader", "B": "Follower", "C": "Follower"}
    for node in cluster.nodes.values():
        assert node.has_lease()
        assert node.has_lease(session=1)
        assert not node.has_lease(session=2)
        assert (node.session, node.leader, node.term) == (1, "A", 1)
        assert 1500 <= (node.lease_left_ms or 0) <= 1800


def test_a_node_in_no_cluster_is_passive_and_has_no_lease() -> None:
    cluster = BeatCluster("ABC", timings=None)
    cluster.elect("A")
    cluster.go(300)
    assert set(roles(cluster).values()) == {"Passive"}
    assert cluster.nodes["B"].leader is None
    assert cluster.nodes["A"].lease_left_ms == 0
    cluster.timings = dict.fromkeys("ABC", TIMINGS)
    cluster.go(300)
    assert roles(cluster) == {"A": "Leader", "B": "Follower", "C": "Follower"}


@pytest.mark.parametrize("cut", [{("A", "B")}, {("B", "A")}, {("A", "B"), ("B", "A")}])
def test_a_loss_in_either_direction_ends_a_followers_lease_and_makes_it_silent(cut: set[tuple[str, str]]) -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(6000)
    cluster.cut = cut
    cluster.go(1900)
    assert roles(cluster) == {"A": "Leader", "B": "Candidate", "C": "Follower"}
    assert cluster.nodes["B"].session is None
    assert cluster.nodes["B"].leader is None
    assert cluster.nodes["A"].silent_tags() == frozenset()
    cluster.go(2100)
    heard_still = ("B", "A") not in cut and ("A", "B") not in cut
    assert not heard_still
    assert cluster.nodes["A"].silent_tags() == {"B"}
    assert cluster.nodes["A"].judgement().is_silent("B")
    assert not cluster.nodes["A"].judgement().is_silent("C")
    assert cluster.nodes["C"].silent_tags() == frozenset()
    cluster.cut = set()
    cluster.go(500)
    assert cluster.nodes["B"].session == 2
    assert cluster.nodes["A"].silent_tags() == frozenset()


def test_a_leader_that_hears_nobody_steps_down_and_loses_its_lease() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(500)
    cluster.cut = {("B", "A"), ("C", "A")}
    cluster.go(2000)
    assert cluster.rafts["A"].stepped_down == [None]
    assert cluster.nodes["A"].role == "Candidate"
    sent = cluster.wires["A"].sent
    cluster.go(500)
    assert cluster.wires["A"].sent == sent


def test_a_leader_without_authority_sends_nothing_although_raft_is_slow_to_step_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(500)
    slow: list[int | None] = []
    monkeypatch.setattr(cluster.rafts["A"], "step_down", slow.append)
    cluster.cut = {("B", "A"), ("C", "A")}
    cluster.go(1700)
    sent = cluster.wires["A"].sent
    cluster.go(6000)
    assert len(slow) > 1
    assert cluster.wires["A"].sent == sent
    assert cluster.nodes["A"].role == "Candidate"
    assert cluster.nodes["A"].silent_tags() == frozenset()


def test_a_higher_term_in_a_report_makes_the_leader_step_down_to_it() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(300)
    cluster.rafts["B"].now(term=7)
    cluster.go(100)
    assert cluster.rafts["A"].stepped_down == [7]
    assert cluster.nodes["A"].role == "Follower", "its lease stands until it runs out"
    assert cluster.nodes["A"].reports == {}


def test_the_leader_forgets_the_report_of_a_node_that_left() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(300)
    assert set(cluster.nodes["A"].reports) == {"B", "C"}
    cluster.rafts["A"].consist_of("AB")
    cluster.nodes["A"].check()
    assert set(cluster.nodes["A"].reports) == {"B"}


def test_subscribers_hear_of_each_change_of_role_or_session_once_and_a_failing_one_harms_nobody() -> None:
    cluster = BeatCluster("ABC")
    heard: list[tuple[str, int | None]] = []
    node = cluster.nodes["B"]

    def failing() -> None:
        raise RuntimeError("no")

    node.subscribe(failing)
    end = node.subscribe(lambda: heard.append((node.role, node.session)))
    cluster.elect("A")
    cluster.go(1000)
    assert heard == [("Candidate", None), ("Follower", 1)]
    cluster.cut = {("B", "A")}
    cluster.go(2000)
    assert heard[2:] == [("Candidate", None)]
    end()
    cluster.cut = set()
    cluster.go(1000)
    assert len(heard) == 3


def read(node: Heartbeat) -> dict[str, Any]:
    """All that can be read of what the node may do and knows."""
    return {
        "role": node.role,
        "session": node.session,
        "leader": node.leader,
        "lease_left_ms": node.lease_left_ms,
        "has_lease": node.has_lease(),
        "silent": node.silent_tags(),
        "B_silent": node.judgement().is_silent("B"),
        "B_over": node.judgement().is_over("B", Incarnation(1, ord("B"))),
    }


NOTHING: dict[str, Any] = {
    "role": "Candidate",
    "session": None,
    "leader": None,
    "lease_left_ms": 0,
    "has_lease": False,
    "silent": frozenset(),
    "B_silent": False,
    "B_over": False,
}


@pytest.mark.parametrize("tag", ["A", "B"])
def test_reading_never_shows_a_lease_that_has_ended_and_changes_nothing_which_is_for_check(tag: str) -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(300)
    node, told = cluster.nodes[tag], list[str]()
    node.subscribe(lambda: told.append(node.role))
    noted, armed = node._lease, list(cluster.until[tag])
    cluster.clocks.ms += 5000
    assert read(node) == NOTHING
    assert (node._lease, told, cluster.rafts["A"].stepped_down, cluster.until[tag]) == (noted, [], [], armed)
    node.check()
    assert told == ["Candidate"]
    assert cluster.rafts["A"].stepped_down == ([None] if tag == "A" else [])
    assert read(node) == NOTHING


def test_reading_shows_no_lease_before_check_has_begun_it_and_set_the_kill_timer() -> None:
    alone = BeatCluster("A")
    node, raft = alone.nodes["A"], alone.rafts["A"]
    raft.now(role="Leader")
    assert (node.session, node.lease_left_ms, node.has_lease(), alone.until["A"]) == (None, 0, False, [])
    node.check()
    assert (node.session, node.lease_left_ms, node.has_lease(), alone.until["A"]) == (1, None, True, [FOREVER_NS])


def test_reading_shows_no_lease_without_end_once_others_vote_and_another_node_may_lead() -> None:
    alone = BeatCluster("A")
    alone.elect("A")
    node, raft = alone.nodes["A"], alone.rafts["A"]
    assert node.lease_left_ms is None
    raft.consist_of("AB")
    raft.now(role="Follower", term=2)
    shown = read(node)
    assert (shown["role"], shown["session"], shown["lease_left_ms"]) == ("Candidate", None, 0)


def test_a_session_that_ended_between_two_readings_never_comes_back() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(300)
    cluster.clocks.ms += 1800
    assert cluster.nodes["B"].session is None
    cluster.elect("A", term=2)
    cluster.go(300)
    assert cluster.nodes["B"].session == 2


def test_the_leader_keeps_each_nodes_last_report_with_its_payload() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(200)
    cluster.rafts["B"].now(applied_index=6)
    cluster.go(100)
    report = cluster.nodes["A"].reports["B"]
    assert report.node == NodeReport(node_id="first")
    assert (report.last.applied_index, report.last.has_lease, report.last.stamp.boot) == (6, True, 1)
    assert report.heard_ns == 300 * MS
    assert cluster.nodes["B"].reports == {}


def test_a_payload_that_is_too_large_stays_at_home() -> None:
    cluster = BeatCluster("AB")
    cluster.own = NodeReport(node_id="y" * PAYLOAD_BYTES_MAX)
    cluster.elect("A")
    cluster.go(500)
    assert cluster.nodes["B"].has_lease()
    assert cluster.nodes["A"].reports["B"].node is None


@pytest.mark.parametrize("data", [b"", b"\xff\xff", msgspec.msgpack.encode({"type": "beat"}), b"\x80\x04."])
def test_a_message_that_cannot_be_read_is_dropped(data: bytes) -> None:
    cluster = BeatCluster("AB")
    cluster.wires["A"].handler("B", data)
    cluster.elect("A")
    cluster.go(300)
    assert cluster.nodes["B"].has_lease()


def test_a_payload_that_cannot_be_read_is_dropped_and_the_report_counts() -> None:
    cluster = BeatCluster("AB")
    cluster.elect("A")
    cluster.own = []  # type: ignore[assignment]
    cluster.go(300)
    assert cluster.nodes["A"].reports["B"].node is None
    assert cluster.nodes["B"].has_lease()


def test_a_report_of_a_stranger_is_not_kept() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.rafts["A"].consist_of("AB")
    cluster.rafts["C"].consist_of("ABC")
    cluster.go(300)
    assert set(cluster.nodes["A"].reports) == {"B"}


def test_a_node_whose_timings_differ_says_so_and_takes_no_lease() -> None:
    cluster = BeatCluster("ABC")
    cluster.timings["B"] = Timings(heartbeat_ms=1, lease_ms=2, task_stop_timeout_ms=3, time_before_moving_to_rehab_ms=4)
    cluster.elect("A")
    cluster.go(500)
    assert roles(cluster)["B"] == "Candidate"
    assert "differ" in cluster.nodes["B"].complaint
    assert cluster.nodes["C"].complaint == ""


def test_each_renewal_is_handed_on_for_the_watchdog() -> None:
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(500)
    assert cluster.until["B"] == sorted(set(cluster.until["B"]))
    assert cluster.until["B"][-1] == 500 * MS - 100 * MS + 1800 * MS
    alone = BeatCluster("A")
    alone.elect("A")
    alone.go(500)
    assert alone.until["A"] == [FOREVER_NS]
    assert alone.nodes["A"].lease_left_ms is None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_the_loop_beats_at_once_when_elected_and_notices_a_lapse_by_itself() -> None:
    cluster = BeatCluster("ABC")
    quick = Timings(heartbeat_ms=20, lease_ms=200, task_stop_timeout_ms=50, time_before_moving_to_rehab_ms=500)
    cluster.timings = dict.fromkeys("ABC", quick)
    cluster.clocks = SystemClock()  # type: ignore[assignment]
    cluster.rafts = {tag: ScriptedRaft(tag, "ABC") for tag in "ABC"}
    cluster.nodes = {tag: cluster.node(tag, cluster.clocks, heartbeat_ms=20) for tag in "ABC"}
    changes: list[str] = []
    cluster.nodes["B"].subscribe(lambda: changes.append(cluster.nodes["B"].role))
    loops = [asyncio.create_task(node.run()) for node in cluster.nodes.values()]
    try:
        await until(lambda: changes == ["Candidate"])
        cluster.elect("A")
        await until(lambda: changes == ["Candidate", "Follower"])
        cluster.cut = {("A", "B")}
        await until(lambda: changes == ["Candidate", "Follower", "Candidate"])
        assert cluster.nodes["C"].has_lease()
    finally:
        for loop in loops:
            loop.cancel()
        ended = await asyncio.gather(*loops, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)


def test_the_same_report_is_read_once_and_counts_each_time() -> None:
    cluster = BeatCluster("AB")
    cluster.elect("A")
    cluster.go(500)
    first = cluster.nodes["A"].reports["B"]
    cluster.go(1000)
    second = cluster.nodes["A"].reports["B"]
    assert second.node is first.node
    assert second.samples > first.samples
    cluster.own = NodeReport(node_id="second")
    cluster.go(1000)
    third = cluster.nodes["A"].reports["B"]
    assert third.node == NodeReport(node_id="second")
    assert third.samples > second.samples


def test_a_process_that_the_record_does_not_have_is_neither_heard_nor_shown() -> None:
    """Of a copied directory, or one that has not announced itself yet."""
    cluster = BeatCluster("ABC")
    cluster.elect("A")
    cluster.go(300)
    leader, others = cluster.nodes["A"], {("B", "A"), ("A", "B")}
    cluster.cut = others
    for boot, nonce in ((1, 999), (2, 999)):
        stamp = Stamp(boot, nonce, cluster.clocks.elapsed_upper_ns())
        said = Report(term=1, stamp=stamp, echo=None, has_lease=True, applied_index=77)
        cluster.wires["A"].handler("B", msgspec.msgpack.encode(said))
    assert leader.reports["B"].last.applied_index != 77
    cluster.go(TIMINGS.time_before_moving_to_rehab_ms + 6000)
    assert leader.judgement().is_silent("B")
    assert leader.judgement().is_over("B", Incarnation(1, ord("B")))
    assert leader.judgement().is_over("A", Incarnation(1, 999))
    assert not leader.judgement().is_over("A", Incarnation(1, ord("A")))
