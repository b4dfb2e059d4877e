"""Requests that are broken below the level of routes: each is refused by name, and is no defect of the node."""

import asyncio
import logging
import socket
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from tests.unit.web.client import Client

UNREADABLE = {
    "no UTF-8": b'"\xff"',
    "an endless number": b"1" * 5_000,
    "half a character": b'"\\ud800"',
}
INDEX = b'{"Indexes": [{"Name": "i", "Maps": ["from x in docs select x"], "Configuration": %b}]}'
CONNECTION = b'{"Type": "Raven", "Name": "r", "Database": "d", "TopologyDiscoveryUrls": ["http://a"], "Extra": %b}'


async def raw(client: Client, request: bytes, *, leave: bool = False) -> bytes:
    """The answer to these bytes; with `leave`, nobody waits for one."""
    address = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        await writer.drain()
        return b"" if leave else await reader.read()
    finally:
        writer.close()


def put(path: str, body: bytes, headers: str = "") -> bytes:
    line = f"PUT {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}"
    return line.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize(("shown", "body"), [("indexes", INDEX), ("admin/connection-strings", CONNECTION)])
async def test_what_nobody_could_read_back_is_refused_where_it_is_kept(
    client: Client, shown: str, body: bytes, what: str
) -> None:
    await client.database()
    answer = await raw(client, put(f"/databases/Shop/{shown}", body % UNREADABLE[what]))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    for reading in ("/admin/databases?name=Shop", f"/databases/Shop/{shown}"):
        assert (await client.get(reading)).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /status?\xc1=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /databases/Shop/docs?id=x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        put("/databases/Shop/docs?id=x", b"this is no gzip", "Content-Encoding: gzip\r\n"),
        b"GET /status HTTP/1.1\r\nHost: a\r\nExpect: 100-con\xc1inue\r\nConnection: close\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_worth_a_line_and_no_traceback(
    client: Client, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await client.database()
    with caplog.at_level(logging.WARNING), capture_logs() as lines:
        answer = await raw(client, request_)
    assert answer[8:13] == b" 400 ", answer
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_a_client_that_goes_away_is_no_defect(client: Client) -> None:
    await client.database()
    request = put("/databases/Shop/docs?id=x", b'{"a": 1}')
    with capture_logs() as lines:
        await raw(client, request[:-3], leave=True)
        # Whoever asks next is answered after the first one's end was noticed.
        address = urlsplit(client.url)
        with socket.create_connection((address.hostname or "", address.port or 0)):
            assert (await client.get("/status")).status == 200
    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_a_client_that_goes_away_from_a_download_is_no_defect(client: Client) -> None:
    """Found by fuzzing: what was still to be written met a connection that was closing."""
    await client.database()
    address = urlsplit(client.url)
    with capture_logs() as lines:
        for _ in range(20):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"GET /admin/cluster/snapshot HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.read(1)
            writer.transport.abort()
        assert (await client.get("/status")).status == 200
    assert [line for line in lines if line["log_level"] == "error"] == []
