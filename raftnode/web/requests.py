"""Reading requests and writing answers: query values and bodies are checked here, by name, before anything else."""

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from raftnode.foundation.decoding import DECODE_ERRORS, TooDeep, from_json
from raftnode.foundation.timestamps import time_span
from raftnode.record import model
from raftnode.record.encoding import enc_hook
from raftnode.web.errors import ApiError, bad_request
from raftnode.web.request_bodies import whole
from raftnode.web.views.base import Json

Body = TypeVar("Body")

REQUEST_ID = "raft-request-id"
REQUEST_ID_LENGTH_MAX = model.REQUEST_ID_LENGTH_MAX - model.NAME_LENGTH_MAX - 1
"""A request of several commands adds a database's name to the id of each."""
PAGE_MAX = 10_000
COMMAND_BODY_BYTES_MAX = 1024 * 1024
"""Largest body of a request that carries no documents. A command is at most half of that, and reading more, only to
refuse it, would hold the loop."""
INTEGER_MAX = 2**63 - 1

_encoder = msgspec.json.Encoder(enc_hook=enc_hook)


class Input(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of request bodies. Keys we do not know are ignored, as clients send many."""


class Query:
    """The query string of a request. Names are case-insensitive; a leading '?', which official clients send, is
    dropped."""

    def __init__(self, request: web.Request) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query.items():
            self._values.setdefault(name.lstrip("?").lower(), []).append(value)

    def has(self, name: str) -> bool:
        """Whether the name is given, with or without a value."""
        return name.lower() in self._values

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return self._values.get(name.lower(), [])

    def text(self, name: str) -> str | None:
        """The value, None if it is absent or empty."""
        values = [value for value in self.all(name) if value]
        if len(set(values)) > 1:
            raise bad_request(f"Query value '{name}' is given more than once. Give one.")
        return values[0] if values else None

    def required(self, name: str) -> str:
        """The value; refuses the request without it."""
        value = self.text(name)
        if value is None:
            raise bad_request(f"Query value '{name}' is missing. Add ?{name}=...")
        return value

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = INTEGER_MAX) -> int:
        """A whole number within [low, high]; refuses the request if it is absent and has no default."""
        value = self.text(name) if default is not None else self.required(name)
        if value is None:
            assert default is not None
            return default
        if not re.fullmatch(r"-?\d{1,19}", value, re.ASCII) or not low <= int(value) <= high:
            raise bad_request(f"Query value '{name}' is {value[:40]!r}; it must be a whole number, {low} to {high}.")
        return int(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false; refuses the request if it is absent and has no default."""
        value = self.text(name) if default is not None else self.required(name)
        if value is None:
            assert default is not None
            return default
        if value.lower() not in ("true", "false"):
            raise bad_request(f"Query value '{name}' is {value[:40]!r}; it must be true or false.")
        return value.lower() == "true"

    def timespan_s(self, name: str, default: float) -> float:
        """A .NET time span ([d.]hh:mm:ss[.f]) or a number of seconds, as seconds."""
        value = self.text(name)
        return default if value is None else timespan_s(name, value)


def timespan_s(name: str, value: str) -> float:
    """The seconds of a .NET time span or a plain number of seconds."""
    if re.fullmatch(r"\d{1,7}(\.\d{1,7})?", value, re.ASCII):
        return float(value)
    span = time_span(value)
    # "00:15" is .NET's quarter of an hour, and whoever writes it by hand means 15 seconds.
    if span is None or span.sign or value.count(":") < 2:
        raise bad_request(f"'{name}' is {value[:40]!r}; it must be a time span like 00:00:15.")
    return span.total_s


async def body(request: web.Request, kind: type[Body]) -> Body:
    """The JSON body as a value of that type; refuses the request with the name of the field that does not fit."""
    return parse(await whole(request, bytes_max=COMMAND_BODY_BYTES_MAX), kind)


async def body_if_any(request: web.Request, kind: type[Body]) -> Body | None:
    """The same; None for an empty body."""
    return await body(request, kind) if await whole(request, bytes_max=COMMAND_BODY_BYTES_MAX) else None


async def body_of_documents(request: web.Request, kind: type[Body]) -> Body:
    """The same for bodies that carry documents, and so may be as large as http.body_bytes_max."""
    content = await whole(request)
    little = len(content) <= COMMAND_BODY_BYTES_MAX
    return parse(content, kind) if little else await asyncio.to_thread(parse, content, kind)


def fitting(given: Json, kind: type[Body]) -> Body:
    """A JSON object that was read already as a value of that type; refuses what does not fit by name."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise bad_request(f"The body does not fit: {error}. Correct that field.") from None


def parse(data: bytes, kind: type[Body]) -> Body:
    """JSON as a value of that type; refuses what does not fit by name."""
    try:
        return from_json(data, kind)
    except msgspec.ValidationError as error:
        raise bad_request(f"The body does not fit: {error}. Correct that field.") from None
    except TooDeep as error:
        raise bad_request(f"The body is refused: {error}. Nest it less deeply.") from None
    except DECODE_ERRORS as error:
        raise bad_request(f"The body is not valid JSON: {error}.") from None


def request_id(request: web.Request) -> str | None:
    """The caller's key for idempotence, from the query or the header."""
    id = Query(request).text(REQUEST_ID) or request.headers.get(REQUEST_ID)
    if id is not None and len(id) > REQUEST_ID_LENGTH_MAX:
        raise bad_request(f"{REQUEST_ID} is longer than {REQUEST_ID_LENGTH_MAX} characters.")
    return id


def encoded(value: Any) -> bytes:
    """The value as JSON."""
    return _encoder.encode(value)


def answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """The value as a JSON response."""
    return web.Response(
        status=status,
        body=encoded(value),
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def etag_of(header: str | None) -> str | None:
    """The value of an If-Match, If-None-Match or Topology-Etag header without its quotes."""
    return None if header is None else header.strip().removeprefix("W/").strip('"')


def not_supported(what: str, instead: str) -> ApiError:
    """A part of RavenDB's protocol that this server does not have."""
    return ApiError("NotSupportedException", f"{what} is not supported. {instead}")
