"""Every failure in RavenDB's shape: {Url, Type, Message, Error}, the right status, and never a stack trace."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from raftnode.cluster.replica import CommandTooLarge, Unavailable
from raftnode.consensus.raft import NotCommitted, OutcomeUnknown
from raftnode.documents.errors import (
    ConcurrencyViolation,
    DocumentInvalid,
    FenceStale,
    ReplicationRefused,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFailed,
)
from raftnode.foundation.masking import in_text
from raftnode.record.model import CommandError
from raftnode.web.views.base import Json, members
from raftnode.web.views.errors import ErrorView

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RAVEN = "Raven.Client.Exceptions"
KINDS: Mapping[str, tuple[int, str]] = {
    "AuthorizationException": (403, f"{RAVEN}.Security.AuthorizationException"),
    "BadRequestException": (400, f"{RAVEN}.BadRequestException"),
    "BackupUnreachableException": (400, f"{RAVEN}.BadRequestException"),
    "ClaimRefusedException": (409, f"{RAVEN}.ConcurrencyException"),
    "ClientVersionMismatchException": (400, f"{RAVEN}.ClientVersionMismatchException"),
    "ConcurrencyException": (409, f"{RAVEN}.ConcurrencyException"),
    "ConnectionStringDoesNotExistException": (404, f"{RAVEN}.BadRequestException"),
    "CopyDoesNotExistException": (404, f"{RAVEN}.BadRequestException"),
    "DatabaseDisabledException": (503, f"{RAVEN}.Database.DatabaseDisabledException"),
    "DatabaseDoesNotExistException": (404, f"{RAVEN}.Database.DatabaseDoesNotExistException"),
    "DatabaseLoadFailureException": (503, f"{RAVEN}.Database.DatabaseLoadFailureException"),
    "DatabaseLockedException": (403, f"{RAVEN}.Security.AuthorizationException"),
    "DatabaseNotRelevantException": (503, f"{RAVEN}.Database.DatabaseNotRelevantException"),
    "IndexDoesNotExistException": (404, f"{RAVEN}.Documents.Indexes.IndexDoesNotExistException"),
    "InvalidNodeTagException": (400, f"{RAVEN}.BadRequestException"),
    "LimitExceededException": (400, f"{RAVEN}.BadRequestException"),
    "MethodNotAllowedException": (405, f"{RAVEN}.BadRequestException"),
    "NoLeaderException": (503, f"{RAVEN}.Cluster.NoLeaderException"),
    "NodeDoesNotExistException": (404, f"{RAVEN}.BadRequestException"),
    "NodeIdMismatchException": (409, f"{RAVEN}.ConcurrencyException"),
    "NotSupportedException": (501, "System.NotSupportedException"),
    "NotLeadingException": (503, f"{RAVEN}.Cluster.NoLeaderException"),
    "OperationDoesNotExistException": (404, f"{RAVEN}.BadRequestException"),
    "RequestIdUsedException": (409, f"{RAVEN}.ConcurrencyException"),
    "RouteNotFoundException": (404, f"{RAVEN}.Routing.RouteNotFoundException"),
    "TaskDoesNotExistException": (404, f"{RAVEN}.BadRequestException"),
    "TaskNotRunningException": (503, f"{RAVEN}.BadRequestException"),
    "TimeoutException": (408, "System.TimeoutException"),
    "TooLargeException": (413, f"{RAVEN}.BadRequestException"),
    "UnsupportedEncodingException": (415, f"{RAVEN}.BadRequestException"),
}
UNKNOWN = (500, f"{RAVEN}.RavenException")


class ApiError(Exception):
    """A refusal with its RavenDB exception name (a key of KINDS) and a sentence that says what to do."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        details: Json | None = None,
    ) -> None:
        super().__init__(message)
        known_status, self.type = KINDS.get(kind, UNKNOWN)
        self.status = status or known_status
        self.message = message
        self.headers = dict(headers or {})
        self.details = dict(details or {})


def bad_request(message: str) -> ApiError:
    """Input that cannot be taken as it is."""
    return ApiError("BadRequestException", message)


def of_result(error: CommandError) -> ApiError:
    """A command's refusal as an answer."""
    return ApiError(error.type, error.message)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns whatever a handler raises into an answer. Cancellation passes."""
    try:
        return await handler(request)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        return render(request, _as_api_error(request, error))


def render(request: web.BaseRequest, error: ApiError) -> web.Response:
    """The error as a response."""
    message = in_text(error.message)
    masked_details = {key: in_text(value) if isinstance(value, str) else value for key, value in error.details.items()}
    body = dict(members(ErrorView(url=request.path_qs, type=error.type, message=message, error=message)))
    return web.Response(
        status=error.status,
        headers=error.headers,
        body=msgspec.json.encode(body | masked_details),
        content_type="application/json",
        charset="utf-8",
    )


def _as_api_error(request: web.Request, error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case web.HTTPException():
            return _of_http(request, error)
        case Unavailable() | NotCommitted() | OutcomeUnknown():
            message = f"{_sentence(error)} Try again; with the same raft-request-id it is safe."
            return ApiError("NoLeaderException", message)
        case CommandTooLarge():
            return ApiError("TooLargeException", f"{error} Make it smaller.")
        case StoreError():
            return of_store(error)
        case TimeoutError():
            return ApiError("TimeoutException", "The request took longer than http.request_timeout_ms.", status=503)
        case HttpProcessingError() | web.RequestPayloadError():
            return bad_request(f"The body is not as its headers say: {' '.join(str(error).split())[:200]}.")
        case ConnectionError() if request.transport is None or request.transport.is_closing():
            return bad_request("The client went away before its request was complete.")
    id = uuid4().hex[:12]
    log.exception("A request failed because of a defect.", id=id, method=request.method, path=request.path)
    return ApiError("RavenException", f"{type(error).__name__} in this node; its log tells more under {id}.")


def of_store(error: StoreError) -> ApiError:
    """What a store refused, as an answer."""
    match error:
        case ConcurrencyViolation():
            details: Json = {
                "Id": error.id,
                "ExpectedChangeVector": error.expected,
                "ActualChangeVector": error.actual,
            }
            return ApiError("ConcurrencyException", f"{_sentence(error)}", details=details)
        case FenceStale():
            epoch, sequence = error.heard
            details = {"HeardEpoch": epoch, "HeardSequence": sequence}
            return ApiError("ConcurrencyException", _sentence(error), details=details)
        case DocumentInvalid() | ReplicationRefused():
            return bad_request(_sentence(error))
        case StoreDamaged() | StoreFailed() | StoreBusy() | StoreClosed():
            return ApiError("DatabaseLoadFailureException", _sentence(error))
    return ApiError("RavenException", _sentence(error))


def allowed(error: web.HTTPMethodNotAllowed) -> str:
    """The methods of a path, for the Allow header."""
    return ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))


def _of_http(request: web.Request, error: web.HTTPException) -> ApiError:
    match error:
        case web.HTTPMethodNotAllowed():
            methods = allowed(error)
            message = f"{request.method} is not known at {request.path}; {methods} are."
            return ApiError("MethodNotAllowedException", message, headers={"Allow": methods})
        case web.HTTPNotFound():
            return ApiError("RouteNotFoundException", f"There is no {request.method} {request.path}; see docs/http.md.")
        case web.HTTPRequestEntityTooLarge():
            message = "The body is larger than http.body_bytes_max. Send less at once, or raise the limit."
            return ApiError("TooLargeException", message)
    return ApiError("BadRequestException", error.reason, status=error.status)


def _sentence(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
