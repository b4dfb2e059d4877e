"""Bad input at every route: a clear error that names what is wrong, and nothing changed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from raftnode.web import app
from tests.unit.web.client import Client, HttpReply
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.routes import BAD, ROUTES, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_BYTES_MAX = 1 << 20
WITH_BODY = [route for route in ROUTES if route.body is not None]
JSON_BODIES = [route for route in WITH_BODY if isinstance(route.body, dict)]
OF_DATABASE = [route for route in ROUTES if "{database}" in route.path]
WRONG_TYPES: tuple[Any, ...] = (7, -1.5, True, "x", [7], {"x": [7]}, [[]])


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


@dataclass(frozen=True)
class Shop:
    """A node with a database, a document and a disabled task, and the state that bad input must not change."""

    client: Client
    task: int

    async def state(self) -> tuple[object, ...]:
        record = self.client.node.replica.record
        stats = (await self.client.get("/databases/Shop/stats")).json
        return record.nodes, record.databases, record.observer.suspended, record.claims, stats["LastDocEtag"]

    async def refused(self, reply: HttpReply, *says: str) -> None:
        """The answer is an error in RavenDB's shape that says one of these, and no defect."""
        assert 400 <= reply.status < 500 or reply.status in (501, 503), f"{reply.status}: {reply.text[:500]}"
        if reply.text == "":
            assert reply.status in (400, 404, 503), "only HEAD, and a document that is not there, get no text"
            return
        message = reply.message.lower()
        assert any(say.lower() in message or say.lower() in message.replace(" ", "") for say in says), (
            f"{says}: {reply.text[:500]}"
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    async with running(settings_in(directory / "data")) as client:
        await client.database()
        target = {
            "Type": "Sql", "Name": "target", "FactoryName": "Microsoft.Data.Sqlite",
            "ConnectionString": f"Data Source={directory}/target.sqlite",
        }  # fmt: skip
        assert (await client.put("/databases/Shop/admin/connection-strings", target)).status == 200
        assert (await client.put("/databases/Shop/docs?id=orders/1", {"Company": "x"})).status == 201
        etl = next(r for r in ROUTES if r.id == ("PUT", "/databases/{database}/admin/etl")).body
        # Its rows have an id column of their own, so that the table can be another task's as well.
        tables = [table | {"DocumentIdColumn": "OtherId"} for table in etl["SqlTables"]]
        own = {"Name": "orders", "MentorNode": None, "SqlTables": tables}
        reply = await client.put("/databases/Shop/admin/etl", etl | own)
        assert reply.status == 201, reply.text
        yield Shop(client, reply.json["TaskId"])


@pytest_asyncio.fixture(loop_scope="module")
async def unchanged(shop: Shop) -> AsyncIterator[None]:
    before = await shop.state()
    yield
    assert await shop.state() == before


async def test_every_route_is_attacked_here() -> None:
    known = {(route.method, route.path) for area in app.AREAS for route in area.routes()}
    assert {route.id for route in ROUTES} == known
    assert len(ROUTES) == len(known)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", [r for r in ROUTES if r.query], ids=named)
async def test_a_query_value_that_does_not_fit_is_refused_by_name(shop: Shop, route: Route) -> None:
    for name, kind in route.query.items():
        for bad in BAD[kind]:
            reply = await shop.client.send(route.method, route.url(shop.task, **{name: bad}), route.body)
            await shop.refused(reply, f"'{name}'", f"'{bad}"[:20], f"{bad!r}"[:20], f" {bad}"[:20], "UTF-8")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", [r for r in ROUTES if r.query], ids=named)
async def test_a_query_value_given_twice_is_refused_by_name(shop: Shop, route: Route) -> None:
    for name in route.query:
        if (route.method, name) in {("GET", "id"), ("HEAD", "id")}:
            continue
        url = route.url(shop.task, **{name: "one"}) + f"&{name}=two"
        await shop.refused(await shop.client.send(route.method, url, route.body), f"'{name}'")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", OF_DATABASE, ids=named)
async def test_a_database_that_does_not_exist_is_named(shop: Shop, route: Route) -> None:
    for name in BAD["database"]:
        reply = await shop.client.send(route.method, route.url(shop.task, database=name), route.body)
        await shop.refused(reply, "does not exist", "There is no", "UTF-8")


@pytest.mark.usefixtures("unchanged")
async def test_a_task_that_does_not_exist_is_named(shop: Shop) -> None:
    route = next(r for r in ROUTES if r.path.endswith("/why"))
    for given in BAD["name"]:
        reply = await shop.client.send(route.method, route.url(shop.task, given=given))
        await shop.refused(reply, "has no task", "There is no")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", JSON_BODIES, ids=named)
async def test_a_field_of_the_wrong_type_is_refused_by_name(shop: Shop, route: Route) -> None:
    for name, good in route.body.items():
        if name in route.free:
            continue
        for bad in WRONG_TYPES:
            if type(bad) is type(good) and not isinstance(bad, list):
                continue
            body = route.body | {name: bad}
            reply = await shop.client.send(route.method, route.url(shop.task), body)
            await shop.refused(reply, name, f"'{bad}'")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", JSON_BODIES, ids=named)
async def test_text_that_is_no_name_is_refused(shop: Shop, route: Route) -> None:
    for name, good in route.body.items():
        if (
            name in (*route.free, *route.texts)
            or not isinstance(good, str | list)
            or (isinstance(good, list) and not good)
        ):
            continue
        for bad in ("", "../../etc/passwd", "x" * 10_000, "a\x00b", " "):
            if (bad.strip() == "" and name in route.blank) or ("/" in bad and name in route.names):
                continue
            value = bad if isinstance(good, str) else [bad if isinstance(item, str) else item for item in good]
            if value == good or (isinstance(good, list) and not isinstance(good[0], str)):
                continue
            reply = await shop.client.send(route.method, route.url(shop.task), route.body | {name: value})
            if reply.status == 200 and route.path in ("/admin/databases/enable", "/admin/databases/disable"):
                assert [status["Success"] for status in reply.json["Status"]] == [False]
                continue
            await shop.refused(reply, name, f"'{bad[:20]}")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", WITH_BODY, ids=named)
@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"Ids": ' * 50_000,
        b'{"Name": "x", "Name"',
        b"\x00" * 100,
        b"null",
        b'"text"',
        b"[1][2]",
        b'{"Name": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"{}}",
        b'{"a": 1e999999',
    ],
    ids=["utf-8", "array", "object", "cut", "zeros", "null", "text", "two values", "deep", "brace", "number"],
)
async def test_a_body_that_is_not_the_json_that_is_asked_for_is_refused(shop: Shop, route: Route, body: bytes) -> None:
    await shop.refused(await shop.client.send(route.method, route.url(shop.task), body), "")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("route", [r for r in WITH_BODY if "replication" not in r.path], ids=named)
