"""How the daemon speaks: one sentence a decision, for people on a console or for machines as JSON lines."""

import contextlib
import io
import logging
import sys
from typing import Any, TextIO, cast

import structlog

from raftnode.foundation.masking import in_text


class _Stderr(io.TextIOBase):
    """A log on a full disk, or a pipe that nobody reads any more, costs lines and not the daemon."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(node: str, form: str, level: str) -> None:
    """Sets up structlog, and the standard library's loggers of the packages we use, to write to stderr.

    Each line names `node`. `form` is "console" or "json"; `level` is that of the least important lines that are shown.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        rendered: list[structlog.types.Processor] = [
            structlog.processors.format_exc_info,
            _exact,
            _masked,
            structlog.processors.JSONRenderer(),
        ]
    else:
        colors = sys.stderr.isatty()
        rendered = [
            _masked,
            structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, exception_formatter=_traceback),
        ]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=node)
    plain = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masked(plain))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _exact(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Epochs are text, as in every answer: readers of JSON keep 53 bits of a number, and a recovery takes more."""
    if "epoch" in event:
        event["epoch"] = str(event["epoch"])
    return event


def _masked(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Addresses and errors of drivers may hold passwords."""
    return {key: in_text(value) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(stream: TextIO, error: structlog.types.ExcInfo) -> None:
    """A plain traceback: values of local variables are nobody's business."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(in_text(text.getvalue()))


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return in_text(super().format(record))
