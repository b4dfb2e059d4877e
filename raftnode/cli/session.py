"""What every command that talks to a cluster shares: which node it asks, how errors end it, how answers are shown."""

import asyncio
import functools
import json
import os
import re
import ssl
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic

import click
import msgspec

from raftnode.foundation.http_client import HttpClient, HttpFailed, HttpUnreachable, Response
from raftnode.foundation.masking import in_text
from raftnode.foundation.names import fold
from raftnode.web.views.base import Shown, read
from raftnode.web.views.status import StatusView
from raftnode.web.views.tasks import TaskStatus

URL = "http://127.0.0.1:8080"
TIMEOUT_SEC = 60.0
PROBE_SEC = 2.0
"""For how long a node that may be frozen is waited for while there are others to ask."""
INTERRUPTED = 130
FROM_PROXIES = (502, 503, 504)
SERVER_HEADER = "Raven-Server-Version"
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
MISSING = ("DoesNotExistException", "NotFoundException")


class CommandFailed(click.ClickException):
    """The command was refused or failed: one sentence on stderr, and an exit code that tells scripts why."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """One sentence on stderr."""
        click.echo(f"raftnode: {self.message}", err=True)


class Unreachable(CommandFailed):
    """No node answers."""

    exit_code = 3


class NotFound(CommandFailed):
    """There is no such thing."""

    exit_code = 4


class NoDocument(NotFound):
    """A 404 without a word, as there is for a document."""


class TryAgain(CommandFailed):
    """No leader, no lease, or not in time: worth trying again."""

    exit_code = 5


FAILING = 6
"""Something that was asked about fails: a task, or a document that a task has skipped."""


@dataclass(frozen=True)
class Answer(Generic[Shown]):
    """An answer as a view, and its JSON as it came, which may say more than this version knows."""

    json: Any
    shown: Shown


class Session:
    """Talks to the first of the nodes that answers. `as_json` prints answers as JSON instead of tables."""

    def __init__(self, urls: tuple[str, ...], *, as_json: bool, http: HttpClient) -> None:
        self._urls = list(urls)
        self._http = http
        self.as_json = as_json

    @property
    def url(self) -> str:
        """The node that is asked first."""
        return self._urls[0]

    def and_given(self, announced: Iterable[str]) -> list[str]:
        """The addresses that nodes announce, then those that the user gave: from outside of the nodes' network, as
        with containers, only the latter are reached."""
        return list(dict.fromkeys((*(url.rstrip("/") for url in announced), *self._urls)))

    async def call(self, method: str, path: str, kind: type[Shown], *, json: Any = None) -> Answer[Shown]:
        """The answer, read as that view. Ends the command when there is none, or an error."""
        reply = await self._first(method, path, json)
        return _answer(self.url, reply.json, kind)

    async def fetch(self, path: str) -> bytes:
        """The answer's bytes."""
        return (await self._first("GET", path)).body

    async def ask_at(self, url: str, method: str, path: str, kind: type[Shown]) -> Answer[Shown]:
        """The answer of one node, with numbers as in `Response.exact_json`. Ends the command with the node's refusal.
        Raises HttpUnreachable."""
        try:
            reply = await self._http.request(method, url + path, timeout_s=TIMEOUT_SEC)
        except HttpFailed as error:
            if error.status == 404 and not error.type:
                raise NoDocument(error.message) from None
            raise _failure(url, error) from None
        return _answer(url, reply.exact_json, kind)

    async def call_at(self, url: str, method: str, path: str, *, body: bytes) -> None:
        """One request to one node. Raises HttpError."""
        await self._http.request(method, url + path, body=body, timeout_s=TIMEOUT_SEC)

    async def _first(self, method: str, path: str, json: Any = None) -> Response:
        # A node that was asked and did not answer may have acted: under one id, a repeat elsewhere acts once.
        headers = {} if method == "GET" else {"raft-request-id": str(uuid.uuid4())}
        reasons = []
        await self._frozen_last()
        for url in tuple(self._urls):
            try:
                answer = await self._http.request(method, url + path, json=json, headers=headers, timeout_s=TIMEOUT_SEC)
            except HttpUnreachable as error:
                reasons.append(str(error))
                self._urls.append(self._urls.pop(0))
            except HttpFailed as error:
                raise _failure(url, error) from None
            else:
                if SERVER_HEADER not in answer.headers:
                    raise _stranger(url, f"its answer has no header {SERVER_HEADER}")
                return answer
        raise Unreachable(f"{'; '.join(reasons)}. {_remedy(reasons)}")

    async def _frozen_last(self) -> None:
        """Puts those at the end that do not answer a short question, up to the first that does."""
        for _ in self._urls[1:]:
            if await self.answers(self._urls[0]):
                return
            self._urls.append(self._urls.pop(0))

    async def answers(self, url: str) -> bool:
        """Whether something answers there, at once."""
        try:
            await self._http.request("GET", f"{url}/health/live", timeout_s=PROBE_SEC)
        except HttpFailed:
            return True
        except HttpUnreachable:
            return False
        return True

    def show(self, answer: Answer[Shown], text: Callable[[Shown], None] | str) -> None:
        """Prints the answer's JSON if that was asked for, else the text, or by calling it with the answer."""
        if self.as_json:
            click.echo(_BEYOND_ASCII.sub(_escape, in_json(answer.json, indent=2 if sys.stdout.isatty() else 0)))
        elif isinstance(text, str):
            click.echo(text)
        else:
            text(answer.shown)


