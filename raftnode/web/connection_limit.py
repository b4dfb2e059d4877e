"""New connections are refused when the process runs out of file descriptors, so that the journal never does.

The system gives every new file the lowest number that is free: a high number tells that nearly all below are taken.
"""

import asyncio

import msgspec
import structlog

from raftnode.liveness.resources import DESCRIPTORS_KEPT, descriptors_max
from raftnode.web.errors import KINDS
from raftnode.web.views.errors import ErrorView

log = structlog.get_logger(__name__)

MESSAGE = (
    "This node has no file descriptor left for another connection. Close some, try another node, or raise the limit "
    "(ulimit -n, LimitNOFILE=)."
)
_TYPE = KINDS["DatabaseLoadFailureException"][1]
_BODY = msgspec.json.encode(ErrorView(url="", type=_TYPE, message=MESSAGE, error=MESSAGE))
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class ConnectionLimit:
    """The connections of one server."""

    def __init__(self) -> None:
        self._refused = 0

    def refuses(self, transport: asyncio.Transport) -> bool:
        """Answers and closes the connection if there is no place for it. The first of a row is logged, and its end."""
        number = transport.get_extra_info("socket").fileno()
        if 0 <= number < descriptors_max() - DESCRIPTORS_KEPT:
            if self._refused:
                log.info("New connections are accepted again.", refused=self._refused)
                self._refused = 0
            return False
        if not self._refused:
            log.warning(
                "New connections are refused, as the rest of the file descriptors is kept.", limit=descriptors_max()
            )
        self._refused += 1
        transport.write(_ANSWER)
        transport.close()
        return True
