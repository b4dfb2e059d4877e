"""RavenDB ETL: one body after the other from a store of its own into a database of a real node. The checks have the
numbers that docs/tasks/raven_etl.md maps."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from immutables import Map

from raftnode.documents.store.fencing import FencedRequest, FenceToken
from raftnode.documents.store.model import DeleteDocument, PutDocument
from raftnode.documents.store.store import DocumentStore
from raftnode.foundation.http_client import HttpClient
from raftnode.record.model import ConnectionString, Database, Progress, Task, Topology
from raftnode.scripting.javascript import ScriptLimits
from tasks.kinds.raven_etl.task import KIND
from tasks.kinds.registry import ConfigurationError, RunSuperseded, TaskFailed
from tasks.runtime.context import Run, RunFigures, RunSettings, TaskContext
from tasks.runtime.run_journal import FreezeDetector, RunJournal
from tasks.runtime.shared_resources import SharedResources
from tests.unit.tasks.conftest import northwind, put_all, replicate, until
from tests.unit.web.client import Client
from tests.unit.web.conftest import running as node_running
from tests.unit.web.conftest import settings_in

pytestmark = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count(1)
AS_IS = {"Name": "all", "ApplyToAllDocuments": True, "Script": ""}
PEOPLE = {"Name": "people", "Collections": ["Employees"], "Script": "loadToPeople({First: this.FirstName})"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A node of the destination's cluster."""
    settings = settings_in(tmp_path_factory.mktemp("destination"), http__body_bytes_max=str(1 << 27))
    async with node_running(settings) as client:
        yield client


class Etl:
    """A source and a database of the destination; runs bodies as the supervisor would."""

    def __init__(self, store: DocumentStore, node: Client, http: HttpClient, directory: Path) -> None:
        self.store, self.node, self.http = store, node, http
        self.database = f"Copy{next(_numbers)}"
        self.copy: DocumentStore
        self.string: dict[str, Any] = {"Name": "copy", "Type": "Raven", "Database": self.database}
        self.string["TopologyDiscoveryUrls"] = [node.url]
        self.journal, self.shared = RunJournal(directory, "A"), SharedResources()
        self.saved: list[Progress] = []
        self.id = next(_numbers)

    def task(self, *transforms: dict[str, Any], resets: dict[str, int] | None = None, retry: int = 0) -> Task:
        given = {"Name": "copy", "ConnectionStringName": "copy", "Transforms": transforms or [AS_IS]}
        made = KIND.parse(given, self.record())
        return Task(
            id=self.id,
            name=made.name,
            kind=made.kind,
            key=made.key,
            configuration=made.configuration,
            connection_string="copy",
            resets=Map(resets or {}),
            retry=retry,
        )

    def record(self) -> Database:
        string = ConnectionString(name="copy", type="Raven", configuration=json.dumps(self.string).encode())
        topology = Topology(members=("A",))
        return Database(name="Northwind", etag=1, topology=topology, connection_strings=Map({"copy": string}))

    def context(
        self, task: Task, epoch: int, *, generation: int = 1, store: DocumentStore | None = None, **settings: Any
    ) -> TaskContext:
        run = Run(
            database="Northwind",
            task=task,
            claim_key="northwind/RavenEtl/copy",
            epoch=epoch,
            generation=generation,
            cluster_id="cluster",
            node="A",
            connection=json.dumps(self.string).encode(),
        )
        return TaskContext(
            run,
            store or self.store,
            settings=RunSettings(**{"script": ScriptLimits(time_ms_max=5_000)} | settings),
            info=RunFigures(),
            owned=lambda: True,
            save=self._save,
            journal=self.journal,
            freezes=FreezeDetector(),
            http=self.http,
            shared=self.shared,
        )

    def _save(self, run: Run, progress: Progress) -> "asyncio.Future[bool]":
        self.saved.append(progress)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    @asynccontextmanager
    async def running(self, context: TaskContext) -> AsyncIterator["asyncio.Task[None]"]:
        body = asyncio.create_task(KIND.run(context))
        try:
            yield body
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)

    async def carried(self, task: Task, epoch: int, **given: Any) -> TaskContext:
        """Run a body until it has seen every document."""
        context = self.context(task, epoch, **given)
        store = given.get("store") or self.store
        async with self.running(context) as body:
            await until(lambda: context.info.seen_etag == store.last_etag and context.info.fenced is not None, body)
        return context

    async def there(self, prefix: str = "") -> dict[str, Any]:
        """The documents at the destination by id, without their system metadata, but for the collection."""
        found = await self.copy.page(prefix=prefix, size=10_000)
        return {d.id: json.loads(d.body) | {"@collection": d.collection} for d in found}


