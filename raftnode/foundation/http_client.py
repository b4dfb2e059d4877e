"""The one HTTP client: between nodes, to sinks, and for the command line."""

import os
import ssl
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
import msgspec

from raftnode.foundation.decoding import DECODE_ERRORS, JsonDecoder, from_json
from raftnode.foundation.masking import in_text

CONNECTIONS_MAX = 100
CONNECT_TIMEOUT_S = 2.0
RESPONSE_BYTES_MAX = 256 * 1024 * 1024


class HttpError(Exception):
    """The request had no success; the message says why."""


class HttpUnreachable(HttpError):
    """No answer came: refused, cut off, too slow, or not HTTP. Whether the request took effect is not known."""


class HttpFailed(HttpError):
    """The server answered with an error: its status, RavenDB's exception name, its message, and the whole answer if it
    is in RavenDB's shape."""

    def __init__(self, status: int, type: str, message: str, answer: Mapping[str, Any]) -> None:
        self.status = status
        self.type = type
        self.message = message
        self.answer = answer
        super().__init__(f"{type or 'HTTP ' + str(status)}: {message}")


class _Error(msgspec.Struct, rename="pascal"):
    type: str = ""
    message: str = ""


class Response(msgspec.Struct, frozen=True):
    """A successful answer. `body` is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises HttpUnreachable if it is none: then the server is not what was expected."""
        try:
            return from_json(self.body)
        except DECODE_ERRORS as error:
            raise HttpUnreachable(f"the answer is not JSON: {error}") from error

    def exact_json(self) -> Any:
        """Like `json`, but a number that is no integer comes as a msgspec.Raw with its own digits."""
        try:
            return _exact.decode(self.body)
        except DECODE_ERRORS as error:
            raise HttpUnreachable(f"the answer is not JSON: {error}") from error


_exact: JsonDecoder[Any] = JsonDecoder(float_hook=lambda digits: msgspec.Raw(digits.encode()))


class HttpClient:
    """A session with pooled connections. Use it as a context manager. `node_id` is the node's that asks, for requests
    that only nodes of the cluster may make; nothing sends it by itself."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, node_id: str = "") -> None:
        self._tls = tls
        self.node_id = node_id
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=self._tls or True)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """One request, with a JSON or a plain body. Raises HttpFailed for an error status, else HttpUnreachable."""
        assert self._session is not None, "the client is used as a context manager"
        data = msgspec.json.encode(json) if json is not None else body
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s))
        try:
            async with self._session.request(method, url, data=data, headers=headers, timeout=timeout) as answer:
                content = await self._content(answer)
                if answer.status >= 400:
                    raise _failed(answer.status, answer.reason or "", content)
                return Response(answer.status, dict(answer.headers), content)
        except TimeoutError:
            raise HttpUnreachable(f"{in_text(url)} did not answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise HttpUnreachable(in_text(f"{url} cannot be reached: {_reason(error)}")) from None

    @staticmethod
    async def _content(answer: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in answer.content.iter_chunked(1 << 16):
            content += chunk
            if len(content) > RESPONSE_BYTES_MAX:
                raise HttpUnreachable(f"{in_text(str(answer.url))} answers more than {RESPONSE_BYTES_MAX} bytes")
        return bytes(content)


def _reason(error: Exception) -> str:
    """Why there is no connection, without the address, which the caller tells."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno and "Connect call failed" in str(cause):
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__


def _failed(status: int, reason: str, content: bytes) -> HttpFailed:
    try:
        answer = from_json(content, dict[str, Any])
        error = msgspec.convert(answer, _Error)
    except DECODE_ERRORS:
        answer, error = {}, _Error()
    return HttpFailed(status, error.type.rpartition(".")[2], error.message or reason, answer)
