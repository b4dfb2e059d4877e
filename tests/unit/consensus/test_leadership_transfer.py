"""Who cannot take the leadership is not waited for: the leader takes no commands meanwhile."""

import pytest

from raftnode.consensus.engine import RequestRefused
from tests.unit.consensus.simulated import RaftWorld


def test_nobody_hands_over_to_a_node_that_is_not_heard() -> None:
    world = RaftWorld("ABC")
    world.settle()
    leader = world.leader()
    frozen, other = (node for node in world.alive if node is not leader)
    leader.engine.check_transfer_target(frozen.tag)
    frozen.alive = False
    for _ in range(60):
        world.round()
    assert leader.engine.status.role == "Leader"
    assert frozen.tag in leader.engine._replication.connected_tags
    with pytest.raises(RequestRefused, match=f"{frozen.tag} has not answered for"):
        leader.engine.check_transfer_target(frozen.tag)
    leader.engine.check_transfer_target(other.tag)
    leader.engine.check_transfer_target(None)
    world.disconnect_all(frozen.tag)
    with pytest.raises(RequestRefused, match="not another connected voter"):
        leader.engine.check_transfer_target(frozen.tag)
    assert not leader.engine.handing_over
    assert world.propose(leader, b"taken at once")
