"""The HTTP client against a real server on loopback."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from raftnode.foundation import http_client as module
from raftnode.foundation.http_client import HttpClient, HttpFailed, HttpUnreachable


async def _echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response({"method": request.method, "body": body.decode(), "header": request.headers.get("X-A")})


async def _raven(request: web.Request) -> web.Response:
    error = {"Url": "/", "Type": "Raven.Client.Exceptions.ConcurrencyException", "Message": "no", "Error": "no ..."}
    return web.json_response(error, status=409)


async def _plain(request: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>", reason="Bad gateway")


async def _text(request: web.Request) -> web.Response:
    return web.Response(text="plainly")


async def _broken(request: web.Request) -> web.Response:
    return web.Response(status=int(request.query["status"]), body=b'{"Type": "\xff"}', content_type="application/json")


async def _never(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    for path, handler in {
        "/echo": _echo, "/raven": _raven, "/plain": _plain, "/text": _text, "/broken": _broken, "/never": _never,
        "/cut": _cut,
    }.items():  # fmt: skip
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def test_json_bodies_and_headers_are_sent(url: str) -> None:
    async with HttpClient() as http:
        answer = await http.request("POST", f"{url}/echo", json={"a": 1}, headers={"X-A": "b"})
        assert answer.status == 200
        assert answer.json() == {"method": "POST", "body": '{"a":1}', "header": "b"}
        assert (await http.request("PUT", f"{url}/echo", body=b"raw")).json()["body"] == "raw"
        assert answer.headers["Content-Type"].startswith("application/json")


async def test_an_error_in_ravendbs_shape_is_told_as_it_is(url: str) -> None:
    async with HttpClient() as http:
        with pytest.raises(HttpFailed) as caught:
            await http.request("GET", f"{url}/raven")
        assert (caught.value.status, caught.value.type, caught.value.message) == (409, "ConcurrencyException", "no")
        with pytest.raises(HttpFailed, match="HTTP 502: Bad gateway"):
            await http.request("GET", f"{url}/plain")


async def test_no_answer_is_told_apart_from_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpClient() as http:
        with pytest.raises(HttpUnreachable, match=r"did not answer within 0\.05 s"):
            await http.request("GET", f"{url}/never", timeout_s=0.05)
        with pytest.raises(HttpUnreachable, match="cannot be reached"):
            await http.request("GET", f"{url}/cut")
        with pytest.raises(HttpUnreachable, match=r"^http://127\.0\.0\.1:1/ cannot be reached: Connection refused$"):
            await http.request("GET", "http://127.0.0.1:1/")
        with pytest.raises(HttpUnreachable, match="cannot be reached"):
            await http.request("GET", "no address at all")
        with pytest.raises(HttpUnreachable, match="not JSON"):
            (await http.request("GET", f"{url}/text")).json()
        with pytest.raises(HttpUnreachable, match="not JSON"):
            (await http.request("GET", f"{url}/broken?status=200")).json()
        with pytest.raises(HttpFailed, match="HTTP 502"):
            await http.request("GET", f"{url}/broken?status=502")
        monkeypatch.setattr(module, "RESPONSE_BYTES_MAX", 3)
        with pytest.raises(HttpUnreachable, match="more than 3 bytes"):
            await http.request("GET", f"{url}/text")