@pytest_asyncio.fixture(loop_scope="module")
async def etl(node: Client, tmp_path: Path) -> AsyncIterator[Etl]:
    store = await DocumentStore.open(tmp_path / "documents.sqlite", tag="A", database="Northwind")
    async with HttpClient() as http:
        made = Etl(store, node, http, tmp_path)
        await node.put(f"/admin/databases?name={made.database}", {})
        made.copy = await node.node.assembly.databases.store(made.database)
        yield made
        await made.shared.close()
        made.journal.close()
        await store.close()


async def employee(etl: Etl, name: str, number: int = 1) -> None:
    await etl.store.put(f"employees/{number}-A", {"FirstName": name}, collection="Employees")


async def test_an_empty_script_sends_everything_as_it_is(etl: Etl) -> None:
    await put_all(etl.store, northwind())
    await etl.store.put("x", {"Big": 1, "@metadata": {"Mine": [1], "@expires": "2030"}}, collection="Odd")
    await etl.store.put("empty", {}, collection="Odd")
    await etl.store.put("raw", b'{"Long":12345678901234567890.123456789}', collection="Odd")
    context = await etl.carried(etl.task(), 10)
    assert context.info.fenced
    sent = {d.id: (d.body, d.collection) for d in await etl.store.page(prefix="", size=10_000)}
    copied = {d.id: (d.body, d.collection) for d in await etl.copy.page(prefix="", size=10_000)}
    assert {id: (json.loads(body), c) for id, (body, c) in sent.items()} == {
        id: (json.loads(body), c) for id, (body, c) in copied.items()
    }
    assert copied["raw"][0] == sent["raw"][0], "every digit"
    await etl.store.delete("x")
    await etl.store.put("empty", {"n": 2}, collection="Odd")
    await etl.carried(etl.task(), 11)
    assert (await etl.there("x")) == {}
    assert (await etl.there("empty"))["empty"]["n"] == 2


@pytest.mark.parametrize(
    ("transforms", "field", "says"),
    [
        ([], "Transforms", "has 0 entries"),
        ([AS_IS | {"Name": "a"}, AS_IS | {"Name": "A"}], "Transforms.Name", "'A' is listed twice"),
        ([AS_IS | {"Collections": ["X"]}], "Transforms.Collections", "choose one"),
        ([AS_IS | {"ApplyToAllDocuments": False}], "Transforms.Collections", "name collections or set Apply"),
        ([AS_IS | {"DocumentIdPostfix": "a/b"}], "Transforms.DocumentIdPostfix", "no slash"),
        ([AS_IS, PEOPLE | {"Script": "loadToEmployees(this)"}], "Transforms", "'all' and 'people' load the same"),
        ([PEOPLE, PEOPLE | {"Name": "b", "DocumentIdPostfix": "b"}], "Transforms", "one below what the other deletes"),
        (
            [PEOPLE | {"Script": "loadTo('A/b', {})"}, PEOPLE | {"Name": "b", "Script": "loadToA({})"}],
            "Transforms", "one below what the other deletes",
        ),
        (
            [PEOPLE | {"Script": "loadToOrderLines({})"}, PEOPLE | {"Name": "b", "Script": "loadToorderlines({})"}],
            "Transforms", "'people' and 'b' load the same",
        ),
        ([PEOPLE | {"Script": "loadToPeople({"}], "Transforms.Script", "script 'people'"),
        ([PEOPLE | {"Script": "replicateToPeople({})"}], "Transforms.Script", "an old name; call loadTo"),
        (
            [PEOPLE | {"Script": "function deleteDocumentsOfOrdersBehavior(id) {} loadToPeople({})"}],
            "Transforms.Script", "'Orders' is none of its Collections",
        ),
        (
            [PEOPLE | {"Script": "function deleteDocumentsBehavior(i) {} function deleteDocumentsBehavior(i) {} "
                                 "loadToPeople({})"}],
            "Transforms.Script", "declares deleteDocumentsBehavior twice",
        ),
    ],
)  # fmt: skip
async def test_check_01_what_is_wrong_with_transforms_is_named(
    etl: Etl, transforms: list[dict[str, Any]], field: str, says: str
) -> None:
    given = {"Name": "x", "ConnectionStringName": "copy", "Transforms": transforms}
    with pytest.raises(ConfigurationError, match=says) as refused:
        KIND.parse(given, etl.record())
    assert refused.value.field == field


