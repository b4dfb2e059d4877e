"""Whatever the record was, a cluster that begins again with one node is whole, and its epochs are new."""

from hypothesis import given, settings
from hypothesis import strategies as st

from raftnode.record.model import GENERATION_STRIDE, Record
from raftnode.record.ownership import responsible_node, tasks_of
from raftnode.record.recovery import raised, recovered, restored
from raftnode.record.snapshot import frames, read
from tests.properties.histories import play
from tests.unit.record.build import node

AT = "2026-11-21T08:00:00.0000000Z"
seeds = st.integers(0, 2**32 - 1)


def whole(record: Record, tag: str) -> None:
    """Everything that follows from the rest does, and everything is placed on that node or on nobody."""
    assert read(frames(record)) == record
    assert set(record.nodes) == {tag}
    assert not record.held
    for database in record.databases.values():
        assert database.topology.all_nodes == database.topology.members == (tag,)
        for task in tasks_of(record, database):
            assert responsible_node(record, database, task).node in (tag, None)


@settings(max_examples=100, deadline=None)
@given(seeds, st.integers(0, 80), st.integers(0, 10**7))
def test_a_cluster_that_begins_again_is_whole_and_never_reissues_an_epoch(seed: int, length: int, minutes: int) -> None:
    _, records = play(seed, length)
    record = records[-1]
    generation = raised(record.generation, minutes)
    index = record.index + 1
    assert all(generation * GENERATION_STRIDE > claim.epoch for claim in record.claims.values())
    for tag in record.nodes:
        again = recovered(record, tag, index=index, term=1, generation=generation, at=AT)
        whole(again, tag)
        assert {d.name for d in again.databases.values()} == {
            d.name for d in record.databases.values() if d.topology.state_of(tag) is not None
        }
    fresh = restored(record, node("N"), cluster_id="c2", index=index, term=1, generation=generation, at=AT)
    whole(fresh, "N")
    assert set(fresh.databases) == set(record.databases)
