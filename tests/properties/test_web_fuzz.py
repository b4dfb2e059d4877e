"""Anything at all, at any route: an answer in time, and never a defect."""

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.web.conftest import running, settings_in
from tests.unit.web.routes import ROUTES, Route

ANSWER_S = 20
TEXTS = (
    "",
    "A",
    "Z",
    "Shop",
    "orders",
    "target",
    "Sql",
    "SqlEtl",
    "Update",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "99999999",
)

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
names = st.sampled_from(sorted({name for route in ROUTES if isinstance(route.body, dict) for name in route.body}))
values = st.recursive(
    texts | numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn, route: Route) -> bytes | None:
    """Any bytes, any JSON, or the body that fits with one field changed."""
    how = draw(st.sampled_from(("none", "bytes", "json", "nearly")))
    if how == "none":
        return None
    if how == "bytes":
        return draw(st.binary(max_size=60))
    if how == "nearly" and isinstance(route.body, dict):
        return json.dumps(route.body | {draw(st.sampled_from(sorted(route.body))): draw(values)}).encode()
    return json.dumps(draw(values)).encode()


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
    route = draw(st.sampled_from(ROUTES))
    known = st.sampled_from(sorted(route.query)) if route.query else texts
    query = draw(st.lists(st.tuples(known | texts, texts), max_size=4))
    path = route.path.replace("{database}", quote(draw(st.just("Shop") | texts), safe="") or "Shop")
    path = path.replace("{task}", quote(draw(texts), safe="") or "1")
    written = "&".join(f"{quote(name)}={quote(value)}" for name, value in query)
    # The joining node of the table would be taken in, and a voter that nobody runs would stop the cluster.
    body = None if route.id == ("PUT", "/admin/cluster/node") else draw(bodies(route))
    return route.method, f"{path}?{written}", body


async def test_any_request_is_answered_in_time_and_never_by_a_defect(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path / "data", http__request_timeout_ms="3000")) as client:
        await client.database()
        await asyncio.to_thread(_attack(client.url))
        assert (await client.get("/health/live")).status == 200
        assert list(client.node.replica.record.nodes) == ["A"]


def _attack(url: str) -> Callable[[], None]:
    address = urlsplit(url)

    def send(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body=body)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(requests())
    def attack(request: tuple[str, str, bytes | None]) -> None:
        assert send("PUT", "/admin/databases?name=Shop", None)[0] in (201, 409), "an attack may have deleted it"
        path = request[1]
        status, text = send(*request)
        assert status != 500, text
        assert b"Traceback" not in text
        if status >= 400 and text:
            told: dict[str, Any] = json.loads(text)
            if not path.startswith("/health/ready"):
                assert told["Message"]

    return attack
