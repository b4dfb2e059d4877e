"""How the daemon speaks: one sentence a decision, for people on a console or for machines as JSON lines."""

import contextlib
import io
import logging
import sys
from typing import TextIO, cast

import structlog

from config import Settings


class _Stderr(io.TextIOBase):
    """A log on a full disk, or a pipe that nobody reads any more, costs lines and not the daemon."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(settings: Settings) -> None:
    """Sets up structlog, and the standard library's loggers of the packages we use, to write to stderr."""
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log.format == "json":
        rendered: list[structlog.types.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        rendered = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=settings.node.tag)
    plain = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=plain)
