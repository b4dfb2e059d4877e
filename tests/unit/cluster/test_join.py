"""A node that joins: what answers may be no node at all, or refuse it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from raftnode.cluster.join import JoinRefused, join
from raftnode.foundation.http_client import HttpClient


@asynccontextmanager
async def answering(answer: str, status: int = 200) -> AsyncIterator[str]:
    """The address of a service that gives that answer to everything."""

    async def anything(request: web.Request) -> web.Response:
        return web.Response(text=answer, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def joined(url: str) -> None:
    async with HttpClient() as http:
        await join(http, url, tag="B", node_id="b" * 32, url="http://b:1", address="b:2", watcher=False)


@pytest.mark.parametrize(
    "answer",
    ["<html>", "{}", "[]", "null", '{"ClusterId":"c","WireId":"w","Nodes":[{}]}', '{"ClusterId":"c","Nodes":[]}'],
)
async def test_another_service_at_the_address_is_named_at_once(answer: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(JoinRefused, match="answers, but not as a node of a cluster does"):
            await joined(url)


async def test_a_refusal_is_passed_on_in_the_cluster_s_words() -> None:
    refusal = '{"Type": "Raven.Client.Exceptions.BadRequestException", "Message": "Node tag \'B\' is taken."}'
    for answer, said in ((refusal, "Node tag 'B' is taken."), ("no", "HTTP 400: ")):
        async with answering(answer, 400) as url:
            with pytest.raises(JoinRefused) as refused:
                await joined(url)
        assert str(refused.value).startswith(f"The cluster at {url} refuses this node: {said}")
