"""The way to a node, on which requests may be held and arrive late: a proxy on loopback that a test decides over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

BODY_BYTES_MAX = 1 << 28


class SlowRoad:
    """Hands requests on to a node and says of itself that it is that node. While `held_path` is set, a request whose
    path ends so is kept and not answered; `arrive` lets what was kept arrive."""

    def __init__(self, node_url: str) -> None:
        self.node_url, self.url = node_url, ""
        self.held_path: str | None = None
        self.held: list[tuple[str, str, dict[str, str], bytes]] = []
        self._client: aiohttp.ClientSession | None = None

    async def arrive(self) -> list[tuple[int, str]]:
        """Sends the node what was kept, in its order; the answers."""
        held, self.held = self.held, []
        return [(status, body.decode()) for status, body in [await self._send(*one) for one in held]]

    async def _handle(self, request: web.Request) -> web.Response:
        one = (request.method, request.path_qs, dict(request.headers), await request.read())
        if self.held_path is not None and request.path.endswith(self.held_path):
            self.held.append(one)
            await asyncio.Event().wait()
        status, body = await self._send(*one)
        body = body.replace(self.node_url.encode(), self.url.encode())
        return web.Response(status=status, body=body, content_type="application/json")

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        assert self._client is not None
        kept = {name: value for name, value in headers.items() if name.lower().startswith(("raft", "content-type"))}
        async with self._client.request(method, self.node_url + path, headers=kept, data=body or None) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def slow_road(node_url: str) -> AsyncIterator[SlowRoad]:
    """The proxy, while the block lasts."""
    road = SlowRoad(node_url)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/{path:.*}", road._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(auto_decompress=False) as road._client:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            road.url = f"http://{host}:{port}"
            yield road
        finally:
            await runner.cleanup()
