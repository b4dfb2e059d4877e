"""With whom a node starts: kept from its first start on, as a later start must never form another cluster.

The name of the cluster on the wire comes from `cluster.initial_nodes`, so that nodes with different lists refuse each
other from the first word. The cluster's id begins with it and is random for the rest: clusters formed of the same list
at different times are different to every sink.
"""

import hashlib
import uuid
from pathlib import Path

import msgspec

from config import Settings
from raftnode.consensus.raft import Peer
from raftnode.http import Http
from raftnode.identity import Identity, IdentityError
from raftnode.joining import join
from raftnode.record.commands import FormCluster
from raftnode.record.model import ClusterNode, Timings

FILE = "cluster.json"
WIRE_ID_LENGTH = 16


class Formation(msgspec.Struct, frozen=True):
    """What the wire calls the cluster, and the peers Raft starts with."""

    wire_id: str
    peers: tuple[Peer, ...]


async def formation_of(
    settings: Settings, data_dir: Path, identity: Identity, http: Http, *, join_url: str | None, watcher: bool
) -> Formation:
    """The formation of the first start, or a new one. Raises JoinRefused, or IdentityError for a damaged file."""
    path = data_dir / FILE
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Formation)
        except msgspec.DecodeError as error:
            raise IdentityError(
                f"{path} is damaged ({error}). Restore it, or empty the directory, remove the node from the cluster "
                "and let it join anew."
            ) from error
    if join_url is None:
        formation = _initial(settings)
    else:
        cluster_id, peers = await join(
            http,
            join_url,
            tag=settings.node.tag,
            node_id=identity.node_id,
            url=settings.url,
            address=settings.cluster_address,
            watcher=watcher,
        )
        formation = Formation(cluster_id.partition("-")[0], tuple(peers))
    new = path.with_name(FILE + ".new")
    new.write_bytes(msgspec.json.encode(formation))
    new.replace(path)
    return formation


def form_of(settings: Settings, formation: Formation) -> FormCluster:
    """The command by which this node would form the cluster."""
    listed = settings.cluster.initial_nodes
    nodes = [ClusterNode(tag=node.tag, url=node.url, cluster_address=node.cluster_address) for node in listed]
    if not nodes:
        alone = ClusterNode(tag=settings.node.tag, url=settings.url, cluster_address=settings.cluster_address)
        nodes = [alone]
    cluster = settings.cluster
    return FormCluster(
        cluster_id=f"{formation.wire_id}-{uuid.uuid4().hex}",
        nodes=tuple(nodes),
        timings=Timings(
            heartbeat_ms=cluster.heartbeat_ms,
            lease_ms=cluster.lease_ms,
            task_stop_timeout_ms=cluster.task_stop_timeout_ms,
            time_before_moving_to_rehab_ms=cluster.time_before_moving_to_rehab_ms,
        ),
    )


def _initial(settings: Settings) -> Formation:
    listed = settings.cluster.initial_nodes
    peers = [Peer(node.tag, node.cluster_address) for node in listed]
    peers = peers or [Peer(settings.node.tag, settings.cluster_address)]
    text = "\n".join(sorted(f"{peer.tag} {peer.address}" for peer in peers))
    return Formation(hashlib.sha256(text.encode()).hexdigest()[:WIRE_ID_LENGTH], tuple(peers))
