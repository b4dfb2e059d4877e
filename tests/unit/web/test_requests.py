"""What reaches a handler, and who."""

from typing import Any, cast
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

import config
from raftnode.web.app import admission
from raftnode.web.errors import ApiError
from raftnode.web.requests import Query, etag_of, timespan_s
from raftnode.web.services import SERVICES, Services


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:15", 15), ("1.02:03:04.5", 93784.5), ("2.5", 2.5), ("0:0:0.0000001", 1e-7)]
)
def test_time_spans_are_read_as_dotnet_writes_them(text: str, seconds: float) -> None:
    assert timespan_s("t", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "00:15", "1:2:3:4", "\u0661"])
def test_what_is_no_time_span_is_refused_by_name(text: str) -> None:
    with pytest.raises(ApiError, match="'t'"):
        timespan_s("t", text)


def test_query_names_have_any_case_and_may_carry_a_question_mark() -> None:
    query = Query(make_mocked_request("GET", "/x?a=1&?Raft-Request-Id=abc&Flag=TRUE&b"))
    assert query.text("raft-request-id") == "abc"
    assert query.flag("flag") is True
    assert query.has("b")
    assert query.text("b") is None
    assert query.integer("missing", 7) == 7


@pytest.mark.parametrize(("header", "etag"), [('"7"', "7"), ('W/"7"', "7"), ("7", "7"), (None, None), ('""', "")])
def test_etags_lose_their_quotes(header: str | None, etag: str | None) -> None:
    assert etag_of(header) == etag


async def _asked_from(peer: str, allowed: str) -> Any:
    settings = config.load(None, {}, {"security.unsecured_access_allowed": allowed})
    app = web.Application()
    app[SERVICES] = cast(Services, mock.Mock(settings=settings))
    transport = mock.Mock()
    transport.get_extra_info = lambda name, default=None: (peer, 1234) if name == "peername" else default
    request = make_mocked_request("GET", "/status", app=app, transport=transport)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text="served")

    return await admission(request, handler)


@pytest.mark.parametrize(("peer", "allowed"), [("8.8.4.4", "private_network"), ("10.0.0.7", "local")])
async def test_strangers_are_not_served_without_certificates(peer: str, allowed: str) -> None:
    with pytest.raises(ApiError, match="unsecured_access_allowed") as refused:
        await _asked_from(peer, allowed)
    assert refused.value.status == 403


@pytest.mark.parametrize(("peer", "allowed"), [("127.0.0.1", "local"), ("10.0.0.7", "private_network")])
async def test_those_whom_the_settings_name_are_served(peer: str, allowed: str) -> None:
    assert (await _asked_from(peer, allowed)).text == "served"
