"""The peers a node starts with, stored at its first start: a later start must never form another cluster.

The name of the cluster on the wire comes from `cluster.initial_nodes`, so that nodes with different lists refuse each
other from the first word. The cluster's id begins with it and is random for the rest: clusters formed of the same list
at different times are different to every sink. A forced recovery gives the cluster another name on the wire and leaves
it its id: sinks know it, and previous nodes do not get in.
"""

import hashlib
import secrets
import uuid
from pathlib import Path

import msgspec
import structlog

from config import Settings
from raftnode.cluster.identity import ClaimedDirectory, IdentityError
from raftnode.cluster.join import join
from raftnode.consensus.raft import Peer
from raftnode.foundation import atomic_files
from raftnode.foundation.decoding import DECODE_ERRORS, from_json
from raftnode.foundation.http_client import HttpClient
from raftnode.record.commands import FormCluster
from raftnode.record.model import ClusterNode, Timings

log = structlog.get_logger(__name__)

FILE = "cluster.json"
WIRE_ID_LENGTH = 16


class Bootstrap(msgspec.Struct, frozen=True):
    """What the wire calls the cluster, and the peers Raft starts with."""

    wire_id: str
    peers: tuple[Peer, ...]


async def formation_of(
    settings: Settings,
    data_dir: Path,
    claimed: ClaimedDirectory,
    http: HttpClient,
    *,
    join_url: str | None,
    watcher: bool,
) -> Bootstrap:
    """The formation of the first start, or a new one. Raises JoinRefused, or IdentityError for a damaged file."""
    path = data_dir / FILE
    if path.exists():
        try:
            known = from_json(path.read_bytes(), Bootstrap)
        except DECODE_ERRORS as error:
            raise IdentityError(
                f"{path} is damaged ({error}). Restore it, or empty the directory, remove the node from the cluster "
                "and let it join again."
            ) from error
        if join_url is not None:
            log.info("This node stays in the cluster that it joined before; --join counts once.", asked=join_url)
        return known
    if join_url is None:
        bootstrap = _initial(settings)
    else:
        wire_id, peers = await join(
            http,
            join_url,
            tag=settings.node.tag,
            node_id=claimed.own.node_id,
            url=settings.url,
            address=settings.cluster_address,
            watcher=watcher,
        )
        bootstrap = Bootstrap(wire_id, tuple(peers))
    store(data_dir, bootstrap)
    return bootstrap


def store(data_dir: Path, bootstrap: Bootstrap) -> None:
    """Makes the formation the one the node starts with; durable when this returns. Raises OSError."""
    atomic_files.write(data_dir / FILE, msgspec.json.encode(bootstrap))


def of_a_new_cluster(settings: Settings, address: str | None = None) -> Bootstrap:
    """The formation of this node alone, under a name that no other cluster has on the wire: nodes of an older one are
    refused from the first word."""
    return Bootstrap(
        secrets.token_hex(WIRE_ID_LENGTH // 2), (Peer(settings.node.tag, address or settings.cluster_address),)
    )


def new_cluster_id(bootstrap: Bootstrap) -> str:
    """An id for a cluster that forms: to every sink it is another cluster than all before."""
    return f"{bootstrap.wire_id}-{uuid.uuid4().hex}"


def form_of(settings: Settings, bootstrap: Bootstrap) -> FormCluster:
    """The command by which this node would form the cluster."""
    listed = settings.cluster.initial_nodes
    nodes = [ClusterNode(tag=node.tag, url=node.url, cluster_address=node.cluster_address) for node in listed]
    if not nodes:
        alone = ClusterNode(tag=settings.node.tag, url=settings.url, cluster_address=settings.cluster_address)
        nodes = [alone]
    cluster = settings.cluster
    return FormCluster(
        cluster_id=new_cluster_id(bootstrap),
        nodes=tuple(nodes),
        timings=Timings(
            heartbeat_ms=cluster.heartbeat_ms,
            lease_ms=cluster.lease_ms,
            task_stop_timeout_ms=cluster.task_stop_timeout_ms,
            time_before_moving_to_rehab_ms=cluster.time_before_moving_to_rehab_ms,
        ),
    )


def _initial(settings: Settings) -> Bootstrap:
    listed = settings.cluster.initial_nodes
    peers = [Peer(node.tag, node.cluster_address) for node in listed]
    peers = peers or [Peer(settings.node.tag, settings.cluster_address)]
    text = "\n".join(sorted(f"{peer.tag} {peer.address}" for peer in peers))
    return Bootstrap(hashlib.sha256(text.encode()).hexdigest()[:WIRE_ID_LENGTH], tuple(peers))
