"""A tick follows every message that leaves something to be done, at once, and no other one."""

from tests.unit.consensus.simulated import RaftWorld

HEARTBEAT_MS = 101


def react(world: RaftWorld) -> int:
    """Delivers everything, and lets those tick who are kicked, until nothing happens any more. Time stands still, so
    nobody ticks by the timer. Gives the number of ticks."""
    ticks = 0
    while True:
        delivered = sum(world.deliver(a, b) for a in world.nodes for b in world.nodes if a != b)
        tick_scheduled = [node for node in world.alive if node.tick_scheduled]
        if not delivered and not tick_scheduled:
            return ticks
        for node in tick_scheduled:
            node.tick_scheduled = False
            node.run_outside()
            node.engine.tick()
        ticks += len(tick_scheduled)


def quiet(tags: str) -> RaftWorld:
    world = RaftWorld(tags)
    world.settle()
    world.round(HEARTBEAT_MS)
    world.round()
    for node in world.alive:
        node.tick_scheduled = False
    react(world)
    return world


def test_a_quiet_clusters_heartbeats_and_their_answers_cost_nobody_a_tick() -> None:
    world = quiet("ABCDE")
    leader = world.leader()
    for _ in range(20):
        world.clock.pass_ms(HEARTBEAT_MS)
        leader.engine.tick()
        assert [tag for tag in world.nodes if world.queues[leader.tag, tag]], "heartbeats are on their way"
        assert react(world) == 0
    assert leader.engine.status.role == "Leader", "the answers were heard"
    followers = [node for node in world.alive if node is not leader]
    assert all(leader.engine._core.match_index(node.tag) == leader.engine.status.last_index for node in followers)


def test_a_command_is_committed_and_applied_everywhere_without_a_timer() -> None:
    world = quiet("ABCDE")
    leader = world.leader()
    assert world.propose(leader, b"one")
    ticks = react(world)
    assert {node.tag: node.machine.commands for node in world.alive} == {tag: [b"one"] for tag in "ABCDE"}
    # The leader: at the append, and at each answer until the majority's. Each follower: for its sync, and to apply.
    assert ticks <= 3 + 2 * 4


def test_a_follower_that_was_away_is_brought_up_to_date_without_a_timer() -> None:
    world = quiet("ABC")
    leader = world.leader()
    away = next(node for node in world.alive if node is not leader)
    world.disconnect_all(away.tag)
    commands = [b"%d" % number for number in range(50)]
    for command in commands:
        assert world.propose(leader, command)
        react(world)
    world.connect_all()
    react(world)
    assert away.machine.commands == commands


def test_a_leader_that_steps_down_and_the_next_election_need_a_timer_only_to_begin() -> None:
    world = quiet("ABC")
    leader = world.leader()
    follower = next(node for node in world.alive if node is not leader)
    assert leader.engine.transfer_leadership(follower.tag) == follower.tag
    react(world)
    assert follower.engine.status.role == "Leader"
    assert leader.engine.status.leader == follower.tag
    assert world.propose(follower, b"after")
    react(world)
    assert all(node.machine.commands == [b"after"] for node in world.alive)
