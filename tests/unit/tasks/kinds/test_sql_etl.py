"""The body of SQL ETL: real documents, the real engine, real targets."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
import structlog
from immutables import Map
from msgspec.structs import replace
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from raftnode.documents.store.model import DeleteDocument, PutDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.record.model import Task
from raftnode.scripting.javascript import ScriptLimits
from tasks.etl import failed_documents
from tasks.etl import runner as etl_runner
from tasks.kinds.registry import TaskFailed
from tasks.kinds.sql_etl.task import KIND
from tasks.runtime.context import NotOwned, SqlLimits, TaskContext
from tasks.sinks.sql.fence import StaleEpoch
from tests.harness.holding_proxy import HoldingProxy
from tests.unit.tasks.conftest import BodyBench, SqlTarget, database, northwind, put_all, replicate, until

SCRIPT = """
loadToOrders({Company: this.Company, OrderedAt: this.OrderedAt, Freight: this.Freight, ShipTo: this.ShipTo});
for (const line of this.Lines)
    loadToOrderLines({
        Product: line.Product, Quantity: line.Quantity, Price: line.PricePerUnit, Discount: line.Discount
    });
"""
NET_SALES = 'SELECT round(CAST(sum("Quantity" * "Price" * (1 - "Discount")) AS decimal(20, 6)), 2) FROM "OrderLines"'
COUNTS = (
    'SELECT (SELECT count(*) FROM "Orders"), (SELECT count(DISTINCT "Id") FROM "Orders"), '
    '(SELECT count(*) FROM "OrderLines")'
)


one_target = pytest.mark.parametrize("target", ["sqlite"], indirect=True)
"""For what the kind of the target has no part in."""


@pytest.fixture
async def tables(target: SqlTarget) -> SqlTarget:
    await target.execute(
        'CREATE TABLE "Orders" ("Id" varchar(60) PRIMARY KEY, "Company" varchar(60), "OrderedAt" timestamp, '
        '"Freight" numeric(12, 2), "ShipTo" text)',
        'CREATE TABLE "OrderLines" ("OrderId" varchar(60), "Product" varchar(60), "Quantity" int, '
        '"Price" numeric(12, 4), "Discount" numeric(6, 4))',
    )
    return target


def task(target: SqlTarget, script: str = SCRIPT, *transforms: dict[str, Any]) -> Task:
    configuration = {
        "Name": "Orders",
        "ConnectionStringName": "target",
        "Transforms": transforms or [{"Name": "orders", "Collections": ["Orders"], "Script": script}],
        "SqlTables": [
            {"TableName": "Orders", "DocumentIdColumn": "Id"},
            {"TableName": "OrderLines", "DocumentIdColumn": "OrderId"},
        ],
    }
    definition = KIND.parse(configuration, database(target))
    return Task(
        id=7,
        name=definition.name,
        kind=definition.kind,
        key=definition.key,
        connection_string="target",
        configuration=definition.configuration,
    )


@asynccontextmanager
async def running(context: TaskContext) -> AsyncIterator["asyncio.Task[None]"]:
    body = asyncio.create_task(KIND.run(context))
    try:
        yield body
    finally:
        body.cancel()
        await asyncio.gather(body, return_exceptions=True)


async def carried(bench: BodyBench, task: Task, epoch: int, count: int, **settings: Any) -> TaskContext:
    """Run a body until it has processed so many documents."""
    context = bench.context(task, epoch, **settings)
    async with running(context) as body:
        await until(lambda: context.info.processed >= count, body)
    return context


async def test_northwind_arrives_with_the_figures_it_is_known_by(bench: BodyBench, tables: SqlTarget) -> None:
    await put_all(bench.store, northwind())
    context = await carried(bench, task(tables), 10, 830)
    assert await tables.rows(COUNTS) == [(830, 830, 2155)]
    assert [float(n) for (n,) in await tables.rows(NET_SALES)] == [1265793.04]
    assert (context.info.processed, context.info.failed, context.info.rows) == (830, 0, 830 + 2155)
    assert bench.saved[-1].processed == 830
    (row,) = await tables.rows('SELECT "OrderedAt", "ShipTo" FROM "Orders" WHERE "Id" = \'orders/10248-A\'')
    assert str(row[0]).startswith("1996-07-04")
    assert json.loads(row[1])["City"] == "Reims"


async def test_killed_in_the_middle_again_and_again_it_ends_with_each_row_once(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await put_all(bench.store, northwind("Orders"))
    for epoch in range(10, 16):
        context = bench.context(task(tables), epoch, batch_documents_max=37)
        async with running(context) as body:
            done = context.info.processed
            await until(lambda context=context, done=done: context.info.processed > done + 40, body)  # type: ignore[misc]
    await carried(bench, task(tables), 20, 830)
    assert await tables.rows(COUNTS) == [(830, 830, 2155)]
    assert [float(n) for (n,) in await tables.rows(NET_SALES)] == [1265793.04]


async def test_changes_and_deletions_follow_while_it_runs(bench: BodyBench, tables: SqlTarget) -> None:
    await put_all(bench.store, northwind("Orders")[:3])
    context = bench.context(task(tables), 10)
    async with running(context) as body:
        await until(lambda: context.info.processed == 3, body)
        changed = northwind("Orders")[1] | {"Company": "changed"}
        await put_all(bench.store, [changed])
        await until(lambda: context.info.processed == 4, body)
        await bench.store.delete("orders/10248-A")
        await until(lambda: context.info.processed == 5, body)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders" ORDER BY 1') == [
        ("orders/10249-A", "changed"),
        ("orders/10250-A", "companies/HANAR"),
    ]
    assert await tables.rows('SELECT count(*) FROM "OrderLines" WHERE "OrderId" = \'orders/10248-A\'') == [(0,)]


LEAVING = "loadToOrders({Company: this.Company})"


def order(id: str, company: str, collection: str = "Orders") -> PutDocument:
    return PutDocument(id=id, document={"Company": company}, collection=collection)


async def test_a_document_that_comes_back_in_another_collection_before_it_was_seen_to_go_loses_its_rows(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await bench.store.batch([order("o/1", "a"), order("o/2", "b")])
    await carried(bench, task(tables, LEAVING), 10, 2)
    await bench.store.batch([DeleteDocument(id="o/1"), order("o/1", "c", "Archive")])
    await carried(bench, task(tables, LEAVING), 11, 3)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/2", "b")]


async def test_a_document_that_comes_back_under_another_spelling_of_its_id_replaces_its_rows(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await bench.store.batch([order("O/1", "a")])
    context = bench.context(task(tables, LEAVING), 10)
    async with running(context) as body:
        await until(lambda: context.info.processed == 1, body)
        await bench.store.batch([DeleteDocument(id="o/1"), order("o/1", "b")])
        await until(lambda: context.info.processed == 2, body)
        assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "b")]
        await bench.store.delete("O/1")
        await until(lambda: context.info.processed == 3, body)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]


@one_target
async def test_a_holder_that_never_saw_a_document_in_the_collection_still_sees_that_it_left(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any
) -> None:
    await bench.store.batch([order("O/1", "a")])
    await carried(bench, task(tables, LEAVING), 10, 1)
    await bench.store.batch([DeleteDocument(id="O/1"), order("o/1", "c", "Archive")])
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    try:
        await replicate(bench.store, other)
        bench.store = other
        await carried(bench, task(tables, LEAVING), 11, 2)
    finally:
        await other.close()
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]


def one_table(*, off: str | None = None) -> list[dict[str, Any]]:
    """Two transforms that write one table, each for a collection of its name; one of them may be off."""
    return [
        {
            "Name": collection,
            "Collections": [collection],
            "Script": f"loadToOrders({{Company: '{collection}'}})",
            "Disabled": collection == off,
        }
        for collection in ("Orders", "Archive")
    ]


@one_target
async def test_a_document_that_goes_over_to_another_transform_of_the_table_keeps_the_rows_of_that_one(
    bench: BodyBench, tables: SqlTarget
) -> None:
    both = one_table()
    await bench.store.batch([order("o/1", "")])
    await carried(bench, task(tables, "", *both), 10, 1)
    await bench.store.batch([DeleteDocument(id="o/1"), order("o/1", "", "Archive")])
    await carried(bench, task(tables, "", *both), 11, 3)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "Archive")]


@one_target
async def test_a_document_keeps_the_rows_of_a_transform_that_is_off_and_has_had_it(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await bench.store.batch([order("o/1", "", "Archive")])
    await bench.store.batch([DeleteDocument(id="o/1"), order("o/1", "")])
    await carried(bench, task(tables, "", *one_table(off="Archive")), 10, 1)
    await carried(bench, task(tables, "", *one_table(off="Orders")), 11, 2)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "Orders")]


@one_target
async def test_a_document_loses_the_rows_of_a_transform_that_it_has_left_for_one_that_is_off(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await bench.store.batch([order("o/1", "")])
    await carried(bench, task(tables, "", *one_table(off="Archive")), 10, 1)
    await bench.store.batch([DeleteDocument(id="o/1"), order("o/1", "", "Archive")])
    await carried(bench, task(tables, "", *one_table(off="Archive")), 11, 2)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == []
    await carried(bench, task(tables, "", *one_table()), 12, 3)
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "Archive")]


@one_target
async def test_an_older_version_from_a_node_that_lags_does_not_stay_in_a_table_of_two_transforms(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any
) -> None:
    first = bench.store
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    try:
        await first.batch([order("o/1", "")])
        await replicate(first, other)
        await first.batch([DeleteDocument(id="o/1"), order("o/1", "", "Archive")])
        await carried(bench, task(tables, "", *one_table(off="Orders")), 10, 1)
        bench.store = other
        await carried(bench, task(tables, "", *one_table()), 11, 2)
        assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "Orders")]
        await replicate(first, other)
        await carried(bench, task(tables, "", *one_table()), 12, 4)
    finally:
        await other.close()
    assert await tables.rows('SELECT "Id", "Company" FROM "Orders"') == [("o/1", "Archive")]


@one_target
async def test_progress_counts_only_what_every_transform_has_seen_also_one_that_is_off(
    bench: BodyBench, tables: SqlTarget
) -> None:
    """Tombstones are forgotten by it: a transform that is off must see deletions when it is on again."""
    transforms = [{"Name": name, "Collections": ["Orders"], "Script": LEAVING} for name in ("first", "second")]
    transforms[1]["Script"] = "loadToOrderLines({Product: 'p'})"
    await bench.store.batch([order("o/1", "a")])
    await carried(bench, task(tables, "", *transforms), 10, 2)
    before = bench.saved[-1]
    await bench.store.delete("o/1")
    await carried(bench, task(tables, "", transforms[0], transforms[1] | {"Disabled": True}), 11, 3)
    assert bench.saved[-1].processed == 3
    assert bench.saved[-1].change_vector == before.change_vector
    assert bench.saved[-1].last_etags == before.last_etags
    await carried(bench, task(tables, "", *transforms), 12, 4)
    assert await tables.rows('SELECT count(*) FROM "OrderLines"') == [(0,)]


@one_target
async def test_other_collections_move_the_place_and_write_nothing(bench: BodyBench, tables: SqlTarget) -> None:
    await put_all(bench.store, northwind("Products", "Employees"))
    context = bench.context(task(tables), 10)
    async with running(context) as body:
        await put_all(bench.store, northwind("Orders")[:1])
        await until(lambda: context.info.processed == 1, body)
    assert context.info.batches == 1


@one_target
async def test_check_13_a_document_whose_script_throws_is_listed_and_the_others_have_rows(
    bench: BodyBench, tables: SqlTarget
) -> None:
    orders = northwind("Orders")[:10]
    orders[4]["Lines"] = None
    await put_all(bench.store, orders)
    context = await carried(bench, task(tables), 10, 10)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(9,)]
    (error,) = context.info.errors
    assert error.document_id == "orders/10252-A"
    assert "script 'orders', line 3: TypeError" in error.error
    assert context.info.failed == 1
    again = await carried(bench, task(tables), 11, 10)
    assert (again.info.failed, again.info.errors) == (1, [error])


@one_target
async def test_check_14_a_script_that_throws_for_150_documents_of_200_skips_none(
    bench: BodyBench, tables: SqlTarget
) -> None:
    """See the check of RavenDB ETL for the pauses."""
    orders = northwind("Orders")[:200]
    await put_all(bench.store, [o | {"Lines": None} if n < 150 else o for n, o in enumerate(orders)])
    context = bench.context(task(tables), 10)
    with pytest.raises(TaskFailed, match="150 documents failed and 50 did not, so none is skipped"):
        await KIND.run(context)
    assert await tables.rows(COUNTS) == [(0, 0, 0)]
    assert context.info.failed == 0


@pytest.mark.parametrize("target", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_check_15_what_a_target_missed_while_it_was_down_arrives(bench: BodyBench, tables: SqlTarget) -> None:
    """It goes down in the middle. A body that fails is begun again after a pause; here at once."""
    there = tables.connection.url
    assert there.port is not None
    async with HoldingProxy(there.port) as proxy:
        port = str(make_url(proxy.url).port)
        text = there.set(host="127.0.0.1", port=int(port)).render_as_string(hide_password=False)
        bench.target = SqlTarget("proxied", tables.configuration | {"ConnectionString": text})
        await put_all(bench.store, northwind("Orders")[:5])
        await carried(bench, task(bench.target), 10, 5)
        proxy.closed = True
        await bench.shared.close()
        await put_all(bench.store, northwind("Orders")[5:10])
        with pytest.raises(TaskFailed, match=port):
            await KIND.run(bench.context(task(bench.target), 11))
        proxy.closed = False
        context = await carried(bench, task(bench.target), 11, 10)
        await bench.shared.close()
    assert context.info.failed == 0
    assert (await tables.rows(COUNTS))[0][:2] == (10, 10)


@one_target
async def test_check_16_one_transform_is_reset_alone(bench: BodyBench, tables: SqlTarget) -> None:
    orders = {"Name": "Orders", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company})"}
    lines = {
        "Name": "lines",
        "Collections": ["Orders"],
        "Script": "for (const line of this.Lines) loadToOrderLines({Quantity: line.Quantity})",
    }
    both = task(tables, "", orders, lines)
    await put_all(bench.store, northwind("Orders")[:3])
    await carried(bench, both, 10, 6)
    full = (await tables.rows(COUNTS))[0]
    await tables.execute('DELETE FROM "Orders"', 'DELETE FROM "OrderLines"')
    for epoch in (12, 13):  # once, whoever runs it next
        await carried(bench, replace(both, resets=Map({"orders": 11})), epoch, 9)
    assert await tables.rows(COUNTS) == [(3, 3, 0)]
    await carried(bench, replace(both, resets=Map({"orders": 11, "lines": 14})), 15, 12)
    assert await tables.rows(COUNTS) == [full]


@one_target
async def test_a_script_loads_other_documents_of_the_source(bench: BodyBench, tables: SqlTarget) -> None:
    await put_all(bench.store, northwind("Orders", "Companies"))
    script = (
        "const company = load(this.Company), none = load('companies/none');\n"
        "loadToOrders({Company: company.Name, ShipTo: none === null ? company['@metadata']['@collection'] : 'found'})"
    )
    await carried(bench, task(tables, script), 10, 830)
    assert await tables.rows(
        """SELECT "Company", "ShipTo" FROM "Orders" WHERE "Id" = 'orders/10248-A'"""
    ) == [("Vins et alcools Chevalier", "Companies")]  # fmt: skip
    assert await tables.rows(COUNTS) == [(830, 830, 0)]


async def test_a_document_that_the_target_refuses_is_listed_with_the_reason(
    bench: BodyBench, tables: SqlTarget
) -> None:
    orders = northwind("Orders")[:10]
    orders[4]["Freight"] = "heavy"
    await put_all(bench.store, orders)
    context = await carried(bench, task(tables), 10, 10)
    (error,) = context.info.errors
    assert (error.document_id, error.error) == ("orders/10252-A", 'Orders.Freight: "heavy" is not a number')
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(9,)]


@one_target
async def test_a_document_on_which_the_script_does_not_end_is_found_and_listed(
    bench: BodyBench, tables: SqlTarget
) -> None:
    orders = northwind("Orders")[:8]
    orders[5]["Company"] = "poison"
    await put_all(bench.store, orders)
    looping = task(tables, "while (this.Company == 'poison'); loadToOrders({Company: this.Company})")
    context = bench.context(looping, 10, script=ScriptLimits(time_ms_max=300))
    async with running(context) as body:
        await until(lambda: context.info.processed == 8, body)
    assert [e.document_id for e in context.info.errors] == ["orders/10253-A"]
    assert "did not end within" in context.info.errors[0].error
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(7,)]


@one_target
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("loadToOrders({Company: thsi.Company})", "thsi is not defined"),
        ("loadToOrders({Colour: 1})", "has no column 'Colour'"),
    ],
)
async def test_a_bad_script_skips_no_document_and_a_mended_one_carries_all(
    bench: BodyBench, tables: SqlTarget, script: str, reason: str
) -> None:
    await put_all(bench.store, northwind("Orders")[:20])
    with pytest.raises(Exception, match=reason):
        await KIND.run(bench.context(task(tables, script), 10))
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(0,)]
    context = await carried(bench, task(tables), 11, 20)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(20,)]
    assert context.info.failed == 0


async def test_a_missing_table_skips_no_document_and_is_named(bench: BodyBench, target: SqlTarget) -> None:
    await put_all(bench.store, northwind("Orders")[:5])
    with pytest.raises(TaskFailed, match="has no table 'Orders'"):
        await KIND.run(bench.context(task(target), 10))
    await target.execute(
        'CREATE TABLE "Orders" ("Id" varchar(60), "Company" varchar(60))', 'CREATE TABLE "OrderLines" ("OrderId" int)'
    )
    await carried(bench, task(target, "loadToOrders({Company: this.Company})"), 11, 5)
    assert await target.rows('SELECT count(*) FROM "Orders"') == [(5,)]


async def test_a_body_that_wakes_after_a_newer_run_is_refused_by_the_target(
    bench: BodyBench, tables: SqlTarget
) -> None:
    await put_all(bench.store, northwind("Orders")[:5])
    late = bench.context(task(tables), 10)
    async with running(late) as body:
        await until(lambda: late.info.processed == 5, body)
        await carried(bench, task(tables), 11, 5)
        await put_all(bench.store, northwind("Orders")[5:8])
        with pytest.raises(StaleEpoch):
            await body
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(5,)]


async def test_a_body_without_its_lease_ends_before_its_next_effect(bench: BodyBench, tables: SqlTarget) -> None:
    context = bench.context(task(tables), 10)
    async with running(context) as body:
        await put_all(bench.store, northwind("Orders")[:2])
        await until(lambda: context.info.processed == 2, body)
        bench.owned = False
        await put_all(bench.store, northwind("Orders")[2:4])
        with pytest.raises(NotOwned):
            await body
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(2,)]


@one_target
async def test_each_transform_has_a_place_of_its_own(bench: BodyBench, tables: SqlTarget) -> None:
    orders = {"Name": "orders", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company})"}
    lines = {
        "Name": "lines",
        "Collections": ["Orders"],
        "Script": "for (const l of this.Lines) loadToOrderLines({Quantity: l.Quantity})",
    }
    await put_all(bench.store, northwind("Orders")[:10])
    await carried(bench, task(tables, "", orders), 10, 10)
    await carried(bench, task(tables, "", orders, lines), 11, 20)
    (counts,) = await tables.rows(COUNTS)
    assert counts[0] == 10
    assert counts[2] == sum(len(o["Lines"]) for o in northwind("Orders")[:10])


@one_target
async def test_scenario_32_another_node_s_copy_is_continued_by_what_the_progress_counts(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any
) -> None:
    await put_all(bench.store, northwind("Orders")[:10])
    await carried(bench, task(tables), 10, 10)
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    try:
        await replicate(bench.store, other)
        await put_all(other, northwind("Orders")[10:12])
        bench.store = other
        context = await carried(bench, task(tables), 11, 12)
        assert context.info.rows == sum(1 + len(o["Lines"]) for o in northwind("Orders")[10:12])
    finally:
        await other.close()
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(12,)]


@one_target
async def test_what_was_only_looked_at_is_stored_when_the_documents_are_at_rest(
    bench: BodyBench, tables: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl_runner, "IDLE_S", 0.02)
    await put_all(bench.store, northwind("Orders")[:3])
    context = bench.context(task(tables), 10)
    async with running(context) as body:
        await until(lambda: context.info.processed == 3, body)
        await put_all(bench.store, northwind("Products"))
        here = bench.store.database_id
        await until(lambda: bench.saved[-1].last_etags[here] == bench.store.last_etag, body)
        assert bench.saved[-1].processed == 3
    ((stored,),) = await tables.rows("SELECT progress FROM raftnode_tasks")
    assert json.loads(stored)["orders"]["LastEtags"][here] == bench.store.last_etag


@one_target
async def test_several_documents_on_which_the_script_does_not_end_are_all_found(
    bench: BodyBench, tables: SqlTarget
) -> None:
    orders = northwind("Orders")[:8]
    for n in (1, 3, 5, 6):
        orders[n]["Company"] = "poison"
    await put_all(bench.store, orders)
    looping = task(tables, "while (this.Company == 'poison'); loadToOrders({Company: this.Company})")
    context = bench.context(looping, 10, script=ScriptLimits(time_ms_max=200))
    async with running(context) as body:
        await until(lambda: context.info.processed == 8, body)
    assert {e.document_id for e in context.info.errors} == {orders[n]["@metadata"]["@id"] for n in (1, 3, 5, 6)}
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(4,)]


GOOD = {"Name": "good", "Collections": ["Good"], "Script": "loadToOrderLines({Product: 'p'})"}


@one_target
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("loadToOrders({Freight: 'text'})", "transform 'bad': 1 documents failed and 0 did not"),
        ("loadToOrders({Freight: thsi.Freight})", "thsi is not defined"),
        ("while (true);", "did not end within"),
        ("JSON.stringify = () => '?'; String.prototype.split = null; loadToOrders({", "script 'bad'"),
    ],
)
async def test_a_transform_that_fails_as_a_whole_holds_up_no_other(
    bench: BodyBench, tables: SqlTarget, script: str, reason: str
) -> None:
    bad = {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({})"}
    both = task(tables, "", bad, GOOD)
    # Such a script may also be of an earlier version: it has passed the door all the same.
    both = replace(
        both, configuration=both.configuration.replace(b"loadToOrders({})", json.dumps(script)[1:-1].encode())
    )
    await bench.store.batch([order("b/1", "", "Bad"), order("g/1", "", "Good")])
    settings: dict[str, Any] = {"backoff_min_ms": 20, "script": ScriptLimits(time_ms_max=200)}
    for epoch in (10, 11):
        context = bench.context(both, epoch, **settings)
        async with running(context) as body:
            await bench.store.batch([order(f"g/{epoch}", "", "Good")])
            await until(lambda context=context, n=epoch - 8: context.info.processed == n, body)  # type: ignore[misc]
            await until(lambda context=context: context.info.error is not None, body)  # type: ignore[misc]
            assert reason in (context.info.error or "")
            assert context.info.failed == 0
    count = await tables.rows('SELECT count(*) FROM "OrderLines"')
    assert count == [(3,)]


MISSING: dict[str, tuple[list[str], str, list[str]]] = {
    "table": (
        ['DROP TABLE "Orders"'],
        "transform 'bad': the target has no table 'Orders'; create it in the target",
        ['CREATE TABLE "Orders" ("Id" varchar(60), "Company" varchar(60))'],
    ),
    "id column": (
        ['DROP TABLE "Orders"', 'CREATE TABLE "Orders" ("Company" varchar(60))'],
        "transform 'bad': table 'Orders' has no column 'Id'",
        ['ALTER TABLE "Orders" ADD COLUMN "Id" varchar(60)'],
    ),
}


@pytest.mark.parametrize(
    ("what", "there"),
    [("table", "nothing"), ("table", "a document"), ("table", "a deletion"), ("id column", "a deletion")],
)
async def test_a_missing_table_holds_up_the_transforms_that_write_it_until_it_is_there(
    bench: BodyBench, tables: SqlTarget, what: str, there: str
) -> None:
    """From the start, and midway."""
    bad = {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({Company: this.Company})"}
    both = task(tables, "", bad, GOOD)
    drop, reason, create = MISSING[what]
    await bench.store.batch([order("b/1", "", "Bad"), order("g/1", "", "Good")])
    context = bench.context(both, 10, backoff_min_ms=20, backoff_max_ms=40)
    async with running(context) as body:
        await until(lambda: context.info.processed == 2, body)
        await tables.execute(*drop)
        if there != "nothing":
            await bench.store.batch([order("b/2", "", "Bad") if there == "a document" else DeleteDocument(id="b/1")])
            await until(lambda: context.info.error is not None, body)
            assert reason in (context.info.error or "")
        await bench.store.batch([order("g/2", "", "Good")])
        await until(lambda: context.info.processed == 3, body)
    again = bench.context(both, 11, backoff_min_ms=20, backoff_max_ms=40)
    async with running(again) as body:
        await bench.store.batch([order("g/3", "", "Good")])
        await until(lambda: again.info.processed == 4, body)
        await until(lambda: reason in (again.info.error or ""), body)
        assert reason in bench.saved[-1].error
        await tables.execute(*create)
        await until(lambda: again.info.error is None, body)
        await until(lambda: again.info.processed == 4 + (there != "nothing"), body)
        assert bench.saved[-1].error == ""
    assert again.info.failed == 0
    assert await tables.rows('SELECT "Id" FROM "Orders"') == [("b/2",)] * (there == "a document")


@pytest.mark.parametrize("target", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
@pytest.mark.parametrize(
    ("damage", "reason", "repair"),
    [
        ('ALTER TABLE "Orders" OWNER TO {other}', "denied for table Orders", 'GRANT ALL ON "Orders" TO {me}'),
        ('ALTER TABLE "Orders" SET SCHEMA hidden', "denied for schema hidden", "GRANT USAGE ON SCHEMA hidden TO {me}"),
        (
            'ALTER TABLE "Orders" RENAME TO old; CREATE VIEW "Orders" AS SELECT DISTINCT * FROM old; '
            'ALTER VIEW "Orders" OWNER TO {me}',
            "cannot insert into view",
            'DROP VIEW "Orders"; ALTER TABLE old RENAME TO "Orders"',
        ),
    ],
)  # fmt: skip
async def test_a_table_that_may_not_be_written_holds_up_the_transforms_that_write_it(
    bench: BodyBench, tables: SqlTarget, damage: str, reason: str, repair: str
) -> None:
    me = f"me_{uuid.uuid4().hex[:8]}"
    admin = SqlTarget(tables.name, dict(tables.configuration))
    (other,) = (await admin.rows("SELECT current_user"))[0]
    await admin.execute(
        f"CREATE ROLE {me} LOGIN", f"GRANT ALL ON SCHEMA public TO {me}", "CREATE SCHEMA hidden",
        f'ALTER TABLE "OrderLines" OWNER TO {me}', f'ALTER TABLE "Orders" OWNER TO {me}',
    )  # fmt: skip
    url = tables.connection.url.set(username=me).render_as_string(hide_password=False)
    tables.configuration["ConnectionString"] = url.replace("+asyncpg", "")
    script = "loadTo('hidden.Orders', {})" if "hidden" in damage else "loadToOrders({})"
    both = task(tables, "", {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({})"}, GOOD)
    configuration = both.configuration
    if "hidden" in damage:
        configuration = configuration.replace(b"loadToOrders({})", script.encode())
        configuration = configuration.replace(b'"TableName":"Orders"', b'"TableName":"hidden.Orders"')
    both = replace(both, configuration=configuration)
    try:
        for statement in damage.format(me=me, other=other).split("; "):
            await admin.execute(statement)
        await bench.store.batch([order("b/1", "", "Bad"), order("g/1", "", "Good")])
        context = bench.context(both, 10, backoff_min_ms=20, backoff_max_ms=40)
        async with running(context) as body:
            await until(lambda: reason in (context.info.error or ""), body)
            assert (context.info.error or "").startswith("transform 'bad': the target refuses to write table ")
            await bench.store.batch([order("g/2", "", "Good")])
            await until(lambda: context.info.processed == 2, body)
            for statement in repair.format(me=me, other=other).split("; "):
                await admin.execute(statement)
            if "hidden" in damage:
                await admin.execute(f'GRANT ALL ON hidden."Orders" TO {me}')
            await until(lambda: context.info.processed == 3 and context.info.error is None, body)
        assert context.info.failed == 0
    finally:
        await bench.shared.close()
        await admin.execute(f"DROP OWNED BY {me} CASCADE", f"DROP ROLE {me}")


@pytest.mark.parametrize("target", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_a_locked_table_holds_up_the_transforms_that_write_it(bench: BodyBench, tables: SqlTarget) -> None:
    bad = {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({})"}
    await bench.store.batch([order("b/1", "", "Bad"), order("g/1", "", "Good")])
    limits: dict[str, Any] = {"sql": SqlLimits(statement_timeout_ms=200), "backoff_min_ms": 20, "backoff_max_ms": 40}
    context = bench.context(task(tables, "", bad, GOOD), 10, **limits)
    engine = create_async_engine(tables.connection.url)
    async with running(context) as body:
        async with engine.begin() as connection:
            await connection.execute(sa.text('LOCK TABLE "Orders"'))
            await until(lambda: "statement timeout" in (context.info.error or ""), body)
            await until(lambda: context.info.processed == 1, body)
        await until(lambda: context.info.processed == 2 and context.info.error is None, body)
    await engine.dispose()


@pytest.mark.parametrize("target", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_a_target_that_has_not_every_character_refuses_only_the_documents_that_need_one(
    bench: BodyBench, target: SqlTarget
) -> None:
    """By their ids, too: the list of what was skipped stands in the target."""
    latin = f"latin_{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(target.connection.url.set(drivername="postgresql").render_as_string())
    await connection.execute(f"CREATE DATABASE {latin} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        url = target.connection.url.set(drivername="postgresql", database=latin)
        there = SqlTarget(latin, target.configuration | {"ConnectionString": url.render_as_string()})
        bench.target = there
        await there.execute('CREATE TABLE "Orders" ("Id" text, "Company" text)')
        orders = {"Name": "заказы", "Collections": ["Orders"], "Script": LEAVING}
        definition = replace(task(there, "", orders), name="задача")
        await bench.store.batch([order("o/1", "é"), order("ы/2😀", "a"), order("o/3", "ы"), order("o/4", "b")])
        for epoch in (10, 11):
            context = await carried(bench, definition, epoch, 4)
            assert [error.document_id for error in context.info.errors] == ["ы/2😀", "o/3"]
        assert await there.rows('SELECT * FROM "Orders" ORDER BY 1') == [("o/1", "é"), ("o/4", "b")]
    finally:
        await bench.shared.close()
        await connection.execute(f"DROP DATABASE {latin} WITH (FORCE)")
        await connection.close()


@one_target
async def test_a_transform_that_failed_goes_on_by_itself_beside_the_others(bench: BodyBench, tables: SqlTarget) -> None:
    bad = {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({Freight: this.Company})"}
    await bench.store.batch([order("b/1", "text", "Bad"), order("g/1", "", "Good")])
    context = bench.context(task(tables, "", bad, GOOD), 10, backoff_min_ms=20, backoff_max_ms=40)
    async with running(context) as body:
        await until(lambda: context.info.processed == 1 and context.info.error is not None, body)
        await bench.store.batch([order("b/2", "1", "Bad")])
        await until(lambda: context.info.processed == 3 and context.info.error is None, body)
    assert [error.document_id for error in context.info.errors] == ["b/1"]
    assert await tables.rows('SELECT "Id" FROM "Orders"') == [("b/2",)]


@one_target
async def test_a_task_of_which_no_transform_can_go_on_fails_with_every_reason(
    bench: BodyBench, tables: SqlTarget
) -> None:
    bad = {"Name": "bad", "Collections": ["Bad"], "Script": "loadToOrders({Freight: 'text'})"}
    worse = bad | {"Name": "worse", "Script": "loadToOrderLines({Quantity: 'words'})"}
    await bench.store.batch([order("b/1", "", "Bad")])
    with pytest.raises(TaskFailed, match=r"transform 'bad': .*; transform 'worse': "):
        await KIND.run(bench.context(task(tables, "", bad, worse), 10))


async def test_the_list_of_failed_documents_lasts_until_they_are_carried_or_gone(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any
) -> None:
    script = "loadToOrders({Freight: this.Company})"
    with structlog.testing.capture_logs() as logs:
        await bench.store.batch([order(f"o/{n}", "text" if n < 3 else "1") for n in range(5)])
        await carried(bench, task(tables, script), 10, 5)
    lines = [(line["document"], line["reason"]) for line in logs if line["event"] == "A document was skipped."]
    assert lines == [(f"o/{n}", 'Orders.Freight: "text" is not a number') for n in range(3)]
    told = bench.saved[-1]
    assert (told.failed, [(f.document_id, f.transform) for f in told.failures]) == (
        3, [(f"o/{n}", "orders") for n in range(3)]
    )  # fmt: skip
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    try:
        await replicate(bench.store, other)
        bench.store = other
        moved = bench.context(task(tables, script), 11)
        async with running(moved) as body:
            await until(lambda: [e.document_id for e in moved.info.errors] == ["o/0", "o/1", "o/2"], body)
            await other.batch([order("O/0", "7"), DeleteDocument(id="o/1"), order("o/2", "words")])
            await until(lambda: moved.info.processed == 8, body)
    finally:
        await other.close()
    assert [(e.document_id, e.error) for e in moved.info.errors] == [("o/2", 'Orders.Freight: "words" is not a number')]
    assert (moved.info.failed, bench.saved[-1].failed) == (1, 1)


@pytest.mark.parametrize("target", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
async def test_failed_documents_are_tried_again_when_that_is_asked_for(bench: BodyBench, tables: SqlTarget) -> None:
    await tables.execute(
        'CREATE TABLE parents ("Id" varchar(60) PRIMARY KEY)', "INSERT INTO parents VALUES ('d')", 'DROP TABLE "Orders"'
    )
    await tables.execute(
        'CREATE TABLE "Orders" ("Id" varchar(60) PRIMARY KEY, "Company" varchar(60) REFERENCES parents ("Id"), '
        '"Freight" int CHECK ("Freight" > 0))'
    )
    definition = task(tables, "loadToOrders({Company: this.Company, Freight: this.Freight})")
    puts = [PutDocument(id=f"o/{n}", document={"Company": "c" if n else None, "Freight": n}, collection="Orders")
            for n in range(6)]  # fmt: skip
    good = PutDocument(id="a", document={"Company": "d", "Freight": 1}, collection="Orders")
    await bench.store.batch([good, *puts, order("o/9", "")])
    with structlog.testing.capture_logs() as logs:
        first = await carried(bench, replace(definition, retry=1), 10, 8)
    assert first.info.failed == 7
    assert not [line for line in logs if "tried again" in line["event"]], "nothing had failed yet"
    await tables.execute("INSERT INTO parents VALUES ('c')")
    again = bench.context(replace(definition, retry=100), 11)
    async with running(again) as body:
        await until(lambda: again.info.failed == 2, body)
        await until(lambda: bench.saved[-1].failed == 2, body)
    assert {e.document_id for e in again.info.errors} == {"o/0", "o/9"}
    assert await tables.rows('SELECT "Id" FROM "Orders" ORDER BY 1') == [("a",), *((f"o/{n}",) for n in range(1, 6))]
    later = await carried(bench, replace(definition, retry=100), 12, 8)
    assert (later.info.rows, later.info.failed, again.info.processed) == (0, 2, 8)


@one_target
async def test_a_retry_leaves_a_newer_version_to_its_turn(bench: BodyBench, tables: SqlTarget) -> None:
    """In a table that is only inserted into, it would come twice."""
    definition = inserted_only(task(tables, "loadToOrderLines({Quantity: this.Company})"))
    await bench.store.batch([order("o/1", "text"), order("o/2", "1"), order("o/3", "words"), order("o/4", "more")])
    await carried(bench, definition, 10, 4)
    await bench.store.batch([order("o/1", "5"), DeleteDocument(id="o/4")])
    again = await carried(bench, replace(definition, retry=100), 11, 6)
    assert [e.document_id for e in again.info.errors] == ["o/3"]
    assert await tables.rows('SELECT "OrderId", "Quantity" FROM "OrderLines" ORDER BY 1') == [("o/1", 5), ("o/2", 1)]


def inserted_only(definition: Task) -> Task:
    configuration = definition.configuration.replace(b'"InsertOnlyMode":false', b'"InsertOnlyMode":true')
    return replace(definition, configuration=configuration)


@one_target
@pytest.mark.parametrize("move", [False, True])
async def test_a_version_that_is_met_where_an_earlier_one_stood_is_inserted_once(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any, move: bool
) -> None:
    """By the node that met it, and by another; also one that fails."""
    definition = inserted_only(task(tables, "loadToOrderLines({Quantity: this.Company})"))
    await bench.store.batch([order(f"o/{n}", "1") for n in range(1, 5)])
    await bench.store.batch([order("o/2", "text"), order("o/1", "2")])
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    await replicate(bench.store, other)
    context = bench.context(definition, 10, batch_documents_max=1)
    async with running(context) as body:
        await until(lambda: context.info.processed == 2, body)
        if not move:
            await until(lambda: context.info.seen_etag == bench.store.last_etag, body)
    if move:
        bench.store = other
        context = bench.context(definition, 11, batch_documents_max=1)
        async with running(context) as body:
            await until(lambda: context.info.seen_etag == other.last_etag, body)
    lines = 'SELECT "OrderId", "Quantity" FROM "OrderLines" ORDER BY 1'
    rows = [("o/1", 2), ("o/3", 1), ("o/4", 1)]
    assert await tables.rows(lines) == rows
    assert (context.info.processed, context.info.failed) == (4, 1)
    mended = replace(definition, configuration=definition.configuration.replace(b"this.Company", b"3"), retry=100)
    again = bench.context(mended, 12)
    async with running(again) as body:
        await until(lambda: again.info.rows == 1, body)
    await other.close()
    assert await tables.rows(lines) == [rows[0], ("o/2", 3), *rows[1:]]


@one_target
async def test_more_failed_documents_than_are_listed_are_counted_once_and_tried_again(
    bench: BodyBench, tables: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_documents, "LISTED_MAX", 4)
    definition = task(tables, "loadToOrders({Freight: this.Company})")
    await bench.store.batch([order(f"o/{n}", "text" if n % 2 else "1") for n in range(20)])
    first = await carried(bench, definition, 10, 20)
    assert (first.info.failed, len(first.info.errors)) == (10, 4)
    await bench.store.batch([order("o/1", "words"), order("O/3", "3")])
    second = await carried(bench, definition, 11, 22)
    assert (second.info.failed, second.info.errors[-1].document_id) == (9, "o/1")
    mended = replace(definition, configuration=definition.configuration.replace(b"this.Company", b"1"))
    again = bench.context(replace(mended, retry=100), 12)
    async with running(again) as body:
        await until(lambda: again.info.rows == 9 and again.info.failed == 0, body)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(20,)]


@one_target
async def test_a_retry_on_a_node_that_lags_leaves_alone_what_it_has_only_in_an_older_version(
    bench: BodyBench, tables: SqlTarget, tmp_path: Any
) -> None:
    """In a table that is only inserted into, the older version would come twice; what it lacks is not gone."""
    definition = task(tables, "loadToOrderLines({Quantity: this.Company, Product: '1'}); loadToOrders({Freight: 1})")
    insert_only = definition.configuration.replace(
        b'"OrderLines","DocumentIdColumn":"OrderId","InsertOnlyMode":false',
        b'"OrderLines","DocumentIdColumn":"OrderId","InsertOnlyMode":true',
    )
    assert insert_only != definition.configuration
    definition = replace(definition, configuration=insert_only)
    first, behind = bench.store, await DocumentStore.open(tmp_path / "b.sqlite", tag="B", database="Northwind")
    try:
        await first.batch([order("o/1", "1"), order("o/3", "text"), order("o/4", "7")])
        await replicate(first, behind)
        await carried(bench, definition, 9, 3)
        await first.batch([order("o/1", "words"), order("o/2", "letters"), order("o/5", "8")])
        await carried(bench, definition, 10, 6)
        mended = replace(definition, configuration=insert_only.replace(b"this.Company", b"2"), retry=100)
        bench.store = behind
        there = bench.context(mended, 11)
        async with running(there) as body:
            await until(lambda: there.info.rows == 2, body)
            await until(lambda: there.info.failed == 2, body)
            assert [e.document_id for e in there.info.errors] == ["o/1", "o/2"]
            lines = 'SELECT "OrderId", "Quantity" FROM "OrderLines" ORDER BY 1, 2'
            assert await tables.rows(lines) == [("o/1", 1), ("o/3", 2), ("o/4", 7), ("o/5", 8)]
            await replicate(first, behind)
            await until(lambda: there.info.failed == 0, body)
            rows = [("o/1", 1), ("o/1", 2), ("o/2", 2), ("o/3", 2), ("o/4", 7), ("o/5", 8)]
            assert await tables.rows(lines) == rows
        assert json.loads((await tables.rows("SELECT progress FROM raftnode_tasks"))[0][0])["orders"]["Retried"] == 100
    finally:
        await behind.close()


@one_target
async def test_many_documents_on_which_the_script_does_not_end_are_tried_again(
    bench: BodyBench, tables: SqlTarget
) -> None:
    definition = task(tables, "while (this.Company == 'poison'); loadToOrders({Company: this.Company})")
    await bench.store.batch([order(f"o/{n}", "poison" if 0 < n < 5 else "") for n in range(6)])
    context = await carried(bench, definition, 10, 6, script=ScriptLimits(time_ms_max=500))
    assert context.info.failed == 4
    mended = replace(definition, configuration=definition.configuration.replace(b"== 'poison'", b"== 'other'"))
    again = bench.context(replace(mended, retry=100), 11)
    async with running(again) as body:
        await until(lambda: again.info.rows == 4 and again.info.failed == 0, body)
    assert await tables.rows('SELECT count(*) FROM "Orders"') == [(6,)]


@one_target
async def test_with_all_transforms_disabled_the_body_rests(
    bench: BodyBench, tables: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_all(bench.store, northwind("Orders")[:3])
    disabled = {"Name": "orders", "Collections": ["Orders"], "Script": "loadToOrders({})", "Disabled": True}
    context = bench.context(task(tables, "", disabled), 10)
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr(context, "sleep", sleep)
    async with running(context) as body:
        await until(lambda: rests == [etl_runner.DISABLED_S], body)


@one_target
async def test_a_task_whose_connection_string_is_gone_says_so(bench: BodyBench, tables: SqlTarget) -> None:
    context = bench.context(task(tables), 10)
    context.run = replace(context.run, connection=None)
    with pytest.raises(TaskFailed, match="connection string 'target' is gone; create it again"):
        await KIND.run(context)


@one_target
async def test_two_transforms_of_one_task_both_run(bench: BodyBench, tables: SqlTarget) -> None:
    await put_all(bench.store, northwind("Orders")[:3])
    both = [
        {"Name": "heads", "Collections": ["Orders"], "Script": "loadToOrders({Company: this.Company});"},
        {"Name": "lines", "Collections": ["Orders"], "Script": "loadToOrderLines({Product: 'p'});"},
    ]
    context = bench.context(task(tables, "", *both), 10)
    async with running(context) as body:
        await until(lambda: context.info.processed == 6, body)
    assert await tables.rows(COUNTS) == [(3, 3, 3)]


@one_target
async def test_rows_for_a_table_that_the_script_does_not_name_are_refused(bench: BodyBench, tables: SqlTarget) -> None:
    """They would stay behind when the document changes. Another table of the task, or one that nobody knows."""
    await put_all(bench.store, northwind("Orders")[:3])
    script = """
        const table = {'orders/10248-A': 'OrderLines', 'orders/10249-A': 'Nowhere'}[id(this)];
        if (table) loadTo(table, {Product: 'p'}); else loadToOrders({Company: this.Company});
    """
    context = await carried(bench, task(tables, script), 10, 3)
    assert await tables.rows(COUNTS) == [(1, 1, 0)]
    assert context.info.failed == 2
    assert "does not name; name it there (it names: orders)" in str(context.info)
