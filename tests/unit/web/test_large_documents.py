"""Documents as large as they may be: whoever reads or writes one, the loop goes on, and so do leases and votes.

Turns are measured as in test_turns.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in
from tests.unit.web.large import turns
from tests.unit.web.test_turns import TRIES, TURN_S_MAX

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

COUNT = 100_000
LINES = ",".join(f'{{"n":[{n}],"t":"\\"{n}\\""}}' for n in range(COUNT))
DOCUMENT = f'{{"Lines":[{LINES}]}}'.encode()
"""3 MB, of which values would take ten times as long to make as to look through."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    settings = settings_in(tmp_path_factory.mktemp("shop") / "data", http__body_bytes_max=str(64 << 20))
    async with running(settings) as client:
        await client.database()
        yield client


REQUESTS = {
    "put": ("PUT", "docs?id=large/1", DOCUMENT, 201),
    "batch": ("POST", "bulk_docs", b'{"Commands":[{"Type":"PUT","Id":"b","Document":%s}]}' % DOCUMENT, 201),
    "import of one": ("POST", "bulk_insert", b'{"Id":"i","Type":"PUT","Document":%s}' % DOCUMENT, 200),
    "import of many": (
        "POST",
        "bulk_insert",
        b"\n".join(b'{"Id":"many/%d","Type":"PUT","Document":{"n":%d}}' % (n, n) for n in range(5_000)),
        200,
    ),
    "import of nothing": ("POST", "bulk_insert", b" " * (8 << 20), 200),
    "get": ("GET", "docs?id=put/1", None, 200),
    "page": ("GET", "docs?start=0&pageSize=5", None, 200),
    "metadata": ("GET", "docs?id=put/1&metadataOnly=true", None, 200),
    "includes": ("GET", "docs?id=put/1&include=Lines[].t", None, 400),
    "no command": ("PUT", "admin/etl", b'{"Name":%s}' % DOCUMENT, 413),
    "no body is read": ("POST", "admin/tasks/pin?key=1", DOCUMENT, 404),
    "what if": ("POST", "tasks/what-if", DOCUMENT, 413),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_no_document_holds_the_loop(what: str, shop: Client) -> None:
    method, path, body, status = REQUESTS[what]
    await shop.put("/databases/Shop/docs?id=put/1", DOCUMENT)
    tries = []
    for _ in range(TRIES):
        with turns() as meter:
            reply = await shop.send(method, f"/databases/Shop/{path}", body)
        assert reply.status == status, reply.text[:500]
        tries.append((meter.longest_s, meter.what))
        if meter.longest_s <= TURN_S_MAX:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the loop was held: {tries}")


async def test_a_large_document_comes_back_as_it_was_written(shop: Client) -> None:
    text = (
        b'{"n":1e400,"m":0.12345678901234567890,"o":'
        + b"9" * 400
        + b',"t":"'
        + b"\\\\" * 50_000
        + b'[{\\"","l":['
        + b"[],"
    )
    text += b"{}]}"
    assert (await shop.put("/databases/Shop/docs?id=as/1", text)).status == 201
    reply = await shop.get("/databases/Shop/docs?id=as/1")
    assert text[1:-1].decode() in reply.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a":"' + b"x" * 100_000 + b'\xff"}', "is not valid JSON"),
        (b'{"a":"' + b"x" * 100_000 + b'","b":[1,]}', "is not valid JSON"),
        (b'{"a":"' + b"x" * 100_000 + b'","b":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 100 levels"),
        (b'["' + b"x" * 100_000 + b'"]', "must be a JSON object"),
        (b'{"@metadata":["' + b"x" * 100_000 + b'"]}', "must be a JSON object"),
        (b'{"@metadata":{"@collection":["' + b"x" * 100_000 + b'"]}}', "must be a non-empty text"),
        (b'{"@metadata":{"@collection":"' + b"x" * 100_000 + b'"}}', "the limit is 256"),
    ],
    ids=["encoding", "syntax", "depth", "array", "metadata", "collection", "long collection"],
)
async def test_a_large_document_is_refused_for_what_small_ones_are(shop: Client, text: bytes, why: str) -> None:
    reply = await shop.put("/databases/Shop/docs?id=bad/1", text)
    assert reply.status == 400
    assert why in reply.message
    good, bad = b'{"Id":"good/1","Type":"PUT","Document":{}}', b'{"Id":"bad/1","Type":"PUT","Document":' + text + b"}"
    reply = await shop.post("/databases/Shop/bulk_insert", good + b"\n" + bad)
    assert reply.status == 400
    assert (reply.json["Line"], reply.json["Written"]) == (2, 1), reply.text[:300]
