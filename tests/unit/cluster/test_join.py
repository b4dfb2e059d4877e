"""A node that joins: what answers may be no node at all."""

import pytest
from aiohttp import web

from raftnode.cluster.join import JoinRefused, join
from raftnode.foundation.http_client import HttpClient


@pytest.mark.parametrize(
    "answer",
    ["<html>", "{}", "[]", "null", '{"ClusterId":"c","WireId":"w","Nodes":[{}]}', '{"ClusterId":"c","Nodes":[]}'],
)
async def test_another_service_at_the_address_is_named_at_once(answer: str) -> None:
    async def anything(request: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with HttpClient() as http:
            with pytest.raises(JoinRefused, match="answers, but not as a node of a cluster does"):
                await join(http, url, tag="B", node_id="b" * 32, url="http://b:1", address="b:2", watcher=False)
    finally:
        await runner.cleanup()