async def test_other_fields_are_checked_too(etl: Etl) -> None:
    good = {"ConnectionStringName": "COPY", "Transforms": [AS_IS]}
    made = KIND.parse(good, etl.record())
    assert (made.name, made.connection_string) == ("Raven ETL to copy", "copy")
    with pytest.raises(ConfigurationError, match="there is no RavenDB connection string 'other'; known: copy"):
        KIND.parse(good | {"ConnectionStringName": "other"}, etl.record())
    for seconds in (-1, 0):
        with pytest.raises(ConfigurationError, match=f"LoadRequestTimeoutInSec: is {seconds}"):
            KIND.parse(good | {"LoadRequestTimeoutInSec": seconds}, etl.record())
    with pytest.raises(ConfigurationError, match="Name: is a whole number; give text"):
        KIND.parse(good | {"Name": 5}, etl.record())
    apart = [PEOPLE | {"DocumentIdPostfix": "-a"}, PEOPLE | {"Name": "b", "DocumentIdPostfix": "-ab"}]
    assert KIND.parse(good | {"Transforms": apart}, etl.record())


async def test_a_field_that_is_null_counts_as_left_out(etl: Etl) -> None:
    as_is = {"Name": "all", "Collections": None, "ApplyToAllDocuments": True, "Script": None, "Disabled": None}
    given = {"Name": None, "ConnectionStringName": "copy", "Transforms": [as_is]}
    without_nulls = given | {"Name": "", "Transforms": [AS_IS]}
    assert KIND.parse(given, etl.record()) == KIND.parse(without_nulls, etl.record())


async def test_check_02_a_script_that_loads_nothing_is_refused_and_an_empty_one_is_not(etl: Etl) -> None:
    with pytest.raises(ConfigurationError, match="loads nothing; call loadTo"):
        etl.task(PEOPLE | {"Script": "var x = 1;"})
    etl.task(PEOPLE | {"Script": "  \n"})


async def test_check_03_a_target_is_a_literal(etl: Etl) -> None:
    with pytest.raises(ConfigurationError, match="loads nothing"):
        etl.task(PEOPLE | {"Script": "const t = 'People'; loadTo(t, {})"})
    await employee(etl, "Ann")
    await etl.carried(etl.task(PEOPLE | {"Script": "loadTo('People', {n: 1}); loadTo('my-queue', {})"}), 10)
    assert sorted(d["@collection"] for d in (await etl.there()).values()) == ["People", "my-queue"]
    await employee(etl, "Bob", 2)
    context = etl.context(etl.task(PEOPLE | {"Script": "const t = 'X'; loadTo(t, {}); loadToPeople({})"}), 11)
    async with etl.running(context) as body:
        with pytest.raises(TaskFailed, match="loads to 'x', which its text does not name"):
            await body


async def test_check_06_another_collection_gets_an_id_below_the_document_s(etl: Etl) -> None:
    await employee(etl, "Ann")
    await etl.carried(etl.task(PEOPLE), 10)
    [(id, found)] = (await etl.there()).items()
    assert id.startswith("employees/1-A/people/")
    assert id.endswith("-A")
    assert found == {"First": "Ann", "@collection": "People"}


async def test_check_07_an_update_leaves_one_document_with_another_id(etl: Etl) -> None:
    ids = []
    for epoch, name in enumerate(["Ann", "Bea", "Cem"], 10):
        await employee(etl, name)
        await etl.carried(etl.task(PEOPLE), epoch)
        [(id, found)] = (await etl.there()).items()
        assert found["First"] == name
        ids.append(id)
    assert len(set(ids)) == 3


