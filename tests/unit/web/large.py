"""A node with ten thousand tasks in its record, and a meter of how long the event loop's turns take."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from immutables import Map

import config
from raftnode.consensus.model import Peer
from raftnode.consensus.storage import offline
from raftnode.consensus.storage.offline import LastEntry
from raftnode.record import snapshot
from raftnode.record.commands import (
    ClaimTask,
    Command,
    CreateDatabase,
    Entry,
    PutConnectionString,
    PutIndex,
    PutTask,
    SetTaskPin,
    SuspendObserver,
    encode,
)
from raftnode.record.machine import apply
from raftnode.record.model import ClusterNode, Record, Task
from raftnode.record.ownership import PlacementGroup, task_key
from tests.unit.web.client import Client
from tests.unit.web.conftest import running

KIND = "SqlEtl"
TASKS = 10_000
BESIDE = 500
"""So many databases there are beside the one that holds most tasks."""
WAITING = 1_000
"""So many tasks belong to the node that answers, and wait until another one has released them."""
TERM_AHEAD = 100
CONFIGURATION = msgspec.json.encode(
    {
        "EtlType": "Sql",
        "ConnectionStringName": "target",
        "SqlTables": [{"TableName": "Orders", "DocumentIdColumn": "Id", "InsertOnlyMode": False}],
        "Transforms": [{"Name": "t", "Collections": ["Orders"], "Script": "loadToOrders({Id: id(this)});" * 10}],
    }
)


class CommandLog:
    """Applies commands one after the other, as a node does."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def do(self, command: Command) -> None:
        """Applies a command that must hold."""
        applied = apply(self.record, Entry(self.record.index + 1, 1), encode(command))
        assert applied.result.error is None, applied.result.error
        self.record = applied.record


def grown(record: Record) -> Record:
    """The record with ten thousand tasks more, which three other nodes hold."""
    others = {
        tag: ClusterNode(tag=tag, url=f"http://{address}", cluster_address=address, node_id=tag, kind="Watcher")
        for tag, address in (("B", "127.0.0.1:1"), ("C", "127.0.0.1:2"), ("D", "127.0.0.1:3"))
    }
    log = CommandLog(msgspec.structs.replace(record, nodes=Map(dict(record.nodes) | others)))
    # Nobody runs the other nodes, and what they hold shall stay with them.
    log.do(SuspendObserver(suspended=True))
    log.do(CreateDatabase(name="Shop", nodes=("B", "C", "D")))
    connection = b'{"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": "Host=127.0.0.1"}'
    log.do(PutConnectionString(database="Shop", name="target", type="Sql", configuration=connection))
    for number in range(BESIDE):
        log.do(CreateDatabase(name=f"beside{number}", nodes=("B", "C", "D")))
        log.do(PutIndex(database="Shop", name=f"i{number}", definition=b'{"Name": "i", "Maps": ["from o in docs"]}'))
        _task(log, f"beside{number}", "one")
    log.do(CreateDatabase(name="Here", nodes=("A", "B")))
    for number in range(WAITING):
        task = _task(log, "Here", f"waiting {number}", mentor="B")
        log.do(SetTaskPin(database="Here", id=task.id, mentor="A", pinned=True))
    for number in range(TASKS - BESIDE - WAITING):
        _task(log, "Shop", f"task {number}")
    return log.record


def _task(log: CommandLog, database: str, name: str, mentor: str | None = None) -> Task:
    log.do(
        PutTask(
            database=database,
            name=name,
            kind=KIND,
            key=task_key(KIND, name),
            configuration=CONFIGURATION,
            mentor=mentor,
            pinned=mentor is not None,
        )
    )
    found = log.record.database(database)
    task = found.task_named(name) if found else None
    assert found is not None
    assert task is not None
    tag = PlacementGroup(log.record, found).place(task)[0]
    assert tag is not None
    log.do(ClaimTask(database=database, kind=KIND, name=name, tag=tag, node_id=tag, boot=0, session=1))
    return task


@asynccontextmanager
async def large_node(settings: config.Settings) -> AsyncIterator[Client]:
    """A ready node of one in whose snapshot that record is."""
    async with running(settings) as client:
        record, term = client.node.replica.record, client.node.raft.status.term
    record = await asyncio.to_thread(grown, record)
    directory = Path(settings.node.data_dir) / "raft"
    last = LastEntry(term + TERM_AHEAD, record.index)
    offline.begin_anew(directory, Peer(settings.node.tag, settings.cluster_address), last, snapshot.frames(record))
    async with running(settings) as client:
        yield client


class Meter:
    """The processor time of the longest turn, in seconds, and what it did."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.what = ""


@contextmanager
def turns() -> Iterator[Meter]:
    """Measures every callback that this thread's loop runs meanwhile. What other threads and processes do costs no
    turn, nor does measuring coverage, with which Python code takes several times as long."""
    meter, run, tracer = Meter(), asyncio.events.Handle._run, sys.gettrace()

    def metered(self: asyncio.events.Handle) -> None:
        began_s = time.thread_time()
        run(self)
        took_s = time.thread_time() - began_s
        if took_s > meter.longest_s:
            meter.longest_s, meter.what = took_s, repr(self)

    asyncio.events.Handle._run = metered  # type: ignore[method-assign]
    sys.settrace(None)
    try:
        yield meter
    finally:
        sys.settrace(tracer)
        asyncio.events.Handle._run = run  # type: ignore[method-assign]
