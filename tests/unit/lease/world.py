"""Shorthand for the lease's inputs: L = 1800 ms, stop = 1000 ms, R = 4000 ms."""

from typing import Any

from raftnode.lease import (
    Beat,
    Incarnation,
    LeaseState,
    Now,
    RaftView,
    Report,
    Stamp,
    advance,
    new_lease,
    on_beat,
    on_report,
)
from raftnode.record.model import Timings

MS = 1_000_000
TIMINGS = Timings(heartbeat_ms=200, lease_ms=1800, task_stop_timeout_ms=1000, time_before_moving_to_rehab_ms=4000)
FIVE = frozenset("ABCDE")
BOOT, NONCE = 3, 77
FIRST = Incarnation(1, 5)
"""Of every other node, as the record has it."""


def at(ms: float, wall_ms: int | None = None) -> Now:
    """All clocks in step, `ms` after the process started."""
    return Now(int(ms * MS), int(ms * MS), int(ms) if wall_ms is None else wall_ms)


def view(role: Any = "Follower", term: int = 1, voters: Any = FIVE, **given: Any) -> RaftView:
    settings: dict[str, Any] = {
        "peers": frozenset(voters) - {"A"},
        "applied_index": 10,
        "commit_index": 10,
        "timings": TIMINGS,
        "incarnations": dict.fromkeys("BCDEFW", FIRST),
    }
    return RaftView(role=role, term=term, voters=frozenset(voters), **settings | given)


def node() -> LeaseState:
    """Node A, just started."""
    return new_lease("A", BOOT, NONCE)


def own(ms: float) -> Stamp:
    """A stamp of node A."""
    return Stamp(BOOT, NONCE, int(ms * MS))


def started(**incarnations: tuple[int, int]) -> dict[str, Incarnation]:
    """What the record has of the others when those have been started again."""
    return dict.fromkeys("BCDEFW", FIRST) | {tag: Incarnation(*pair) for tag, pair in incarnations.items()}


def theirs(ms: float, boot: int = 1, nonce: int = 5) -> Stamp:
    """A stamp of another node."""
    return Stamp(boot, nonce, int(ms * MS))


def beat(echo: Stamp | None, term: int = 1, timings: Timings | None = TIMINGS) -> Beat:
    return Beat(term=term, stamp=theirs(5), echo=echo, timings=timings)


def report(sent_ms: float, echo: Stamp | None = None, term: int = 1, **given: Any) -> Report:
    settings: dict[str, Any] = {"has_lease": True, "applied_index": 10, "stamp": theirs(sent_ms)}
    return Report(term=term, echo=echo, **settings | given)


def follower(echo_ms: float = 0, now_ms: float = 100) -> LeaseState:
    """Node A with a lease from an echo of its stamp at `echo_ms`."""
    return on_beat(node(), beat(own(echo_ms)), view(), at(now_ms))[0]


def elected(now_ms: float = 0, role: Any = "Leader", votes: dict[str, int] | None = None, **given: Any) -> LeaseState:
    """Node A as the leader of term 1, elected by B and C whose vote requests left at 0 ms."""
    given = {"votes": {"B": 0, "C": 0} if votes is None else votes} | given
    return advance(node(), view(role, **given), at(now_ms))[0]


def answered(
    lease: LeaseState, ms: float, *tags: str, role: Any = "Leader", leader_applied: int | None = None, **given: Any
) -> LeaseState:
    """The leader after those nodes have answered at once to beats sent at `ms`; it has itself applied everything
    unless told otherwise."""
    looked: dict[str, Any] = {
        name: given.pop(name)
        for name in ("peers", "voters", "commit_index", "timings", "incarnations")
        if name in given
    }
    looked["applied_index"] = leader_applied or looked.get("commit_index", 10)
    for tag in tags:
        answer = report(ms, own(ms), **given)
        lease, down = on_report(lease, tag, answer, view(role, **looked), at(ms))
        assert down is None, down
    return lease
