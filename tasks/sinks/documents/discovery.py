"""Where another cluster's database is: the nodes of its group, asked of whichever node of that cluster answers."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

from raftnode.foundation.http_client import HttpClient, HttpError, HttpUnreachable
from tasks.kinds.registry import TaskFailed

TIMEOUT_S = 5.0
NODES_MAX = 100


class DatabaseNode(msgspec.Struct, frozen=True):
    """A node that holds the database. Its `tag` is empty if it is known by its address alone."""

    tag: str
    url: str
    database: str


class _GroupMember(msgspec.Struct, rename="pascal"):
    url: str
    cluster_tag: str = ""


class _Group(msgspec.Struct, rename="pascal"):
    nodes: list[_GroupMember]


async def discover(http: HttpClient, database: str, urls: Sequence[str]) -> list[DatabaseNode]:
    """The nodes to try, in this order: the Members of the database's group as the first of these URLs that answers
    names them, then the URLs themselves, as the Members' own addresses may be out of reach from here. Raises TaskFailed
    with every reason if none answers."""
    failures: dict[str, str] = {}
    for url in urls:
        try:
            members = await _members(http, database, url)
        except HttpError as error:
            failures[url] = str(error)
            continue
        known = {member.url for member in members}
        given = [DatabaseNode("", other, database) for other in map(_plain, urls) if other not in known]
        return [*members, *given]
    raise TaskFailed(f"no node of database '{database}' can be found: {reasons(failures)}")


def reasons(failures: Mapping[str, str]) -> str:
    """Why each address failed, those together that failed in the same way."""
    alike: dict[str, list[str]] = {}
    for url, reason in failures.items():
        alike.setdefault(reason, []).append(url)
    return "; ".join(f"{', '.join(urls)}: {reason}" for reason, urls in alike.items())


async def _members(http: HttpClient, database: str, url: str) -> list[DatabaseNode]:
    answer = await http.request("GET", f"{_plain(url)}/topology?name={quote(database, safe='')}", timeout_s=TIMEOUT_S)
    try:
        topology = msgspec.convert(answer.json(), _Group)
    except msgspec.ValidationError as error:
        raise HttpUnreachable(f"{url} answers with no topology ({error}): is it a node?") from error
    return [DatabaseNode(node.cluster_tag, _plain(node.url), database) for node in topology.nodes[:NODES_MAX]]


def _plain(url: str) -> str:
    return url.rstrip("/")