async def test_check_08_what_was_loaded_stays_if_the_script_says_so(etl: Etl) -> None:
    keep = "function deleteDocumentsOfEmployeesBehavior(id, deleted) { return deleted; }\n"
    task = etl.task(PEOPLE | {"Script": f"{keep}{PEOPLE['Script']}"})
    for epoch, name in enumerate(["Ann", "Bea"], 10):
        await employee(etl, name)
        await etl.carried(task, epoch)
    assert sorted(d["First"] for d in (await etl.there()).values()) == ["Ann", "Bea"]
    await etl.store.delete("employees/1-A")
    await etl.carried(task, 12)
    assert await etl.there() == {}


async def test_check_09_a_document_that_is_loaded_no_more_is_deleted(etl: Etl) -> None:
    script = "if (this.FirstName !== 'hidden') loadToEmployees({Name: this.FirstName})"
    task = etl.task(PEOPLE | {"Script": script})
    await employee(etl, "Ann")
    await etl.carried(task, 10)
    assert await etl.there() == {"employees/1-A": {"Name": "Ann", "@collection": "Employees"}}
    await employee(etl, "hidden")
    await etl.carried(task, 11)
    assert await etl.there() == {}


async def test_check_10_the_function_of_the_collection_decides_before_the_general_one(etl: Etl) -> None:
    script = (
        "function deleteDocumentsBehavior(id, collection, deleted) { return collection === 'Orders'; }\n"
        "function deleteDocumentsOfEmployeesBehavior(id) { return id === 'employees/1-A'; }\n"
        "loadToPeople({First: this.FirstName})"
    )
    task = etl.task({"Name": "t", "Collections": ["Employees", "Orders", "Others"], "Script": script})
    for id, collection in (
        ("employees/1-A", "Employees"),
        ("employees/2-A", "Employees"),
        ("o/1", "Orders"),
        ("x/1", "Others"),
    ):
        await etl.store.put(id, {"FirstName": id}, collection=collection)
    await etl.carried(task, 10)
    for id in ("employees/1-A", "employees/2-A", "o/1", "x/1"):
        await etl.store.delete(id)
    await etl.carried(task, 11)
    assert sorted(d["First"] for d in (await etl.there()).values()) == ["employees/2-A", "x/1"]


async def test_check_12_a_postfix_is_put_behind_the_id(etl: Etl) -> None:
    await employee(etl, "Ann")
    await etl.carried(etl.task(AS_IS | {"DocumentIdPostfix": "-x"}), 10)
    await etl.carried(etl.task(PEOPLE | {"DocumentIdPostfix": "y"}), 11)
    same, other = sorted(await etl.there())
    assert same == "employees/1-A-x"
    assert other.startswith("employees/1-A/people/y/")
    await etl.store.delete("employees/1-A")
    await etl.carried(etl.task(AS_IS | {"DocumentIdPostfix": "-x"}), 12)
    await etl.carried(etl.task(PEOPLE | {"DocumentIdPostfix": "y"}), 13)
    assert await etl.there() == {}


async def test_check_13_a_script_that_throws_for_one_document_leaves_that_one_out(etl: Etl) -> None:
    for number in range(10):
        await employee(etl, "bad" if number == 3 else "good", number)
    script = "if (this.FirstName === 'bad') throw new Error('no'); loadToPeople({First: this.FirstName})"
    context = await etl.carried(etl.task(PEOPLE | {"Script": script}), 10)
    assert len(await etl.there()) == 9
    assert [(e.document_id, e.error) for e in context.info.errors] == [
        ("employees/3-A", "script 'people', line 1: Error: no")
    ]
    assert context.info.error is None


async def test_check_14_a_script_that_throws_for_most_holds_the_task_up(etl: Etl) -> None:
    """RavenDB pauses for 5, 10, 20 … s; here as `tasks.backoff_min_ms` and `tasks.backoff_max_ms` say."""
    for number in range(200):
        await employee(etl, "bad" if number < 150 else "good", number)
    script = "if (this.FirstName === 'bad') throw new Error('no'); loadToPeople({})"
    context = etl.context(etl.task(PEOPLE | {"Script": script}), 10)
    async with etl.running(context) as body:
        with pytest.raises(TaskFailed, match="150 documents failed and 50 did not, so none is skipped"):
            await body
    assert context.info.failed == 0


