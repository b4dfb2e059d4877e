"""SQL ETL of real nodes into each kind of server: Northwind arrives although its node is killed in the middle, and what
a frozen node has sent last does not stand when it arrives after its successor's rows."""

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests import mariadb, postgres
from tests.harness.cluster import PATIENT, Cluster, northwind
from tests.harness.holding_proxy import HoldingProxy
from tests.harness.runs import assert_no_overlap

DATABASE = "Northwind"
FLAGS = ("--cluster.stabilization-time-sec", "0", "--tasks.batch-documents-max", "20", *PATIENT)
TABLES = (
    '"Orders" ("Line" serial PRIMARY KEY, "Id" varchar(60), "Company" varchar(60))',
    '"OrderLines" ("OrderId" varchar(60), "Quantity" int, "Price" numeric(12, 4), "Discount" numeric(6, 4))',
)
"""Without keys: a row that came twice would stand there twice."""
ETL = {
    "EtlType": "Sql",
    "Name": "orders",
    "ConnectionStringName": "target",
    "SqlTables": [
        {"TableName": "Orders", "DocumentIdColumn": "Id"},
        {"TableName": "OrderLines", "DocumentIdColumn": "OrderId"},
    ],
    "Transforms": [
        {
            "Name": "orders",
            "Collections": ["Orders"],
            "Script": "loadToOrders({Company: this.Company}); for (const line of this.Lines) "
            "loadToOrderLines({Quantity: line.Quantity, Price: line.PricePerUnit, Discount: line.Discount});",
        }
    ],
}
FIGURES = """SELECT (SELECT count(*) FROM "Orders"), (SELECT count(DISTINCT "Id") FROM "Orders"), count(*),
round(sum("Quantity" * "Price" * (1 - "Discount")), 2) FROM "OrderLines" """


class Target(Protocol):
    """A database of the test's own, behind the proxy."""

    string: dict[str, Any]
    proxy: HoldingProxy

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives."""


class PostgresTarget:
    def __init__(self, string: dict[str, Any], proxy: HoldingProxy, connection: asyncpg.Connection) -> None:
        self.string, self.proxy, self._connection = string, proxy, connection

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._connection.fetch(query)]


class MariaDbTarget:
    def __init__(self, string: dict[str, Any], proxy: HoldingProxy, connection: Any) -> None:
        self.string, self.proxy, self._connection = string, proxy, connection

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return await mariadb.rows(self._connection, query)


@contextlib.asynccontextmanager
async def behind_proxy(url: str, factory: str) -> AsyncIterator[tuple[dict[str, Any], HoldingProxy]]:
    there = make_url(url)
    assert there.port is not None
    async with HoldingProxy(there.port) as proxy:
        text = there.set(host="127.0.0.1", port=make_url(proxy.url).port).render_as_string(hide_password=False)
        yield {"Name": "target", "Type": "Sql", "FactoryName": factory, "ConnectionString": text}, proxy


@contextlib.asynccontextmanager
async def at_postgres() -> AsyncIterator[Target]:
    async with postgres.table(TABLES[0]) as (url, connection), behind_proxy(url, "Npgsql") as (string, proxy):
        await connection.execute(f"CREATE TABLE {TABLES[1]}")
        yield PostgresTarget(string, proxy, connection)


@contextlib.asynccontextmanager
async def at_mariadb() -> AsyncIterator[Target]:
    factory = "MySqlConnector.MySqlConnectorFactory"
    with mariadb.server() as server:
        async with (
            mariadb.database(server) as url,
            mariadb.connection(url) as connection,
            behind_proxy(url, factory) as (string, proxy),
        ):
            for table in TABLES:
                await mariadb.rows(connection, f"CREATE TABLE {table}")
            yield MariaDbTarget(string, proxy, connection)


@pytest.fixture(
    params=[
        pytest.param(at_postgres, marks=(pytest.mark.postgres, pytest.mark.long), id="postgres"),
        pytest.param(at_mariadb, marks=pytest.mark.mysql, id="mariadb"),
    ]
)
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    async with request.param() as made:
        yield made


@pytest.mark.timeout(240)
async def test_northwind_arrives_once_although_nodes_are_killed_and_frozen(tmp_path: Path, target: Target) -> None:
    async with Cluster(tmp_path, "ABC", flags=FLAGS) as cluster:
        await cluster.create_database(DATABASE, "ABC")
        await cluster.import_documents(DATABASE, northwind(), "A")
        await cluster.put_connection_string(DATABASE, target.string)
        await cluster.put_etl(DATABASE, ETL)
        await killed_in_the_middle(cluster, target)
        await shows(cluster, target, FIGURES, (830, 830, 2155, "1265793.04"))
        await frozen_in_its_last_write(cluster, target)
        assert_no_overlap(cluster.runs(), ["orders"])


async def killed_in_the_middle(cluster: Cluster, target: Target) -> None:
    async def begun() -> bool:
        [(count,)] = await target.rows('SELECT count(*) FROM "Orders"')
        return bool(count)

    await cluster.wait_until(begun, "the first rows")
    holder = await cluster.wait_until(lambda: cluster.holder(DATABASE, "orders"), "a holder")
    await cluster.kill(holder)
    [(count,)] = await target.rows('SELECT count(*) FROM "Orders"')
    assert count < 830, "it must be killed before the end"
    await cluster.restart(holder)


async def frozen_in_its_last_write(cluster: Cluster, target: Target) -> None:
    """Its commit is on the way when it is frozen, in a transaction that has passed the fence."""
    document = {"Company": "first", "Lines": [], "@metadata": {"@collection": "Orders"}}

    async def put(company: str, tag: str | None = None) -> None:
        given = document | {"Company": company}
        await cluster.call("PUT", f"/databases/{DATABASE}/docs?id=orders/late", given, tag)

    ours = 'SELECT "Company" FROM "Orders" WHERE "Id" = \'orders/late\''
    await put("first")
    await shows(cluster, target, ours, ("first",))
    target.proxy.hold(b"COMMIT")
    await put("too late")
    await cluster.wait_until(target.proxy.held.is_set, "the commit to be held")
    target.proxy.marker = None
    frozen = await cluster.wait_until(lambda: cluster.holder(DATABASE, "orders"), "a holder")
    await cluster.freeze(frozen)
    await put("second", next(tag for tag in cluster.living() if tag != frozen))
    await shows(cluster, target, ours, ("second",))
    target.proxy.release()
    cluster.thaw(frozen)
    assert await cluster.died(frozen) == -signal.SIGKILL
    await cluster.restart(frozen)
    await put("third", frozen)
    await shows(cluster, target, ours, ("third",))
    [(count,)] = await target.rows('SELECT count(*) FROM "Orders"')
    assert count == 831


async def shows(cluster: Cluster, target: Target, query: str, row: tuple[Any, ...]) -> None:
    """Waits until that is the query's only row."""
    found: list[Any] = []

    async def there() -> bool:
        found[:] = [tuple(one if isinstance(one, int) else str(one) for one in r) for r in await target.rows(query)]
        return found == [row]

    await cluster.wait_until(there, f"{row} in the target, which has {found}", 90)
