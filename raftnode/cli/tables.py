"""Tables for people: in colour on a terminal, plain text with every column whole in a pipe."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 200
GENERATION_STRIDE = 1 << 40
"""See raftnode.record.model: an epoch is the cluster's generation and the index of the log entry, in one number."""
SECONDS_LENGTH = len("2024-01-31T12:00:00")


def epoch(value: str | int | None) -> str:
    """An epoch as people read it: the index, and the generation before it once there was a recovery."""
    generation, index = divmod(int(value or 0), GENERATION_STRIDE)
    return f"{generation}/{index}" if generation else str(index or "")


def counted(count: int, noun: str) -> str:
    """So many of them: "1 document", "2,000 documents"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def moment(text: str) -> str:
    """A time (UTC) to the second."""
    return text[:SECONDS_LENGTH].replace("T", " ")


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; cells may hold rich's markup."""
    made = Table(title=title or None, title_justify="left", box=None, header_style="bold dim", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Prints the table, or a sentence when it has no rows."""
    console().print(table(title, columns, rows) if rows else empty)
