"""Several reads in one request: RavenDB's clients send the lazy operations of a session so."""

import msgspec
from aiohttp import web

from raftnode.foundation.names import fold
from raftnode.web.errors import bad_request, errors
from raftnode.web.request_bodies import given_body
from raftnode.web.requests import Input, answer, body_of_documents, not_supported
from raftnode.web.stores import existing_database
from raftnode.web.views.documents import SeveralAnswers, SingleAnswer

REQUESTS_MAX = 1_000
READS = {("GET", "docs"), ("POST", "docs")}
"""What may be asked for, by method and the end of the path. All of them answer with a body that is whole."""


class ReadInput(Input, frozen=True, kw_only=True):
    """One of the requests. `url` is a path, and `query` what follows it."""

    url: str
    query: str | None = None
    method: str | None = None
    headers: dict[str, str | None] | None = None
    content: msgspec.Raw = msgspec.Raw()


class ReadsInput(Input, frozen=True, kw_only=True):
    """The requests, in their order."""

    requests: list[ReadInput]


def routes() -> list[web.RouteDef]:
    """This module's routes."""
    return [web.post("/databases/{database}/multi_get", multi_get)]


async def multi_get(request: web.Request) -> web.Response:
    """The answers to several reads of the database, in their order. One that is refused does not stop the others."""
    existing_database(request)
    asked = (await body_of_documents(request, ReadsInput)).requests
    if len(asked) > REQUESTS_MAX:
        raise bad_request(f"{len(asked)} requests; at most {REQUESTS_MAX} are answered at once. Send fewer.")
    return answer(SeveralAnswers(results=[await _answered(request, place, one) for place, one in enumerate(asked)]))


async def _answered(request: web.Request, place: int, asked: ReadInput) -> SingleAnswer:
    method = (asked.method or "GET").upper()
    path, _, query = f"{asked.url}{asked.query or ''}".partition("?")
    below = f"/databases/{request.match_info['database']}/"
    what = path[len(below) :] if fold(path).startswith(fold(below)) else path
    if (method, what) not in READS:
        raise not_supported(f"Requests[{place}]: {method} {path[:80]!r}", f"Ask for documents: GET {below}docs.")
    headers = {name: value for name, value in (asked.headers or {}).items() if value is not None}
    try:
        sub = request.clone(method=method, rel_url=f"{path}?{query}", headers=headers)
    except ValueError as error:
        raise bad_request(f"Requests[{place}]: its address cannot be read ({error}).") from None
    given_body(sub, bytes(asked.content))
    match = await request.app.router.resolve(sub)
    match.add_app(request.app)
    sub._match_info = match
    response = await errors(sub, match.handler)
    text = response.body if isinstance(response, web.Response) else None
    result = msgspec.Raw(text) if isinstance(text, bytes) and text else None
    return SingleAnswer(result=result, status_code=response.status, headers=dict(response.headers))