async def test_a_body_over_the_limit_is_refused(shop: Shop, route: Route) -> None:
    reply = await shop.client.send(route.method, route.url(shop.task), b"{" + b" " * BODY_BYTES_MAX + b"}")
    if route.path.endswith("bulk_insert"):
        assert reply.status == 400, "an import may be of any length; this one has no id"
        return
    assert reply.status == 413
    assert str(BODY_BYTES_MAX) in reply.message


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("length_is_told", [True, False])
async def test_a_hundred_megabytes_are_refused_before_they_have_all_arrived(shop: Shop, length_is_told: bool) -> None:
    address = urlsplit(shop.client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    length = "Content-Length: 104857600" if length_is_told else "Transfer-Encoding: chunked"
    writer.write(f"PUT /databases/Shop/docs?id=big HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode())
    sent = 0
    answer = asyncio.ensure_future(reader.readuntil(b"\r\n"))
    chunk = b" " * 65_536 if length_is_told else b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        while sent < 104_857_600 and not answer.done():
            writer.write(chunk)
            await writer.drain()
            sent += 65_536
    assert (await answer).startswith(b"HTTP/1.1 413")
    assert sent < 50_000_000
    writer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1",
        b"{}",
    ],
    ids=["TLS", "version", "100 kB", "JSON"],
)
async def test_what_is_no_http_gets_an_error_in_the_same_shape(shop: Shop, line: bytes) -> None:
    address = urlsplit(shop.client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(line + b"\r\n\r\n")
    head, _, text = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.split()[1] == b"400", head
    assert set(json.loads(text)) == {"Url", "Type", "Message", "Error"}


async def test_of_concurrent_creations_of_one_name_exactly_one_wins(shop: Shop) -> None:
    replies = await asyncio.gather(
        *(shop.client.put(f"/admin/databases?name={name}", {}) for name in ("Twin", "twin") * 4)
    )
    assert sorted(reply.status for reply in replies) == [201] + [409] * 7
    assert all("exists already" in reply.message for reply in replies if reply.status == 409)
    gone = await shop.client.delete("/admin/databases", {"DatabaseNames": ["Twin"], "HardDelete": True})
    assert gone.json["PendingDeletes"] == []


async def test_of_concurrent_edits_of_one_task_exactly_one_wins(shop: Shop) -> None:
    info = (await shop.client.get(f"/databases/Shop/task?key={shop.task}")).json
    etl = info["Configuration"] | {"EtlType": "Sql"}
    path = f"/databases/Shop/admin/etl?id={shop.task}"
    tag = {"If-Match": f'"{info["Etag"]}"'}
    scripts = [f"loadToOrders({{Id: id(this), n: {n}}})" for n in range(6)]
    bodies = [etl | {"Transforms": [etl["Transforms"][0] | {"Script": script}]} for script in scripts]
    replies = await asyncio.gather(*(shop.client.put(path, body, **tag) for body in bodies))
    assert sorted(reply.status for reply in replies) == [200] + [409] * 5
    winner = next(script for script, reply in zip(scripts, replies, strict=True) if reply.status == 200)
    now = (await shop.client.get(f"/databases/Shop/task?key={shop.task}")).json
    assert now["Configuration"]["Transforms"][0]["Script"] == winner


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("method", "path", "body", "say"),
    [
        ("DELETE", "/databases/Shop/admin/connection-strings?connectionString=target", None, "is used by: orders"),
        ("DELETE", "/admin/cluster/node?nodeTag=A&force=true", None, "last voter"),
        ("POST", "/admin/cluster/demote?nodeTag=A", None, "last voter"),
        ("DELETE", "/admin/databases", {"DatabaseNames": ["Shop", "nope"]}, "'nope' does not exist"),
        ("DELETE", "/admin/databases", {"DatabaseNames": ["Shop", "shop"]}, "twice"),
        ("DELETE", "/admin/databases", {"DatabaseNames": []}, "'DatabaseNames'"),
        ("POST", "/admin/databases/set-lock", {"DatabaseNames": ["Shop", "x"], "Mode": "PreventDeletesError"}, "'x'"),
        ("POST", "/admin/databases/disable", {"DatabaseNames": ["Shop", "Shop"]}, "twice"),
        ("PUT", "/admin/databases?name=shop", {}, "exists already"),
        ("PUT", "/admin/databases?name=New", {"Topology": {"Members": ["A", "A"]}}, "twice"),
        ("PUT", "/admin/databases/node?name=Shop&node=A", None, "holds database"),
        ("POST", "/admin/databases/reorder?name=Shop", {"MembersOrder": ["A", "A"]}, "MembersOrder"),
        ("PUT", "/databases/Shop/admin/etl", {"EtlType": "Sql", "ConnectionStringName": "nope"}, "known: target"),
        ("PUT", "/databases/Shop/admin/etl", {"EtlType": "SqlEtl"}, "write it without 'Etl', as one of: Raven, Sql"),
        ("PUT", "/databases/Shop/admin/etl", {"EtlType": 5}, "'EtlType' is missing or no text. Add one of: Raven, Sql"),
        ("PUT", "/databases/Shop/admin/tasks", {"TaskType": "Raven"}, "A knows: Backup, RavenEtl, Replication, SqlEtl"),
        ("PUT", "/databases/Shop/admin/tasks", {}, "this node knows: Backup, RavenEtl, Replication, SqlEtl."),
        ("POST", "/databases/Shop/admin/tasks/pin", None, "Add ?key=... or ?taskName=..."),
        (
            "PUT", "/databases/Shop/indexes", {"Indexes": [{"Name": "good", "Maps": []}, {"Name": "bad"}]},
            "'Indexes[1]'",
        ),
        (
            "PUT", "/databases/Shop/indexes", {"Indexes": [{"Name": "good", "Maps": []}, {"Name": "", "Maps": []}]},
            "Index name must not be empty",
        ),
        (
            "POST", "/databases/Shop/bulk_docs",
            {"Commands": [{"Type": "PUT", "Id": "a", "Document": {}}, {"Type": "FLY", "Id": "b"}]}, "Commands[1]",
        ),
    ],
)  # fmt: skip
async def test_what_is_in_use_twice_or_half_wrong_is_refused_as_a_whole(
    shop: Shop, method: str, path: str, body: Any, say: str
) -> None:
    await shop.refused(await shop.client.send(method, path, body), say)


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=named)
async def test_head_answers_as_get_does_without_the_body(shop: Shop, route: Route) -> None:
    if route.path == "/databases/{database}/docs":
        return  # it has a HEAD of its own
    path = route.url(shop.task)
    got, head = await shop.client.get(path), await shop.client.send("HEAD", path)
    assert (head.status, head.text) == (got.status, "")
    assert got.status in (200, 201, 404, 408), got.text
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert await after_the_head(shop, path) == b"", "bytes after a HEAD's answer would begin the next one"


