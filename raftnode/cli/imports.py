"""`raftnode import`: documents of a file into a database, in batches that any Member may take."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from raftnode.cli.session import Answer, CommandFailed, Session, TryAgain, talks
from raftnode.cli.tables import counted
from raftnode.foundation.decompression import Decompressor, NotCompressed, encoding_of
from raftnode.foundation.http_client import HttpFailed, HttpUnreachable
from raftnode.foundation.json_splitter import ItemTooLarge, JsonSplitter, NoListOfObjects
from raftnode.web.views.databases import DatabaseTopology

BATCH_DOCUMENTS_MAX = 1_000
BATCH_BYTES_MAX = 4 << 20
READ_BYTES = 64 * 1024
ITEM_BYTES_MAX = 128 << 20
"""No node takes a larger one; what it takes, it says."""


@dataclass
class _Batch:
    """Documents that are sent in one request, and the line of the file on which each begins."""

    items: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, item: bytes, line: int) -> None:
        self.items.append(item)
        self.lines.append(line)
        self.size += len(item)

    def has_room_for(self, item: bytes) -> bool:
        return len(self.items) < BATCH_DOCUMENTS_MAX and self.size + len(item) <= BATCH_BYTES_MAX


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--database", required=True, metavar="NAME", help="Into this database.")
@talks
async def import_documents(session: Session, file: BinaryIO, database: str) -> None:
    """Import documents, each with its id in @metadata.@id: one JSON object a line, or an array of them; gzip and zstd
    files, too (- reads standard input).

    An import that was interrupted may simply be repeated: documents are put by their id.
    """
    answer = await session.call("GET", f"/topology?name={quote(database, safe='')}", DatabaseTopology)
    if not answer.shown.nodes:
        raise TryAgain(f"Database '{database}' has no Member that could accept documents; see `raftnode status`.")
    urls = session.and_given(node.url for node in answer.shown.nodes)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    path, count = f"/databases/{quote(database, safe='')}/bulk_insert", 0
    with bar:
        task = bar.add_task(f"importing into {database}", total=None)
        try:
            for batch in _batches(file):
                await _send(session, urls, path, batch, count)
                count += len(batch.items)
                bar.update(task, completed=count)
        except (NoListOfObjects, ItemTooLarge, NotCompressed) as error:
            raise CommandFailed(f"{file.name}: {error} {_imported(count)}") from None
    done = {"Database": database, "Imported": count}
    session.show(Answer(done, done), f"{counted(count, 'document')} imported into {database}.")


async def _send(session: Session, urls: list[str], path: str, batch: _Batch, before: int) -> None:
    """To the first address that accepts it; one that does not goes to the end. Puts may be repeated."""
    reason = ""
    body = b"\n".join(batch.items)
    for place, url in enumerate(tuple(urls), 1):
        if place < len(urls) and not await session.answers(url):
            urls.append(urls.pop(0))
            continue
        try:
            return await session.call_at(url, "POST", path, body=body)
        except HttpFailed as error:
            if error.status != 503:
                raise _refused(error, batch, before) from error
            reason = error.message
        except HttpUnreachable as error:
            reason = str(error)
        urls.append(urls.pop(0))
    why = reason.rstrip(".")
    raise TryAgain(f"No Member of the database accepts the documents: {why}. {_imported(before)} Repeat it later.")


def _refused(error: HttpFailed, batch: _Batch, before: int) -> CommandFailed:
    """The refusal in terms of the file: the node counts within the batch."""
    item, written = error.answer.get("Item"), error.answer.get("Written", 0)
    if not isinstance(item, int) or not 1 <= item <= len(batch.lines):
        return CommandFailed(error.message)
    reason = error.answer.get("Reason", error.message)
    return CommandFailed(f"Line {batch.lines[item - 1]}: {reason} {_imported(before + written)}")


def _imported(count: int) -> str:
    return f"Imported before it: {counted(count, 'document')}." if count else "No document is imported."


def _batches(file: BinaryIO) -> Iterator[_Batch]:
    """What stands before a fault in the file still comes, as a batch of its own."""
    batch = _Batch()
    splitter = JsonSplitter(ITEM_BYTES_MAX)
    try:
        for piece in _pieces(file):
            for item in splitter.feed(piece):
                if batch.items and not batch.has_room_for(item):
                    yield batch
                    batch = _Batch()
                batch.add(item, splitter.line)
        splitter.end()
    except (NoListOfObjects, ItemTooLarge, NotCompressed):
        if batch.items:
            yield batch
        raise
    if batch.items:
        yield batch


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    data = file.read(READ_BYTES)
    encoding = encoding_of(data)
    if encoding is None:
        while data:
            yield data
            data = file.read(READ_BYTES)
        return
    inflater = Decompressor(encoding)
    try:
        while data:
            yield from inflater.feed(data)
            data = file.read(READ_BYTES)
        inflater.end()
    except NotCompressed as error:
        raise NotCompressed(f"The file cannot be decompressed: {error}.") from None