async def test_check_15_what_a_destination_missed_while_it_was_down_arrives(etl: Etl) -> None:
    await employee(etl, "Ann")
    url = etl.string["TopologyDiscoveryUrls"]
    etl.string["TopologyDiscoveryUrls"] = ["http://127.0.0.1:1"]
    context = etl.context(etl.task(), 10)
    with pytest.raises(TaskFailed, match="no node of the destination takes documents of database 'Copy"):
        await KIND.run(context)
    etl.string["TopologyDiscoveryUrls"] = ["http://127.0.0.1:1", *url]
    await etl.carried(etl.task(), 10)
    assert list(await etl.there()) == ["employees/1-A"]


async def test_check_16_one_transform_is_reset_alone(etl: Etl) -> None:
    await employee(etl, "Ann")
    await etl.store.put("orders/1-A", {"n": 1}, collection="Orders")
    orders = {"Name": "Orders", "Collections": ["Orders"], "Script": ""}
    await etl.carried(etl.task(PEOPLE, orders), 10)
    before = {d.id: d.change_vector for d in await etl.copy.page(prefix="")}
    context = await etl.carried(etl.task(PEOPLE, orders, resets={"orders": 11}), 12)
    after = {d.id: d.change_vector for d in await etl.copy.page(prefix="")}
    assert before.keys() == after.keys()
    assert {id for id in before if before[id] != after[id]} == {"orders/1-A"}
    assert context.info.processed == 3
    again = await etl.carried(etl.task(PEOPLE, orders, resets={"orders": 11}), 13)
    assert again.info.processed == 3, "once"
    whole = await etl.carried(etl.task(PEOPLE, orders), 14, generation=14)
    assert whole.info.processed == 2
    assert {d.id for d in await etl.copy.page(prefix="")}.isdisjoint(id for id in before if "people" in id)


async def test_loads_of_several_targets_are_replaced_together(etl: Etl) -> None:
    script = """
    loadToOrders({Total: this.Lines.length});
    for (const line of this.Lines)
      loadToOrderLines({Product: line.Product, Id: id(this), From: getMetadata(this)['@id']});
    """
    task = etl.task({"Name": "t", "Collections": ["Orders"], "Script": script})
    await etl.store.put("orders/1-A", {"Lines": [{"Product": "a"}, {"Product": "b"}]}, collection="Orders")
    await etl.carried(task, 10)
    found = await etl.there()
    lines = {id: d for id, d in found.items() if d["@collection"] == "OrderLines"}
    assert found["orders/1-A"]["Total"] == 2
    assert sorted(d["Product"] for d in lines.values()) == ["a", "b"]
    assert all(id.startswith("orders/1-A/OrderLines/") for id in lines)
    assert {(d["Id"], d["From"]) for d in lines.values()} == {("orders/1-A", "orders/1-A")}
    await etl.store.put("orders/1-A", {"Lines": [{"Product": "c"}]}, collection="Orders")
    await etl.carried(task, 11)
    assert sorted(d.get("Product", "") for d in (await etl.there()).values()) == ["", "c"]


async def test_a_script_loads_other_documents_of_the_source(etl: Etl) -> None:
    await etl.store.put("c/1", {"Name": "Acme", "Boss": "e/1"}, collection="Companies")
    await etl.store.put("e/1", {"Name": "Ann", "Long": 1}, collection="Employees")
    await etl.store.put("orders/1-A", {"Company": "c/1", "Other": "c/2"}, collection="Orders")
    await etl.store.put("orders/2-A", {"Company": "c/2"}, collection="Orders")
    script = """
    const company = load(this.Company), other = load(this.Other), none = load(null);
    const boss = company === null ? null : load(company.Boss);
    loadToOrders({Company: company?.Name ?? null, Of: company?.['@metadata']['@collection'] ?? null,
      Boss: boss?.Name ?? null, Other: other, None: none});
    """
    await etl.carried(etl.task({"Name": "t", "Collections": ["Orders"], "Script": script}), 10)
    found = await etl.there()
    assert found["orders/1-A"] == {
        "Company": "Acme", "Of": "Companies", "Boss": "Ann", "Other": None, "None": None, "@collection": "Orders"
    }  # fmt: skip
    assert found["orders/2-A"]["Company"] is None


