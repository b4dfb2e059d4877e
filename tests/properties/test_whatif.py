"""What if says beforehand what the record says afterwards."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from observer.rules.decide import after_loss, decide
from observer.rules.facts import Facts, NodeFacts
from raftnode.record.commands import Command, SetDraining, SetNodeFlags, SetNodeTraits, SuspendObserver
from raftnode.record.commands.observer import Decide
from raftnode.record.model import KindTraits, Record
from raftnode.record.ownership import UPDATE_KIND, responsible_node
from raftnode.record.whatif import Forecast, Scenario, what_if
from tests.properties.histories import play
from tests.unit.observer.build import LIMITS
from tests.unit.record.build import KIND, RecordCluster

TAGS = ("A", "B", "C", "D", "E")
seeds = st.integers(0, 2**32 - 1)


def cluster_of(chance: random.Random) -> RecordCluster:
    cluster = RecordCluster(*TAGS)
    cluster.create(*chance.sample(TAGS, chance.randint(1, 5)))
    for number in range(8):
        mentor = chance.choice((None, *TAGS))
        cluster.task(
            f"t{number}",
            key=chance.getrandbits(64),
            mentor=mentor,
            pinned=mentor is not None and chance.random() < 0.3,
            traits=KindTraits(sticky=chance.random() < 0.3, grace_min=1),
            requires=("ssd",) if chance.random() < 0.2 else (),
        )
        placed = cluster.placed(f"t{number}").node
        if placed is not None and chance.random() < 0.5:
            cluster.do(cluster.claim(placed, f"t{number}"))
    for tag in TAGS:
        if chance.random() < 0.3:
            cluster.do(SetNodeTraits(tag=tag, labels=("ssd",)))
        if chance.random() < 0.2:
            cluster.do(SetNodeFlags(tag=tag, flags=("HighDirtyMemory",)))
    cluster.do(SuspendObserver(suspended=chance.random() < 0.1))
    return cluster


def nodes(record: Record) -> dict[int, str | None]:
    database = record.databases["northwind"]
    return {id: responsible_node(record, database, task).node for id, task in database.tasks.items()}


def forecast_nodes(record: Record, forecast: Forecast) -> dict[int, str | None]:
    """Of the tasks of users; that a Rehab is updated by a mentor follows from the group."""
    fates = (*forecast.moves, *forecast.waits)
    return nodes(record) | {fate.task_id: fate.target for fate in fates if fate.task_type != UPDATE_KIND}


def observed(record: Record, lost: tuple[str, ...]) -> Decide | None:
    """What the cluster observer decides once these nodes are silent."""
    known = {tag: NodeFacts(tag=tag, silent=tag in lost, fresh=tag not in lost, heard_ns=0) for tag in record.nodes}
    facts = Facts(
        leader="A", term=1, now_ns=10**12, now_ms=0, void_allowed=True, silence_ms=1, limits=LIMITS, nodes=known
    )
    concerned = not set(lost).isdisjoint(record.databases["northwind"].topology.members)
    demotions = tuple(new for new in decide(record, facts).topologies if new.demoted)
    return Decide(term=1, iteration=1, at="now", at_ms=1, topologies=demotions) if concerned and demotions else None


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_what_if_is_what_happens(seed: int) -> None:
    chance = random.Random(seed)
    cluster = cluster_of(chance)
    before = cluster.record
    drained = tuple(tag for tag in TAGS if chance.random() < 0.2)
    weights = {tag: chance.randint(1, 5) for tag in TAGS if chance.random() < 0.3}
    lost = tuple(chance.sample(TAGS, chance.randint(0, 2)))
    scenario = Scenario(drained=drained, weights=weights, lost=lost)
    steps: list[Command] = [SetDraining(tag=tag, draining=True) for tag in drained]
    steps += [SetNodeTraits(tag=tag, weight=weight) for tag, weight in weights.items()]
    for step in steps:
        cluster.do(step)
    decision = observed(cluster.record, lost)
    if decision is not None:
        cluster.do(decision)
    forecast = what_if(before, scenario, after_loss=after_loss, cluster_grace_min=1)
    assert forecast_nodes(before, forecast) == nodes(cluster.record)
    assert not {fate.target for fate in forecast.moves} & {*lost, None}
    moved = {fate.task_id for fate in forecast.moves}
    assert not moved & {fate.task_id for fate in forecast.waits}
    assert all(fate.source != fate.target for fate in forecast.moves)


@settings(max_examples=100, deadline=None)
@given(
    seeds, st.integers(0, 40), st.lists(st.sampled_from(TAGS), max_size=3), st.lists(st.sampled_from(TAGS), max_size=3)
)
def test_any_record_can_be_asked(seed: int, length: int, lost: list[str], drained: list[str]) -> None:
    _, records = play(seed, length)
    record = records[-1]
    known = Scenario(
        lost=tuple(tag for tag in lost if tag in record.nodes),
        drained=tuple(tag for tag in drained if tag in record.nodes),
    )
    record = replace(record, highly_available_tasks=seed % 2 == 0)
    forecast = what_if(record, known, after_loss=after_loss, cluster_grace_min=1)
    assert forecast.tasks >= len(forecast.moves) + len(forecast.waits)
    assert all(fate.task_type in (KIND, "Update") for fate in (*forecast.moves, *forecast.waits))
