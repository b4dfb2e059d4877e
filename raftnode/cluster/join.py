"""How a new node joins a running cluster: it asks any node of it, over HTTP, to be taken in."""

import asyncio

import msgspec
import structlog

from raftnode.consensus.raft import Peer
from raftnode.foundation.addresses import split_url
from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.http_client import HttpClient, HttpError, HttpFailed
from raftnode.foundation.masking import in_text

log = structlog.get_logger(__name__)

RETRY_SEC = 0.5
TIMEOUT_SEC = 60.0


class _Node(msgspec.Struct, frozen=True, rename="pascal"):
    tag: str
    cluster_address: str
    kind: str
    node_id: str


class _Joined(msgspec.Struct, frozen=True, rename="pascal"):
    """What the cluster answers to a node that it has taken in."""

    cluster_id: str
    wire_id: str
    nodes: list[_Node]


class JoinRefused(Exception):
    """The cluster does not take the node, or cannot be reached; the message says why."""


async def join(
    http: HttpClient, cluster_url: str, *, tag: str, node_id: str, url: str, address: str, watcher: bool
) -> tuple[str, list[Peer]]:
    """The cluster's name on the wire and its Raft peers, this node among them. Tries again while the cluster
    cannot answer. Raises JoinRefused.
    """
    shown = in_text(cluster_url)
    _check_url(cluster_url, secured=url.startswith("https://"))
    said = {"Tag": tag, "NodeId": node_id, "Url": url, "ClusterAddress": address, "Watcher": watcher}
    reason = ""
    try:
        async with asyncio.timeout(TIMEOUT_SEC):
            while True:
                try:
                    answer = await http.request(
                        "PUT", f"{cluster_url.rstrip('/')}/admin/cluster/node", json=said, timeout_s=15
                    )
                    break
                except HttpFailed as error:
                    if error.status < 500:
                        why = error.message if error.type else str(error)
                        raise JoinRefused(f"The cluster at {shown} refuses this node: {why}") from error
                    reason = str(error)
                except HttpError as error:
                    reason = str(error)
                log.info("This node could not join; it is tried again.", cluster=cluster_url, reason=reason)
                await asyncio.sleep(RETRY_SEC)
    except TimeoutError:
        raise JoinRefused(f"The cluster at {shown} did not answer in {TIMEOUT_SEC:.0f} s: {reason}") from None
    try:
        joined = from_json(answer.body, _Joined)
    except DECODE_ERRORS as error:
        raise JoinRefused(
            f"{shown} answers, but not as a node of a cluster does ({error}). Give the HTTP address of one (--join)."
        ) from error
    log.info(
        "This node has joined the cluster.", cluster=cluster_url, cluster_id=joined.cluster_id, peers=len(joined.nodes)
    )
    nodes = joined.nodes
    return joined.wire_id, [Peer(n.tag, n.cluster_address, voter=n.kind == "Member", node_id=n.node_id) for n in nodes]


def _check_url(cluster_url: str, *, secured: bool) -> None:
    """Refuses at once what no attempt can make good."""
    wanted = "https" if secured else "http"
    given = split_url(cluster_url)
    if given is None:
        raise JoinRefused(
            f"--join is {in_text(cluster_url)!r}; it must be the address of a node of the cluster, like "
            f"{wanted}://host:8080."
        )
    if given.scheme != wanted:
        have = "has certificates" if secured else "has no certificates (security.certificate_file)"
        raise JoinRefused(
            f"--join is {in_text(cluster_url)!r}, but this node {have}: the address must begin with {wanted}://, like "
            "those of all nodes of one cluster."
        )