async def test_a_script_that_never_has_enough_documents_fails_alone(etl: Etl) -> None:
    for number in range(30):
        await etl.store.put(f"n/{number}", {"Next": f"n/{number + 1}"}, collection="Numbers")
    await etl.store.put("orders/1-A", {}, collection="Orders")
    await etl.store.put("orders/2-A", {"Fine": True}, collection="Orders")
    script = "for (let n = this.Fine ? null : load('n/0'); n; n = load(n.Next)); loadToOrders({})"
    context = await etl.carried(etl.task({"Name": "t", "Collections": ["Orders"], "Script": script}), 10)
    assert [e.document_id for e in context.info.errors] == ["orders/1-A"]
    assert "asks for 'n/16' after 16 documents that led to it" in context.info.errors[0].error


async def test_check_11_metadata_of_users_goes_along_and_attachments_are_none(etl: Etl) -> None:
    """RavenDB deletes at the destination an attachment that the source has deleted. Here documents have none."""
    await etl.store.put("e/1", {"N": 1, "@metadata": {"Mine": 1, "@expires": "2030"}}, collection="Employees")
    script = """
    const one = loadToEmployees(this);
    one.addAttachment(loadAttachment('photo')); one.addCounter(loadCounter('likes'));
    loadToPeople({Photos: getAttachments().length, Has: hasAttachment('photo')}).addTimeSeries(loadTimeSeries('x'));
    """
    await etl.carried(etl.task(PEOPLE | {"Script": script}), 10)
    found = await etl.there()
    assert found.pop("e/1") == {"N": 1, "@metadata": {"Mine": 1, "@expires": "2030"}, "@collection": "Employees"}
    assert list(found.values()) == [{"Photos": 0, "Has": False, "@collection": "People"}]


async def test_a_document_that_moves_to_the_collection_of_another_transform_stays(etl: Etl) -> None:
    one = {"Name": "orders", "Collections": ["Orders"], "Script": ""}
    other = {"Name": "archive", "Collections": ["Archive"], "Script": "loadToArchive({Old: this.n})"}
    await etl.store.put("o/1", {"n": 1}, collection="Orders")
    await etl.carried(etl.task(one, other), 10)
    await etl.store.delete("o/1")
    await etl.store.put("o/1", {"n": 2}, collection="Archive")
    await etl.carried(etl.task(one, other), 11)
    assert await etl.there() == {"o/1": {"Old": 2, "@collection": "Archive"}}
    await etl.store.delete("o/1")
    await etl.store.put("o/1", {"n": 3}, collection="Nowhere")
    await etl.carried(etl.task(one, other), 12)
    assert await etl.there() == {}


async def test_a_document_that_the_destination_refuses_is_found_and_passed_over(etl: Etl) -> None:
    for number in range(20):
        await employee(etl, "x", number)
    await etl.store.put("e/" + "y" * 505, {}, collection="Employees")
    task = etl.task(PEOPLE)
    context = await etl.carried(task, 10)
    assert len(await etl.there()) == 20
    [failed] = context.info.errors
    assert failed.document_id.startswith("e/yyy")
    assert "the limit is 512" in failed.error
    await etl.store.delete(failed.document_id)
    assert (await etl.carried(task, 11)).info.failed == 0


async def test_a_newer_run_ends_an_older_one_before_it_writes(etl: Etl) -> None:
    await employee(etl, "Ann")
    older = etl.context(etl.task(), 10)
    async with etl.running(older) as body:
        await until(lambda: older.info.processed == 1, body)
        await etl.carried(etl.task(), 20)
        await employee(etl, "Bea")
        with pytest.raises(RunSuperseded, match="A newer run of ETL task"):
            await body
    assert (await etl.there())["employees/1-A"]["FirstName"] == "Ann"
    await etl.carried(etl.task(), 20)
    assert (await etl.there())["employees/1-A"]["FirstName"] == "Bea"


async def test_what_is_carried_is_not_carried_again_by_the_next_run_on_another_copy(etl: Etl, tmp_path: Path) -> None:
    await put_all(etl.store, northwind("Orders"))
    first = await etl.carried(etl.task(), 10)
    other = await DocumentStore.open(tmp_path / "other.sqlite", tag="B", database="Northwind")
    await replicate(etl.store, other)
    before = etl.copy.last_etag
    second = await etl.carried(etl.task(), 11, store=other)
    assert first.info.processed == second.info.processed == 830
    assert etl.copy.last_etag == before
    await other.close()


async def test_large_batches_go_in_several_requests(etl: Etl) -> None:
    for number in range(3):
        await etl.store.put(f"e/{number}", {"N": 3000}, collection="Employees")
    script = "for (let n = 0; n < this.N; n++) loadToPeople({n})"
    await etl.carried(etl.task(PEOPLE | {"Script": script}), 10)
    assert (await etl.copy.stats()).collections == {"People": 9000}


