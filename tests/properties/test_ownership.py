"""Placement moves only what must move, and names the same node everywhere."""

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace

from raftnode.record.model import Claim, ClusterNode, Database, KindTraits, Record, Task, Topology, claim_key
from raftnode.record.ownership import responsible_node, task_key
from raftnode.record.snapshot import frames, read

TAGS = [a + b for a in "ABC" for b in "XYZ"]
tags = st.sampled_from(TAGS)
groups = st.lists(tags, min_size=1, max_size=6, unique=True).map(tuple)
KEYS = [task_key("SqlEtl", f"task {i}") for i in range(40)]


def record_of(members: tuple[str, ...], *, weights: dict[str, int] | None = None, drained: str | None = None) -> Record:
    nodes = {
        tag: ClusterNode(
            tag=tag, url=tag, cluster_address=tag, weight=(weights or {}).get(tag, 1), draining=tag == drained
        )
        for tag in TAGS
    }
    tasks = Map({i: Task(id=i, name=f"t{i}", kind="SqlEtl", key=key) for i, key in enumerate(KEYS)})
    database = Database(name="d", etag=1, topology=Topology(members=members), tasks=tasks)
    return Record(nodes=Map(nodes), databases=Map({"d": database}))


def placed(record: Record) -> dict[int, str | None]:
    database = record.databases["d"]
    return {id: responsible_node(record, database, task).node for id, task in database.tasks.items()}


def with_topology(record: Record, topology: Topology) -> Record:
    database = replace(record.databases["d"], topology=topology)
    return replace(record, databases=Map({"d": database}))


@given(groups.filter(lambda g: len(g) > 1), st.data())
def test_scenario_09_a_demotion_moves_only_the_tasks_of_the_demoted_node_and_its_return_brings_back_just_these(
    members: tuple[str, ...], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(members))
    before = record_of(members)
    left = Topology(members=tuple(t for t in members if t != gone), rehabs=(gone,))
    during = with_topology(before, left)
    back = with_topology(before, Topology(members=(*left.members, gone)))
    first, second = placed(before), placed(during)
    assert all(second[id] == node for id, node in first.items() if node != gone)
    assert gone not in second.values()
    assert placed(back) == first, "the order of the Members does not matter"


@given(groups.filter(lambda g: len(g) > 1), st.data())
def test_a_removal_moves_only_the_tasks_of_the_removed_node(members: tuple[str, ...], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(members))
    first = placed(record_of(members))
    second = placed(record_of(tuple(t for t in members if t != gone)))
    assert all(second[id] == node for id, node in first.items() if node != gone)


@given(groups, tags)
def test_an_addition_takes_tasks_only_for_the_added_node(members: tuple[str, ...], added: str) -> None:
    if added in members:
        members = tuple(t for t in members if t != added)
    first, second = placed(record_of(members)), placed(record_of((*members, added)))
    assert all(second[id] in (node, added) for id, node in first.items())


@given(groups.filter(lambda g: len(g) > 1), st.data())
def test_draining_moves_only_the_tasks_of_the_drained_node(members: tuple[str, ...], data: st.DataObject) -> None:
    drained = data.draw(st.sampled_from(members))
    first, second = placed(record_of(members)), placed(record_of(members, drained=drained))
    assert all(second[id] == node for id, node in first.items() if node != drained)
    assert drained not in second.values()


@given(groups, tags, st.integers(2, 5))
def test_more_weight_takes_tasks_only_for_the_heavier_node(members: tuple[str, ...], heavier: str, weight: int) -> None:
    first, second = placed(record_of(members)), placed(record_of(members, weights={heavier: weight}))
    assert all(second[id] in (node, heavier) for id, node in first.items())


claims = st.builds(
    Claim,
    tag=tags,
    node_id=st.just("n"),
    boot=st.just(1),
    session=st.just(1),
    epoch=st.integers(1, 9),
    state=st.sampled_from(["Held", "Released", "Void"]),
    grace_ended=st.booleans(),
)


def drawn_nodes(data: st.DataObject) -> dict[str, ClusterNode]:
    """Some of the nodes that groups and claims name."""
    return {
        tag: ClusterNode(
            tag=tag,
            url=tag,
            cluster_address=tag,
            draining=data.draw(st.booleans()),
            labels=("ssd",) if data.draw(st.booleans()) else (),
            kinds=data.draw(st.sampled_from([None, (), ("SqlEtl",)])),
        )
        for tag in sorted(data.draw(st.sets(tags)))
    }


def drawn_task(data: st.DataObject) -> Task:
    return Task(
        id=1,
        name="t",
        kind="SqlEtl",
        key=data.draw(st.integers(0, 2**64 - 1)),
        mentor=data.draw(st.none() | tags),
        pinned=data.draw(st.booleans()),
        requires=("ssd",) if data.draw(st.booleans()) else (),
        traits=KindTraits(sticky=data.draw(st.booleans()), resource_heavy=data.draw(st.booleans())),
    )


@settings(max_examples=300)
@given(st.data())
def test_placement_is_total_and_deterministic_and_names_a_node_that_its_rule_allows(data: st.DataObject) -> None:
    members, rehabs, promotables = data.draw(groups), data.draw(groups), data.draw(groups)
    rehabs = tuple(t for t in rehabs if t not in members)
    promotables = tuple(t for t in promotables if t not in members + rehabs)
    nodes, task = drawn_nodes(data), drawn_task(data)
    deletion: Map[str, str] = Map(dict.fromkeys(data.draw(st.sets(tags, max_size=2)), "HardDelete"))
    database = Database(
        name="d",
        etag=1,
        topology=Topology(members=members, rehabs=rehabs, promotables=promotables),
        tasks=Map({1: task}),
        deletion_in_progress=deletion,
    )
    claim = data.draw(st.none() | claims)
    record = Record(
        nodes=Map(nodes),
        databases=Map({"d": database}),
        claims=Map({claim_key("d", "SqlEtl", "t"): claim}) if claim else Map(),
        highly_available_tasks=data.draw(st.booleans()),
    )
    placement = responsible_node(record, database, task)
    copy = read(frames(record))
    assert placement == responsible_node(copy, copy.databases["d"], copy.databases["d"].tasks[1])
    picked = {r.node: r for r in placement.ranking}.get(placement.node or "")
    if placement.rule in ("NoMember", "NoRunner"):
        assert placement.node is None
    elif placement.rule in ("PinnedMentor", "LicenceKeepsLast"):
        assert placement.node not in deletion
        assert picked is not None
    else:
        assert picked is not None
        waits = placement.rule == "StickyHolder" and picked.ruled_out == "Rehab"
        assert picked.ruled_out is None or waits
        assert placement.rule != "Mentor" or placement.node == task.mentor
    if placement.rule == "Hash":
        fit = [r.node for r in placement.ranking if r.ruled_out is None]
        heavy = task.traits.resource_heavy and len(fit) > 1
        assert placement.node == next(tag for tag in fit if not heavy or tag != members[0])
