"""Every failure in one shape, with a remedy."""

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from tests.unit.web.client import Client


async def test_an_unknown_route_is_a_404_in_the_shape_of_every_error(client: Client) -> None:
    reply = await client.get("/nowhere")
    assert reply.status == 404
    assert "GET /nowhere" in reply.message
    assert reply.json["Url"] == "/nowhere"


async def test_a_wrong_method_names_the_right_ones(client: Client) -> None:
    reply = await client.delete("/status")
    assert reply.status == 405
    assert "GET" in reply.message
    assert reply.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_every_reply_names_the_protocol_version_errors_included(client: Client) -> None:
    assert (await client.get("/health/live")).headers["Raven-Server-Version"] == "7.2.0"
    assert (await client.get("/nowhere")).headers["Raven-Server-Version"] == "7.2.0"


async def test_broken_json_is_refused_with_its_place(client: Client) -> None:
    reply = await client.post("/admin/databases/enable", b'{"DatabaseNames": [')
    assert reply.status == 400
    assert "not valid JSON" in reply.message


async def test_a_field_of_the_wrong_type_is_refused_by_name(client: Client) -> None:
    reply = await client.post("/admin/databases/enable", {"DatabaseNames": "Shop"})
    assert reply.status == 400
    assert "$.DatabaseNames" in reply.message


async def test_a_body_nested_a_million_deep_is_refused(client: Client) -> None:
    reply = await client.post("/admin/databases/enable", b"[" * 1_000_000)
    assert reply.status == 400


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/databases?start=x", "start"),
        ("/databases?start=-1", "start"),
        ("/databases?pageSize=99999999", "pageSize"),
        ("/databases?namesOnly=perhaps", "namesOnly"),
        ("/admin/databases", "name"),
        ("/rachis/waitfor?index=%EF%BC%91", "index"),
        ("/rachis/waitfor", "index"),
        ("/rachis/waitfor?index=1&timeout=soon", "timeout"),
        ("/admin/databases?name=a&name=b", "name"),
    ],
)
async def test_a_bad_query_value_is_refused_by_name(client: Client, path: str, name: str) -> None:
    reply = await client.get(path)
    assert reply.status == 400
    assert f"'{name}'" in reply.message


async def test_a_body_over_its_limit_is_refused(client: Client) -> None:
    await client.database()
    for method, path, names_the_setting in (
        ("PUT", "/databases/Shop/docs?id=large", True),
        ("PUT", "/admin/databases?name=Large", False),
        ("PUT", "/admin/cluster/node", False),
        ("DELETE", "/admin/databases", False),
    ):
        reply = await client.send(method, path, b" " * (1024 * 1024 + 1))
        assert reply.status == 413, path
        assert reply.message.startswith("The body has more than 1048576 bytes"), path
        assert ("http.body_bytes_max" in reply.message) == names_the_setting, path


async def test_a_request_id_that_is_too_long_is_refused(client: Client) -> None:
    reply = await client.put(f"/admin/databases?name=Shop&raft-request-id={'x' * 200}", {})
    assert reply.status == 400
    assert "raft-request-id" in reply.message


async def test_reset_is_understood_as_ravendb_sends_it(client: Client) -> None:
    await client.database()
    address = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    line = "RESET /databases/Shop/admin/etl?configurationName=orders&transformationName=t HTTP/1.1"
    writer.write(f"{line}\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert answer.startswith("HTTP/1.1 404")
    assert "has no ETL 'orders'" in json.loads(answer.split("\r\n\r\n", 1)[1])["Message"]
