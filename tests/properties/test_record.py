"""The state machine under anything: it never raises, only moves forward, and is the same everywhere."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from raftnode.record.commands import (
    AddDatabaseNode,
    AddNode,
    AnnounceNode,
    Checkpoint,
    ClaimTask,
    Command,
    ConfirmDeletion,
    CreateDatabase,
    Decide,
    DeleteDatabase,
    DeleteTask,
    Entry,
    NewTopology,
    ProgressMade,
    PromoteDatabaseNode,
    PutTask,
    ReleaseTask,
    RemoveNode,
    SetDatabaseState,
    SetDraining,
    SetTaskPin,
    SetTaskState,
    VoidClaim,
    encode,
)
from raftnode.record.commands.observer import EndGrace
from raftnode.record.machine import apply
from raftnode.record.model import REQUESTS_MAX, Progress, Record, Topology, Traits, claim_key
from raftnode.record.ownership import responsible_node, tasks_of
from raftnode.record.snapshot import frames, read
from tests.unit.record.build import Cluster, node

TAGS = ("A", "B", "C", "D")
tags = st.sampled_from(TAGS)
databases = st.sampled_from(["Northwind", "Other"])
names = st.sampled_from(["t", "u", "T"])
ids = st.integers(2, 40)
groups = st.lists(tags, max_size=3).map(tuple)
keys = st.builds(claim_key, databases, st.just("SqlEtl"), names)
epochs = st.integers(1, 60)
progress = st.builds(
    ProgressMade,
    database=databases,
    id=ids,
    epoch=epochs,
    progress=st.builds(Progress, generation=ids, processed=st.integers(0, 9)),
)
topologies = st.builds(Topology, members=groups, rehabs=groups, promotables=groups)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateDatabase, name=databases, nodes=groups),
    st.builds(DeleteDatabase, name=databases, from_nodes=groups),
    st.builds(ConfirmDeletion, name=databases, tag=tags),
    st.builds(AddDatabaseNode, name=databases, tag=tags),
    st.builds(PromoteDatabaseNode, name=databases, tag=tags),
    st.builds(SetDatabaseState, name=databases, disabled=st.booleans()),
    st.builds(AddNode, node=tags.map(lambda t: node(t, node_id=""))),
    st.builds(RemoveNode, tag=tags),
    st.builds(SetDraining, tag=tags, draining=st.booleans()),
    st.builds(
        AnnounceNode,
        tag=tags,
        node_id=tags.map(lambda t: f"id-{t}"),
        boot=st.integers(0, 3),
        url=tags,
        cluster_address=tags,
        kinds=st.sampled_from([(), ("SqlEtl",)]),
    ),
    st.builds(
        PutTask,
        database=databases,
        name=names,
        kind=st.just("SqlEtl"),
        key=st.integers(-1, 2**64 - 1),
        id=st.just(0) | ids,
        mentor=st.none() | tags,
        pinned=st.booleans(),
        traits=st.builds(Traits, sticky=st.booleans()),
        reset=st.booleans(),
    ),
    st.builds(SetTaskState, database=databases, id=ids, disabled=st.booleans()),
    st.builds(SetTaskPin, database=databases, id=ids, mentor=st.none() | tags, pinned=st.booleans()),
    st.builds(DeleteTask, database=databases, id=ids),
    st.builds(
        ClaimTask,
        database=databases,
        kind=st.just("SqlEtl"),
        name=names,
        tag=tags,
        node_id=tags.map(lambda t: f"id-{t}"),
        boot=st.integers(1, 2),
        session=st.integers(0, 2),
    ),
    st.builds(ReleaseTask, key=keys, epoch=epochs, progress=st.none() | progress),
    st.builds(Checkpoint, made=st.lists(progress, max_size=3).map(tuple)),
    st.builds(EndGrace, key=keys, epoch=epochs),
    st.builds(
        Decide,
        term=st.integers(1, 2),
        iteration=st.just(1),
        at=st.just("now"),
        at_ms=st.integers(0, 10**10),
        voids=st.lists(st.builds(VoidClaim, key=keys, epoch=epochs, reason=st.just("r")), max_size=2).map(tuple),
        topologies=st.lists(
            st.builds(NewTopology, database=databases, etag=ids, topology=topologies, demoted=groups), max_size=2
        ).map(tuple),
        decisions=st.just((("Northwind", "sentence"),)),
    ),
)
requests = st.sampled_from(["", "", "r1", "r2", "r3"])
histories = st.lists(st.tuples(commands, requests, st.integers(1, 2)), max_size=60)


def played(history: list[tuple[Command, str, int]]) -> list[Record]:
    cluster = Cluster("A", "B", "C")
    cluster.create("A", "B")
    cluster.task("t")
    records = [cluster.record]
    for command, request_id, term in history:
        cluster.apply(command, request_id=request_id, term=term)
        records.append(cluster.record)
    return records


@given(st.binary(max_size=400), st.integers(0, 5), st.integers(0, 5))
def test_any_bytes_are_answered(data: bytes, index: int, term: int) -> None:
    before = Cluster("A").record
    applied = apply(before, Entry(index, term), data)
    assert applied.record.index >= before.index
    assert applied.result.index == index


@given(commands, st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_of_a_command_is_answered(command: Command, at: int, byte: int) -> None:
    data = bytearray(encode(command, "r"))
    data[at % len(data)] = byte
    records = played([])
    apply(records[-1], Entry(records[-1].index + 1, 1), bytes(data))


@settings(max_examples=150, deadline=None)
@given(histories)
def test_the_record_only_moves_forward(history: list[tuple[Command, str, int]]) -> None:
    records = played(history)
    for before, after in itertools.pairwise(records):
        assert after.index == before.index + 1
        for key, claim in after.claims.items():
            earlier = before.claims.get(key)
            assert claim.epoch <= after.index
            if earlier is not None and claim != earlier and claim.epoch <= earlier.epoch:
                assert claim.epoch == earlier.epoch or claim in before.claims.values(), "only a rename brings one along"
                assert (earlier.state, claim.state) != ("Void", "Held") or claim.epoch != earlier.epoch
        for folded, database in after.databases.items():
            was = before.databases.get(folded)
            if was is None:
                continue
            assert database.etag >= was.etag
            for id, made in database.progress.items():
                old = was.progress.get(id)
                if old is not None:
                    assert (made.generation, made.processed) >= (old.generation, old.processed)


@settings(max_examples=150, deadline=None)
@given(histories)
def test_a_held_claim_ends_only_by_release_void_or_the_same_node_ids_newer_claim(
    history: list[tuple[Command, str, int]],
) -> None:
    records = played(history)
    for (command, _, _), before, after in zip(history, records, records[1:], strict=False):
        held_after = {c.epoch for c in after.claims.values() if c.state == "Held"}
        for key, claim in before.claims.items():
            if claim.state != "Held" or claim.epoch in held_after:
                continue
            if isinstance(command, ClaimTask):
                newer = after.claims[key]
                assert (newer.tag, newer.node_id) == (claim.tag, claim.node_id)
                assert newer.epoch == after.index
            else:
                assert isinstance(command, (ReleaseTask, Decide))


@settings(max_examples=100, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_the_same_log_gives_the_same_record_also_over_a_snapshot(
    history: list[tuple[Command, str, int]], chance: random.Random
) -> None:
    records = played(history)
    at = chance.randrange(len(records))
    copy = read(frames(records[at]))
    assert copy == records[at]
    for command, request_id, term in history[at:]:
        copy = apply(copy, Entry(copy.index + 1, term), encode(command, request_id)).record
    assert copy == records[-1]
    assert len(copy.requests) == len(copy.request_order) <= REQUESTS_MAX


@settings(max_examples=100, deadline=None)
@given(histories)
def test_every_task_of_every_record_can_be_placed(history: list[tuple[Command, str, int]]) -> None:
    record = played(history)[-1]
    for database in record.databases.values():
        for task in tasks_of(record, database):
            placement = responsible_node(record, database, task)
            assert placement.node is None or database.topology.state_of(placement.node) is not None