async def after_the_head(shop: Shop, path: str) -> bytes:
    """What a connection carries after the answer to HEAD; clients drop it, or fail at their next request."""
    address = urlsplit(shop.client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"HEAD {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
    _, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return rest


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_options_and_a_slash_at_the_end_are_known_at_every_route(shop: Shop, route: Route) -> None:
    path, _, query = route.url(shop.task).partition("?")
    for shown in (path, path + "/"):
        reply = await shop.client.send("OPTIONS", shown)
        assert (reply.status, reply.text) == (204, "")
        assert {route.method, "OPTIONS"} <= set(reply.headers["Allow"].split(", "))
        assert ("HEAD" in reply.headers["Allow"]) == ("GET" in reply.headers["Allow"])
    if route.method == "GET":
        plain, slash = await shop.client.get(f"{path}?{query}"), await shop.client.get(f"{path}/?{query}")
        assert plain.status == slash.status, slash.text
    elif route.method != "HEAD":
        reply = await shop.client.send(route.method, f"{path}/?nodeTag=nobody", b"no JSON")
        assert "There is no" not in reply.message


async def test_options_of_a_path_that_there_is_not_is_a_404(shop: Shop) -> None:
    reply = await shop.client.send("OPTIONS", "/nothing")
    assert reply.status == 404
    assert "There is no OPTIONS /nothing" in reply.message


async def test_a_request_of_an_etl_names_the_copy_that_it_was_made_for(shop: Shop) -> None:
    fence = {"Source": "c/x", "Task": 7, "Epoch": 5, "Sequence": 1}
    copy = (await shop.client.post("/databases/Shop/etl/fence", fence)).json["DatabaseId"]
    second = fence | {"Sequence": 2}

    async def sent(**more: str) -> HttpReply:
        return await shop.client.post("/databases/Shop/bulk_docs", {"Commands": [], "Fence": second | more})

    await shop.refused(await sent(), "DatabaseId")
    other = await sent(DatabaseId="x" * 22)
    assert (other.status, other.json["DatabaseId"]) == (409, copy)
    assert (await sent(DatabaseId=copy)).status == 201
    for source in ("", "x" * 513):
        await shop.refused(await shop.client.post("/databases/Shop/etl/fence", fence | {"Source": source}), "Source")


async def test_a_backup_is_not_delayed_for_ever(shop: Shop) -> None:
    path = "/admin/backup-task/delay?database=Shop&taskId=1&duration=99999999.00:00:00"
    await shop.refused(await shop.client.post(path), "'duration' is 8639999913600 s, and may be 86400000")
