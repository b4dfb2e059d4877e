"""Compressed request bodies: what clients of RavenDB send by default, and what must not get through."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from raftnode.web import request_bodies
from tests.unit.foundation.test_decompression import compressed
from tests.unit.web.client import Client
from tests.unit.web.conftest import running, settings_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCS = "/databases/Shop/docs"
BULK = "/databases/Shop/bulk_insert"
BODY_BYTES_MAX = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with running(settings_in(tmp_path_factory.mktemp("shop") / "data")) as client:
        await client.database()
        yield client


def lines(count: int, prefix: str) -> bytes:
    return b"".join(json.dumps({"n": n, "@metadata": {"@id": f"{prefix}/{n}"}}).encode() + b"\n" for n in range(count))


async def there(client: Client, *ids: str) -> list[bool]:
    return [(await client.get(f"{DOCS}?id={id}")).status == 200 for id in ids]


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "zstd", "identity"])
async def test_a_compressed_body_is_taken(shop: Client, encoding: str) -> None:
    document = b'{"Company": "%s"}' % (b"x" * 100_000)
    known = encoding.lower().removeprefix("x-")
    body = document if known == "identity" else compressed(known, document)
    reply = await shop.put(f"{DOCS}?id=c/{encoding}", body, **{"Content-Encoding": encoding})
    assert reply.status == 201, reply.text
    [stored] = (await shop.get(f"{DOCS}?id=c/{encoding}")).json["Results"]
    assert stored["Company"] == "x" * 100_000
    batch = json.dumps({"Commands": [{"Type": "PUT", "Id": f"b/{encoding}", "Document": {}}]}).encode()
    body = batch if known == "identity" else compressed(known, batch)
    reply = await shop.post("/databases/Shop/bulk_docs", body, **{"Content-Encoding": encoding})
    assert reply.status == 201, reply.text


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
async def test_a_bomb_is_refused_at_the_limit(shop: Client, encoding: str) -> None:
    bomb = compressed(encoding, b'{"a": "' + b"0" * (200 << 20) + b'"}')
    assert len(bomb) < BODY_BYTES_MAX
    reply = await shop.put(f"{DOCS}?id=bomb", bomb, **{"Content-Encoding": encoding})
    assert reply.status == 413
    assert "http.body_bytes_max" in reply.message
    assert (await shop.get(f"{DOCS}?id=bomb")).status == 404


async def test_an_unknown_encoding_is_refused_with_those_that_are_known(shop: Client) -> None:
    for encoding in ("br", "gzip, zstd", "rot13"):
        reply = await shop.put(f"{DOCS}?id=x", b"{}", **{"Content-Encoding": encoding})
        assert reply.status == 415
        assert reply.headers["Accept-Encoding"] == "gzip, deflate, zstd"
        assert "gzip, deflate, zstd" in reply.message


async def test_a_body_that_is_not_what_it_says_is_refused(shop: Client) -> None:
    for encoding in ("gzip", "deflate", "zstd"):
        reply = await shop.put(f"{DOCS}?id=x", b'{"a": 1}' * 10, **{"Content-Encoding": encoding})
        assert reply.status == 400
        assert f"not valid {encoding}" in reply.message


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("said", [True, False])
async def test_an_import_of_several_frames_is_taken_as_it_arrives(shop: Client, encoding: str, said: bool) -> None:
    prefix = f"{encoding}{said}"
    body = compressed(encoding, lines(700, prefix)) + compressed(encoding, lines(1200, prefix))
    reply = await shop.post(BULK, body, **({"Content-Encoding": encoding} if said else {}))
    assert (reply.status, reply.text) == (200, "")
    assert await there(shop, f"{prefix}/0", f"{prefix}/1199") == [True, True]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_an_import_that_was_cut_off_is_no_success(shop: Client, encoding: str) -> None:
    body = compressed(encoding, lines(3, f"cut{encoding}")) + compressed(encoding, lines(3000, "more"))[:-1]
    reply = await shop.post(BULK, body, **{"Content-Encoding": encoding})
    assert reply.status == 400
    assert "was cut off" in reply.message
    assert reply.json["Written"] >= 3
    assert await there(shop, f"cut{encoding}/2") == [True]


async def test_a_bomb_of_an_import_ends_at_the_size_of_an_item(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data", documents__document_bytes_max=str(1 << 20))
    async with running(settings) as client:
        await client.database()
        bomb = compressed("zstd", lines(2, "a") + b'{"a": "' + b"0" * (300 << 20))
        reply = await client.post(BULK, bomb, **{"Content-Encoding": "zstd"})
        assert reply.status == 413
        assert "Item 3 (line 3)" in reply.message
        assert reply.json["Written"] == 2
        reply = await client.post(BULK, gzip.compress(b" " * (300 << 20)))
        assert reply.status == 413, reply.text


async def test_no_handler_reads_a_body_past_the_decompression() -> None:
    for file in Path(request_bodies.__file__).parent.rglob("*.py"):
        if file.name != "request_bodies.py":
            text = file.read_text()
            assert "request.read(" not in text, file
            assert "request.content" not in text, file
