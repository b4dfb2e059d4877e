"""Real targets, real documents and a real context for the tests of tasks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from aiohttp import web
from immutables import Map
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from raftnode.documents.change_vector import dominates
from raftnode.documents.replication.sender import Destination, DocumentSender, accepted, receive
from raftnode.documents.store.model import PutDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from raftnode.record.model import ConnectionString, Database, Progress, Task, Topology
from raftnode.scripting.javascript import ScriptLimits
from raftnode.web.requests import answer
from tasks.runtime.context import Run, RunFigures, RunSettings, TaskContext
from tasks.runtime.run_journal import FreezeDetector, RunJournal
from tasks.runtime.shared_resources import SharedResources
from tasks.sinks.sql import connection_string as sql_connection
from tests import mariadb, postgres

NORTHWIND = Path(__file__).parents[3] / "raftnode" / "demo" / "northwind.jsonl"


class SqlTarget:
    """A database of its own for one test, and the connection string that leads to it."""

    def __init__(self, name: str, connection: dict[str, Any]) -> None:
        self.name, self.configuration = name, connection
        self.connection = sql_connection.parse(connection)

    def _engine(self) -> AsyncEngine:
        """Names in double quotes are names, whatever the database."""
        modes = {"sql_mode": "'ANSI_QUOTES,STRICT_ALL_TABLES'"} if self.name == "mysql" else {}
        return create_async_engine(self.connection.url, connect_args=modes)

    async def execute(self, *statements: str) -> None:
        engine = self._engine()
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))
        await engine.dispose()

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        engine = self._engine()
        try:
            async with engine.connect() as connection:
                return [tuple(row) for row in await connection.execute(sa.text(query))]
        finally:
            await engine.dispose()

    async def shows(self, query: str, rows: list[tuple[Any, ...]]) -> None:
        """Wait until the query gives these rows."""
        async with asyncio.timeout(60):
            while True:
                if await self.rows(query) == rows:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def sqlite_target(tmp_path: Path) -> SqlTarget:
    text = f"Data Source={tmp_path / 'target.db'}"
    return SqlTarget(
        "sqlite", {"Name": "target", "Type": "Sql", "FactoryName": "System.Data.SQLite", "ConnectionString": text}
    )


@pytest.fixture
async def postgres_target(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[SqlTarget]:
    name = f"t{abs(hash(request.node.nodeid)):x}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.execute(f"CREATE DATABASE {name}")
    base = postgres_url.rsplit("/", 1)[0]
    yield SqlTarget(
        "postgres",
        {"Name": "target", "Type": "Sql", "FactoryName": "Npgsql", "ConnectionString": f"{base}/{name}"},
    )
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    with mariadb.server() as url:
        yield url


@pytest.fixture
async def mysql_target(mysql_url: str) -> AsyncIterator[SqlTarget]:
    async with mariadb.database(mysql_url) as url:
        factory = "MySqlConnector.MySqlConnectorFactory"
        yield SqlTarget("mysql", {"Name": "target", "Type": "Sql", "FactoryName": factory, "ConnectionString": url})


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("mysql", marks=pytest.mark.mysql),
    ]
)
def target(request: pytest.FixtureRequest) -> SqlTarget:
    target: SqlTarget = request.getfixturevalue(f"{request.param}_target")
    return target


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DocumentStore]:
    store = await DocumentStore.open(tmp_path / "documents.sqlite", tag="A", database="Northwind")
    yield store
    await store.close()


def northwind(*collections: str) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in NORTHWIND.read_text(encoding="utf-8").splitlines()]
    return [d for d in documents if not collections or d["@metadata"]["@collection"] in collections]


def database(target: SqlTarget) -> Database:
    string = ConnectionString(name="target", type="Sql", configuration=json.dumps(target.configuration).encode())
    return Database(
        name="Northwind", etag=1, topology=Topology(members=("A",)), connection_strings=Map({"target": string})
    )


class BodyBench:
    """Runs bodies over one store, as the supervisor would, with a switch for ownership."""

    def __init__(self, store: DocumentStore, target: SqlTarget, directory: Path) -> None:
        self.store, self.target = store, target
        self.journal = RunJournal(directory, "A")
        self.owned = True
        self.shared = SharedResources()
        self.saved: list[Progress] = []

    def context(self, task: Task, epoch: int, generation: int = 1, **settings: Any) -> TaskContext:
        run = Run(
            database="Northwind",
            task=task,
            claim_key=f"northwind/SqlEtl/{task.name.lower()}",
            epoch=epoch,
            generation=generation,
            cluster_id="cluster",
            node="A",
            connection=json.dumps(self.target.configuration).encode(),
        )
        limits = {"script": ScriptLimits(time_ms_max=2_000)} | settings
        return TaskContext(
            run,
            self.store,
            settings=RunSettings(**limits),
            info=RunFigures(),
            owned=lambda: self.owned,
            save=self._save,
            journal=self.journal,
            freezes=FreezeDetector(),
            shared=self.shared,
        )

    def _save(self, run: Run, progress: Progress) -> "asyncio.Future[bool]":
        self.saved.append(progress)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future


@pytest.fixture
async def bench(store: DocumentStore, target: SqlTarget, tmp_path: Path) -> AsyncIterator[BodyBench]:
    bench = BodyBench(store, target, tmp_path)
    yield bench
    await bench.shared.close()
    bench.journal.close()


async def until(condition: Callable[[], bool], body: "asyncio.Task[None] | None" = None) -> None:
    """Wait for a condition while a body runs; if the body ends first, its error is the test's."""
    async with asyncio.timeout(30):
        while not condition():
            if body is not None and body.done():
                await body
                raise AssertionError("the body ended by itself")
            await asyncio.sleep(0.005)


async def put_all(store: DocumentStore, documents: Sequence[Mapping[str, Any]]) -> None:
    operations = [PutDocument(id=d["@metadata"]["@id"], document=dict(d)) for d in documents]
    await store.batch(operations)


@asynccontextmanager
async def receiving(store: DocumentStore) -> AsyncIterator[str]:
    """The address of a node that only takes in what is replicated to it."""

    async def handshake(request: web.Request) -> web.Response:
        return answer(await accepted(store, request.query["source"]))

    async def documents(request: web.Request) -> web.Response:
        return answer(await receive(store, await request.read()))

    app = web.Application(client_max_size=1 << 28)
    app.add_routes(
        [
            web.get("/replication/Northwind/accepted", handshake),
            web.post("/replication/Northwind/documents", documents),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def replicate(source: DocumentStore, target: DocumentStore) -> None:
    """Bring the target to all that the source knows."""
    async with receiving(target) as url, HttpClient() as http:
        sender = asyncio.create_task(DocumentSender(source, Destination("X", url, "Northwind"), http).run())
        await until(lambda: dominates(target.change_vector, source.change_vector), sender)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
