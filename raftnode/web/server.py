"""The listening socket: started with a clear error when it cannot be, stopped without breaking answers off."""

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from config import Settings
from raftnode.web.app import application
from raftnode.web.connection_limit import ConnectionLimit
from raftnode.web.errors import ApiError, render
from raftnode.web.services import Services

log = structlog.get_logger(__name__)

SHUTDOWN_S = 2.0
HANDSHAKE_S = 5.0
LINE_BYTES_MAX = 64 * 1024
"""Longest request line and header. Ids and names come in the query; one that is too long gets a clear answer."""

REASON_LENGTH_MAX = 200
CLIENTS_FAULTS = (HttpProcessingError, web.RequestPayloadError, UnicodeError)
"""What goes wrong outside of every handler because of what a client sent: headers that are no text, too."""

_RESET_LINE = re.compile(rb"\ARESET (?=/databases/[^/?\s]+/admin/etl/?(\?\S*)? HTTP/1\.[01]\r\n)")


class BindFailed(Exception):
    """The HTTP port cannot be listened on; the message names host, port, setting and remedy."""


class HttpServer:
    """The HTTP server of a node."""

    def __init__(self, settings: Settings, *, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections = ConnectionLimit()

    async def bind(self) -> None:
        """Takes http.host and http.port, and answers nobody yet: a node whose port is taken must not join or lead
        before it ends. Raises BindFailed."""
        http = self._settings.http
        with self._binding():
            self._listener = await asyncio.get_running_loop().create_server(
                self._protocol,
                http.host,
                http.port,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
                start_serving=False,
            )

    async def start(self, services: Services) -> None:
        """Answers with what the parts say. Raises BindFailed."""
        assert self._listener is not None, "bind() comes first"
        self._runner = web.AppRunner(application(services), handle_signals=False, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        with self._binding():
            await self._listener.start_serving()
        http = self._settings.http
        log.info("This node answers HTTP.", url=self._settings.url, host=http.host, port=http.port)

    async def stop(self) -> None:
        """Takes no new connections, lets answers finish for a short time, then closes."""
        listener, runner = self._listener, self._runner
        self._listener = None
        if listener is not None:
            listener.close()
            if runner is not None:
                await runner.cleanup()

    @contextmanager
    def _binding(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            host, port = self._settings.http.host, self._settings.http.port
            raise BindFailed(
                f"cannot listen on {host}, port {port} ({error.strerror or error}): another program may use the port. "
                "End it, or choose another with http.host and http.port"
            ) from error

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner is not None
        assert self._runner.server is not None
        return ResetAsPost(
            HttpConnection(
                self._runner.server,
                loop=asyncio.get_running_loop(),
                access_log=None,  # type: ignore[arg-type]  # None is what turns it off
                auto_decompress=False,  # see raftnode.web.request_bodies
                max_line_size=LINE_BYTES_MAX,
                max_field_size=LINE_BYTES_MAX,
            ),
            self._connections,
        )


class HttpConnection(web.RequestHandler):
    """One connection. What is no HTTP gets its answer in the shape of every error, too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See web.RequestHandler; it logs."""
        status = HTTPStatus.BAD_REQUEST if isinstance(exc, CLIENTS_FAULTS) else status
        super().handle_error(request, status, exc, message)
        what = _line(message or "the request failed")
        answer = render(
            request, ApiError("BadRequestException", f"This is not HTTP as expected: {what}.", status=status)
        )
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """See web.RequestHandler. What a client sends is no defect of the node and worth no more than a line; nor is
        one that leaves before `100 Continue` reaches it, which is written outside of every handler."""
        error = kwargs.get("exc_info")
        if isinstance(error, ConnectionResetError):
            return
        if isinstance(error, CLIENTS_FAULTS):
            log.info("A request is refused, as it is not HTTP as expected.", reason=_line(str(error)))
        else:
            super().log_exception(*args, **kwargs)


def _line(text: str) -> str:
    return " ".join(text.split())[:REASON_LENGTH_MAX]


class ResetAsPost(asyncio.Protocol):
    """Hands RavenDB's RESET requests on as POST: the HTTP parser knows only registered methods.

    Only a whole request line at the beginning of what arrives is taken for one; clients that cannot be sure of that
    send POST, which the route takes just as well.
    """

    def __init__(self, inner: Any, connections: ConnectionLimit) -> None:
        self._inner, self._connections = inner, connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        if self._connections.refuses(transport):
            self._inner = asyncio.Protocol()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._inner.data_received(_RESET_LINE.sub(b"POST ", data, count=1))

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        answer: bool | None = self._inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.resume_writing()
