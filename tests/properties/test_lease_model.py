"""No two nodes run a task, in a randomised cluster on the real lease; and the model notices when a rule is
missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from raftnode import lease as rules
from raftnode.lease import Authority, Beat, Incarnation, LeaseHolder, Now, RaftView, Report, Stamp
from raftnode.lease import authority as leadership
from raftnode.lease import holder as holding
from raftnode.lease.messages import lease_ns
from raftnode.record.model import Timings
from tests.properties.lease_model import TIMINGS, Broken, ModelClaim, ModelNode, ModelRecord, ModelWorld

STEPS = 900


def first_violation(seeds: range, copying: float | None = None) -> str | None:
    for seed in seeds:
        try:
            ModelWorld(seed, copying).run(STEPS)
        except Broken as violation:
            return f"seed {seed}: {violation}"
    return None


def test_no_two_nodes_run_a_task_whatever_network_clocks_and_nodes_do() -> None:
    starts = voids = ended = 0
    for seed in range(100):
        world = ModelWorld(seed)
        world.run(STEPS)
        starts += world.starts
        voids += world.voids
        ended += world.ended
    assert starts > 200, "tasks must run"
    assert voids > 100, "and nodes fall silent"
    assert ended > 20, "and directories are copied"


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    """Sets of strings have another order in each, and a seed that noticed something must notice it again."""
    trace = (
        "from tests.properties.lease_model import ModelWorld\n"
        "for seed in range(3):\n"
        "    world = ModelWorld(seed)\n"
        "    world.run(300)\n"
        "    print(world.chance.getstate(), [(node.tag, node.log, node.lease.holder) for node in world.all])\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", trace],
            cwd=Path(__file__).parents[2],
            env=dict(os.environ) | {"PYTHONHASHSEED": hashing},
            capture_output=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    }
    assert len(printed) == 1


def half_a_lease(timings: Timings) -> int:
    return lease_ns(timings) // 2


def nothing(timings: Timings) -> int:
    return 0


def from_receipt(holder: LeaseHolder, beat: Beat, view: RaftView, now: Now) -> LeaseHolder:
    return holding.renewed(holder, now.elapsed_upper_ns + lease_ns(TIMINGS), now)


def without_end(authority: Authority, timings: Timings, now: Now) -> int:
    return now.elapsed_upper_ns + lease_ns(timings)


def echoed_though_not_accepted(
    authority: Authority, tag: str, report: Report, view: RaftView, own: Stamp, now: Now, rule: Any = leadership.heard
) -> Authority:
    authority = rule(authority, tag, report, view, own, now)
    return replace(authority, peers=authority.peers.set(tag, replace(authority.peers[tag], stamp=report.stamp)))


def to_whom_it_heard(authority: Authority, tag: str, view: RaftView, own: Stamp) -> Beat:
    peer = authority.peers.get(tag)
    echo = peer.stamp if peer and view.role == "Leader" else None
    return Beat(term=authority.term, stamp=own, echo=echo, timings=view.timings)


def none(node: ModelNode) -> int:
    return 1


def of_its_node(record: ModelRecord, held: ModelClaim, process: Incarnation, session: int) -> bool:
    return record.incarnations[held.holder] == process and (held.process.boot, held.session) < (process.boot, session)


def for_other_nodes(node: ModelNode, claim: ModelClaim | None) -> bool:
    return claim is not None and claim.held and claim.holder != node.tag


def when_its_node_is(node: ModelNode, claim: ModelClaim, now: Now) -> bool:
    """Nobody is asked how long a process has been silent that the record has gone past."""
    if node.record.incarnations.get(claim.holder) != claim.process:
        return not rules.is_silent(node.lease, claim.holder, now)
    return rules.is_silent(node.lease, claim.holder, now)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"nonce": none}, id="two processes of one start are told apart by nothing"),
        pytest.param(
            {"again": of_its_node, "waits_for": for_other_nodes},
            id="a claim is granted over a former process's",
        ),
        pytest.param(
            {"heard": echoed_though_not_accepted, "beat_for": to_whom_it_heard}, id="two processes of a node are echoed"
        ),
        pytest.param({"over": when_its_node_is}, id="a former process counts as over at once"),
    ],
)
def test_the_model_notices_with_copied_directories_when(
    broken: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = {"again": ModelRecord, "heard": leadership, "beat_for": leadership}
    for name, rule in broken.items():
        monkeypatch.setattr(homes.get(name, ModelNode), name, rule)
    assert first_violation(range(400), copying=0.02) is not None


@pytest.mark.parametrize(
    ("module", "name", "broken", "first"),
    [
        pytest.param(leadership, "silence_ns", half_a_lease, 1, id="R is half a lease"),
        pytest.param(leadership, "void_wait_ns", nothing, 26, id="no wait for old leases after an election"),
        pytest.param(holding, "granted", from_receipt, 141, id="a lease counts from the receipt of a beat"),
        pytest.param(leadership, "until_ns", without_end, 5, id="a leader keeps its authority unheard"),
    ],
)
def test_the_model_notices_when(
    module: Any, name: str, broken: Callable[..., Any], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds are tried from `first` on, as few of them notice."""
    monkeypatch.setattr(module, name, broken)
    assert first_violation(range(first, first + 400)) is not None
