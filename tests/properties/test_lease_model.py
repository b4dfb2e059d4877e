"""No two nodes run a task, in a randomised cluster on the real lease; and the model notices when a rule is
missing."""

from collections.abc import Callable
from typing import Any

import pytest

from raftnode.lease import Authority, Beat, Holder, Now, View
from raftnode.lease import authority as leadership
from raftnode.lease import holder as holding
from raftnode.lease.messages import lease_ns
from raftnode.record.model import Timings
from tests.properties.lease_model import TIMINGS, Broken, World

STEPS = 900


def first_violation(seeds: range) -> str | None:
    for seed in seeds:
        try:
            World(seed).run(STEPS)
        except Broken as violation:
            return f"seed {seed}: {violation}"
    return None


def test_no_two_nodes_run_a_task_whatever_network_clocks_and_nodes_do() -> None:
    starts = voids = 0
    for seed in range(100):
        world = World(seed)
        world.run(STEPS)
        starts += world.starts
        voids += world.voids
    assert starts > 200, "tasks must run"
    assert voids > 100, "and nodes fall silent"


def half_a_lease(timings: Timings) -> int:
    return lease_ns(timings) // 2


def nothing(timings: Timings) -> int:
    return 0


def from_receipt(holder: Holder, beat: Beat, view: View, now: Now) -> Holder:
    return holding.renewed(holder, now.hold_ns + lease_ns(TIMINGS), now)


def without_end(authority: Authority, timings: Timings, now: Now) -> int:
    return now.hold_ns + lease_ns(timings)


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        pytest.param(leadership, "silence_ns", half_a_lease, id="R is half a lease"),
        pytest.param(leadership, "void_wait_ns", nothing, id="no wait for old leases after an election"),
        pytest.param(holding, "granted", from_receipt, id="a lease counts from the receipt of a beat"),
        pytest.param(leadership, "until_ns", without_end, id="a leader keeps its authority unheard"),
    ],
)
def test_the_model_notices_when(
    module: Any, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, broken)
    assert first_violation(range(100)) is not None
