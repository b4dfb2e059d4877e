"""Answers of nodes of another version: what they say more is passed on, and what they leave out is named."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from msgspec import Raw

from raftnode.cli.main import cli
from raftnode.cli.session import SERVER_HEADER
from raftnode.web.requests import encoded
from raftnode.web.routes.runs import ClusterRuns
from raftnode.web.services import Services
from tests.unit.cli.test_words import status_with, task_with


class AnsweringNode:
    """A node that answers every request with `answer`."""

    def __init__(self) -> None:
        self.answer: Any = json.loads(encoded(status_with(task_with())))
        self.url = ""

    async def reply(self, _: web.Request) -> web.Response:
        return web.json_response(self.answer, headers={SERVER_HEADER: "7.2.0"})

    async def asked(self, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--url", self.url])


@pytest.fixture
async def stranger() -> AsyncIterator[AnsweringNode]:
    stranger = AnsweringNode()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", stranger.reply)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stranger.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stranger
    await runner.cleanup()


async def test_what_a_newer_node_says_more_is_passed_on_as_json_and_disturbs_no_table(stranger: AnsweringNode) -> None:
    stranger.answer["Moon"] = "full"
    stranger.answer["Databases"]["shop"]["Tasks"][0]["Weather"] = ["fine"]
    assert json.loads((await stranger.asked("status", "--json")).output) == stranger.answer
    shown = await stranger.asked("status")
    assert (shown.exit_code, "orders" in shown.output) == (0, True), shown.output


async def test_what_an_older_node_leaves_out_is_named(stranger: AnsweringNode) -> None:
    del stranger.answer["Databases"]["shop"]["Tasks"][0]["TaskName"]
    told = await stranger.asked("tasks")
    assert told.exit_code == 1
    assert "missing required field `TaskName` - at `$.Databases[...].Tasks[0]`" in told.output
    assert "Use the command line of the node's own version." in told.output


def test_a_run_that_cannot_be_read_is_not_known_and_says_why() -> None:
    here = cast(Services, SimpleNamespace(tag="A"))
    runs = ClusterRuns(here, by_node={"B": {"shop/SqlEtl/orders": Raw(b'{"Database": 7}')}})
    run, unknown = runs.of("shop/SqlEtl/orders", "B")
    assert run is None
    assert unknown is not None
    assert unknown.startswith("Node B holds the task, and its details are not known here: Expected `str`, got `int`")