async def test_the_very_database_is_no_destination_of_its_own(etl: Etl) -> None:
    string = {
        "Type": "Raven",
        "Name": "self",
        "Database": etl.database.upper(),
        "TopologyDiscoveryUrls": [etl.node.url],
    }
    refused = await etl.node.put(f"/databases/{etl.database}/admin/connection-strings", string)
    assert refused.status == 400
    assert "this very database" in refused.message
    context = etl.context(etl.task(), 10)
    record = etl.node.node.replica.record
    own = {"database": etl.database, "cluster_id": record.cluster_id}
    context.run = context.run.__class__(**{f: getattr(context.run, f) for f in context.run.__struct_fields__} | own)
    with pytest.raises(TaskFailed, match="this very database: name another one in the connection string"):
        await KIND.run(context)


async def test_what_another_etl_deleted_by_a_prefix_here_deletes_nothing_at_the_destination(etl: Etl) -> None:
    """Each document that was below the prefix has a tombstone of its own. One of the prefix would be this task's there,
    and delete what stands below it on other nodes."""

    def fenced(sequence: int) -> FencedRequest:
        return FencedRequest(token=FenceToken("first/shop", 1, 5, sequence))

    await etl.store.put("e/1/people/x", {"n": 1}, collection="People")
    await etl.store.batch([DeleteDocument(id="e/1/people/", prefixed=True)], fenced(1))
    await etl.store.batch([PutDocument(id="e/1/people/y", document={"n": 2}, collection="People")], fenced(2))
    await etl.carried(etl.task(), 10)
    written = await etl.copy.after(0, limit=100, bytes_max=1 << 20)
    assert [(d.id, d.deleted) for d in written.items] == [("e/1/people/x", True), ("e/1/people/y", False)]


async def test_a_destination_that_was_created_again_gets_everything(etl: Etl) -> None:
    """The run noticed nothing of it, as it had nothing to send. What it sends then must not pass for all that it has
    sent before."""
    for number in range(3):
        await employee(etl, "Ann", number)
    context = etl.context(etl.task(), 10)
    async with etl.running(context) as body, asyncio.timeout(20):
        await until(lambda: context.info.seen_etag == etl.store.last_etag, body)
        await etl.node.delete("/admin/databases", {"DatabaseNames": [etl.database], "HardDelete": True})
        assert (await etl.node.put(f"/admin/databases?name={etl.database}", {})).status == 201
        etl.copy = await etl.node.node.assembly.databases.store(etl.database)
        await employee(etl, "Bea", 3)
        with pytest.raises(TaskFailed, match="was made for the copy"):
            await body
    assert await etl.there() == {}
    await etl.carried(etl.task(), 10)
    assert len(await etl.there()) == 4


async def test_a_server_without_the_fence_takes_documents_at_least_once(etl: Etl) -> None:
    """One that speaks RavenDB's protocol alone: what a proxy that does not know the fence lets through."""
    async with unfenced(etl.node) as url:
        etl.string["TopologyDiscoveryUrls"] = [url]
        await employee(etl, "Ann")
        context = await etl.carried(etl.task(), 10)
        assert context.info.fenced is False
        assert (await etl.there())["employees/1-A"]["FirstName"] == "Ann"
        assert etl.saved[-1].processed == 1
        await etl.store.delete("employees/1-A")
        await employee(etl, "Bea", 2)
        await etl.carried(etl.task(), 11)
        assert list(await etl.there()) == ["employees/2-A"]


@asynccontextmanager
async def unfenced(node: Client) -> AsyncIterator[str]:
    """The address of a server that hands everything on to the node but the fence, and refuses what RavenDB would."""

    async def handle(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        body = await request.read()
        if request.path.endswith("/etl/fence"):
            error = {
                "Type": "Raven.Client.Exceptions.Routing.RouteNotFoundException",
                "Message": "none",
                "Url": "",
                "Error": "",
            }
            return aiohttp.web.json_response(error, status=404)
        assert b'"Fence"' not in body
        answer = await node.send(request.method, request.path_qs, body or None)
        return aiohttp.web.Response(status=answer.status, text=answer.text, content_type="application/json")

    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(handle))
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
