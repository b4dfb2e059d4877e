"""A node whose committed entries the leader contradicts throws everything away, and votes for nobody until it has it
all again."""

from raftnode.consensus.engine import messages
from raftnode.consensus.engine.messages import PreVote, RequestVote
from tests.unit.consensus.simulated import RaftWorld, SimulatedNode


def corrupted(world: RaftWorld) -> tuple[SimulatedNode, SimulatedNode]:
    """The leader, and a follower that believes in another history: entries the others lost are committed in it."""
    leader = world.leader()
    liar = next(node for node in world.alive if node is not leader)
    for number in range(5):
        world.propose(leader, b"true %d" % number)
        world.round()
    world.settle()
    index = liar.engine.status.last_index
    world.disconnect_all(liar.tag)
    liar.engine._journal.truncate(index)
    liar.engine._journal.append((b"\x00a lie", index, liar.engine.status.term))
    liar.machine.applied[-1] = (index, liar.engine.status.term, b"a lie")
    liar.engine._journal.entries[-2:] = [(b"\x00a lie", index - 1, 0), (b"\x00a lie", index, 0)]
    return leader, liar


def test_a_contradicted_node_starts_over_and_ends_equal() -> None:
    world = RaftWorld("ABC")
    leader, liar = corrupted(world)
    world.propose(leader, b"one more")
    world.connect_all()
    world.run_until(lambda: liar.engine.status.applied_index == leader.engine.status.applied_index)
    world.settle()
    assert len(liar.wipes) == 1
    assert "throws its log and state away" in liar.wipes[0]
    assert liar.machine.commands == leader.machine.commands
    assert leader.failures == liar.failures == []


def test_a_snapshot_that_was_being_written_goes_with_the_state_that_is_in_it() -> None:
    world = RaftWorld("ABC")
    leader, liar = corrupted(world)
    liar.engine.snapshot()
    assert liar.outside, "it is being written, in another thread"
    world.propose(leader, b"one more")
    world.connect_all()
    while not liar.wipes:
        world.clock.pass_ms(10)
        leader.engine.tick()
        world.deliver(liar.tag, leader.tag)
        world.deliver(leader.tag, liar.tag)
        liar.engine.tick()
    liar.run_outside()
    assert liar.engine.status.snapshot_index == 0
    world.settle()
    liar.crash()
    liar.start()
    world.connect_all()
    world.settle()
    assert liar.machine.commands == leader.machine.commands


def test_until_it_has_recovered_it_votes_for_nobody_even_after_a_restart() -> None:
    world = RaftWorld("ABC")
    leader, liar = corrupted(world)
    other = next(node for node in world.alive if node not in (leader, liar))
    world.connect_all()
    world.run_until(lambda: liar.wipes != [])
    world.disconnect_all(liar.tag)
    assert liar.engine.status.applied_index == 1
    for _ in range(2):
        votes = other.engine.status.term + 1
        world.clock.pass_ms(5_000)
        for message in (PreVote(votes, 1, 99, votes), RequestVote(votes, 99, votes)):
            world.up.add(frozenset((liar.tag, other.tag)))
            liar.engine.receive(other.tag, messages.encode(message))
            liar.engine.tick()
        answers = [messages.decode(raw) for raw in world.queues[liar.tag, other.tag]]
        assert not any(isinstance(answer, messages.VoteGranted) for answer in answers)
        assert not any(isinstance(answer, messages.PreVoteGranted) and answer.granted for answer in answers)
        assert liar.engine.status.role == "Follower"
        liar.crash()
        liar.start()
    world.connect_all()
    world.settle()
    assert liar.machine.commands == leader.machine.commands
    leader.crash()
    world.leader()