def _answer(url: str, decode: Callable[[], Any], kind: type[Shown]) -> Answer[Shown]:
    try:
        answer = decode()
        return Answer(answer, read(answer, kind))
    except HttpUnreachable as error:
        raise _stranger(url, str(error)) from None
    except msgspec.ValidationError as error:
        raise CommandFailed(
            f"The answer of {in_text(url)} does not fit: {error}. Use the command line of the node's own version."
        ) from None


def in_json(value: Any, *, indent: int) -> str:
    """As JSON text, on one line for an indent of 0. What came from `Response.exact_json` keeps its digits."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()


def _escape(letter: re.Match[str]) -> str:
    return json.dumps(letter[0])[1:-1]


def _stranger(url: str, reason: str) -> CommandFailed:
    return CommandFailed(
        f"What answers at {in_text(url)} is not a raftnode node: {reason}. Give a node's HTTP address: --url or "
        "RAFTNODE_URL."
    )


def _failure(url: str, error: HttpFailed) -> CommandFailed:
    if not error.type and error.status in FROM_PROXIES:
        return TryAgain(f"{in_text(url)} says {error.status} {error.message}. Try again.")
    if not error.type:
        return _stranger(url, f"it says {error.status} {error.message}")
    if error.status == 404 or error.type.endswith(MISSING):
        return NotFound(error.message)
    return TryAgain(error.message) if error.status in (408, 503) else CommandFailed(error.message)


def talks(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a coroutine function with a Session a command's callback, with the options that all commands have."""

    @functools.wraps(function)
    def command(**given: Any) -> None:
        try:
            asyncio.run(_talk(function, given))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    for option in (
        click.option("--ca-file", envvar="RAFTNODE_SECURITY_CA_FILE", metavar="FILE", hidden=True),
        click.option("--key-file", envvar="RAFTNODE_SECURITY_KEY_FILE", metavar="FILE", hidden=True),
        click.option("--certificate-file", envvar="RAFTNODE_SECURITY_CERTIFICATE_FILE", metavar="FILE", hidden=True),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--url", metavar="URL", help=f"A node to ask, or several (,); RAFTNODE_URL. Default: {URL}"),
    ):
        command = option(command)
    return command


async def _talk(function: Callable[..., Awaitable[None]], given: dict[str, Any]) -> None:
    wanted = given.pop("url") or click.get_current_context().find_root().obj or os.environ.get("RAFTNODE_URL") or URL
    files = [given.pop(name) for name in ("certificate_file", "key_file", "ca_file")]
    as_json = given.pop("as_json")
    urls = tuple(part.strip().rstrip("/") for part in wanted.split(",") if part.strip())
    if not urls or not all(url.startswith(("http://", "https://")) for url in urls):
        raise click.UsageError(f"--url {in_text(wanted)!r}: give addresses like {URL}, separated by commas.")
    async with HttpClient(tls=_tls(*files) if urls[0].startswith("https://") else None) as http:
        await function(Session(urls, as_json=as_json, http=http), **given)


def _tls(certificate_file: str | None, key_file: str | None, ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate_file:
            context.load_cert_chain(certificate_file, key_file)
    except OSError as error:
        names = ", ".join(f"RAFTNODE_SECURITY_{name}_FILE" for name in ("CERTIFICATE", "KEY", "CA"))
        raise CommandFailed(f"The certificates cannot be loaded: {error}. Fix {names}.") from error
    return context


async def find_task(session: Session, name: str, database: str | None) -> tuple[str, TaskStatus]:
    """The database and the status of the task of that name. Without a database the name must be unique."""
    query = f"?database={database}" if database else ""
    databases = (await session.call("GET", f"/status{query}", StatusView)).shown.databases
    if database and not databases:
        raise NotFound(f"There is no database '{database}'; `raftnode db list` shows those there are.")
    found = [
        (shown.name, task) for shown in databases.values() for task in shown.tasks if fold(task.task_name) == fold(name)
    ]
    if not found:
        raise NotFound(f"There is no task '{name}'; `raftnode tasks` shows those there are.")
    if len(found) > 1:
        raise CommandFailed(f"Task '{name}' is in {', '.join(d for d, _ in found)}; say which: --database.")
    return found[0]


def _remedy(reasons: list[str]) -> str:
    text = " ".join(reasons).lower()
    if "https://" in text and ("certificate" in text or "disconnected" in text):
        return (
            "Name this client's certificate and the nodes' authority: RAFTNODE_SECURITY_CERTIFICATE_FILE, "
            "RAFTNODE_SECURITY_KEY_FILE, RAFTNODE_SECURITY_CA_FILE."
        )
    tls = " The address of a node with certificates begins with https://." if "disconnected" in text else ""
    return f"Start a node (raftnode run), or name one that runs: --url or RAFTNODE_URL.{tls}"
