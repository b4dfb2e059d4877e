"""The first words of a connection, and who is let in: pure rules, so that every refusal can be tested."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from raftnode.foundation.decoding import MsgpackDecoder
from raftnode.foundation.incarnation import NodeIncarnation

PROTOCOL_VERSION = 4
"""Raised with the record's schema version too: nodes that apply commands differently must not talk."""
HELLO_BYTES_MAX = 4096

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Tag = Annotated[str, Meta(pattern=r"^[A-Z]{1,4}\Z")]
Code = Literal["version", "cluster", "tag", "certificate", "node", "incarnation", "undecided", "unknown"]


class Handshake(msgspec.Struct, frozen=True, array_like=True, tag="Hello"):
    """Who is speaking: which cluster, which node, which incarnation of it, and the log index of the newest membership
    it has applied (0: it has none)."""

    version: int
    cluster: Name
    tag: Tag
    node_id: Name
    boot: int
    nonce: int
    membership_index: int


def handshake_of(cluster_id: str, own: NodeIncarnation, membership_index: int) -> Handshake:
    """What this process says first, once it has applied that membership."""
    return Handshake(PROTOCOL_VERSION, cluster_id, own.tag, own.node_id, own.boot, own.nonce, membership_index)


class HandshakeRefusal(msgspec.Struct, frozen=True, array_like=True, tag="Refusal"):
    """Why the speaker is not let in, and by which membership."""

    code: Code
    text: str
    membership_index: int


_decoder: MsgpackDecoder[Handshake | HandshakeRefusal] = MsgpackDecoder(Handshake | HandshakeRefusal)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Handshake | HandshakeRefusal:
    """The first frame of a connection. Raises one of `DECODE_ERRORS`."""
    return _decoder.decode(data)


class AnnouncedProcess(NamedTuple):
    """The process that the record has of a node."""

    node_id: str
    boot: int
    nonce: int


@dataclass(frozen=True)
class PeerPolicy:
    """What the rest of the node says of who may come in: whether an IP address is served at all, which node id
    the cluster has a tag under (empty: none yet), and which process of it has announced itself (None: none yet)."""

    admits: Callable[[str], bool] = lambda host: True
    node_id_of: Callable[[str], str] = lambda tag: ""
    announced: Callable[[str], AnnouncedProcess | None] = lambda tag: None


@dataclass(frozen=True)
class HandshakeContext:
    """What a node knows when somebody knocks: itself, whom it has met and is connected with, its peers' tags, the names
    in the other side's certificate (None without TLS), the node id the cluster has the tag under (empty: none), and the
    process of the node that the record has (None: none)."""

    own: Handshake
    met: Mapping[str, Handshake]
    peers: Collection[str]
    certificate_names: Collection[str] | None = None
    node_id: str = ""
    announced: AnnouncedProcess | None = None
    connected: Collection[str] = ()


def judge(handshake: Handshake, context: HandshakeContext) -> HandshakeRefusal | None:
    """None lets the speaker in."""
    own = context.own

    def refuse(code: Code, text: str) -> HandshakeRefusal:
        return HandshakeRefusal(code, text, own.membership_index)

    if handshake.version != own.version:
        return refuse("version", f"Protocol version {handshake.version} meets {own.version}: upgrade the older node.")
    if handshake.cluster != own.cluster:
        return refuse(
            "cluster",
            f"This is cluster {own.cluster}, not {handshake.cluster}: correct the addresses of one. A node whose "
            "cluster began again without it joins again with an empty data directory.",
        )
    if handshake.tag == own.tag:
        return refuse("tag", f"This node is {own.tag} itself: every node needs a tag of its own.")
    names = context.certificate_names
    if names is not None and handshake.tag.lower() not in {name.lower() for name in names}:
        named = ", ".join(sorted(names)) or "nobody"
        return refuse(
            "certificate", f"The certificate names {named}, but its subjectAltName must name {handshake.tag}."
        )
    # Whoever knows a newer membership may have been added by it, and may be the leader who is to tell this node of it.
    knows_more = handshake.membership_index > own.membership_index
    if context.node_id not in ("", handshake.node_id) and not knows_more:
        return refuse("node", f"{handshake.tag} is node {context.node_id} in the cluster, and not {handshake.node_id}.")
    met = context.met.get(handshake.tag)
    if met is not None and handshake.node_id != met.node_id:
        if knows_more:
            return None
        return refuse(
            "node",
            f"{handshake.tag} was node {met.node_id} and now claims to be {handshake.node_id}: a node with a new "
            f"directory needs a new tag, or must be removed first.",
        )
    text = superseded(handshake, context.announced)
    if text is not None:
        return refuse("incarnation", text)
    if met is not None and handshake.tag in context.connected and not _follows(met, handshake, context.announced):
        return refuse(
            "undecided",
            f"{handshake.tag} is connected as another process of its start {met.boot}, and the cluster has yet to hear "
            f"which of the two it is to take.",
        )
    if handshake.tag not in context.peers and not knows_more:
        return refuse("unknown", f"{handshake.tag} is not in the cluster as {own.tag} knows it.")
    return None


def is_impostor(refusal: HandshakeRefusal, membership_index: int) -> bool:
    """Whether a node that knows this membership is refused as not the one it was, and must end. Whoever knows no newer
    membership may only not have heard yet that the node has joined."""
    another = refusal.code == "node" and 0 < membership_index < refusal.membership_index
    return another or refusal.code == "incarnation"


def is_removed(refusal: HandshakeRefusal, membership_index: int) -> bool:
    """Whether a node that knows this membership is refused as one that a newer membership does not contain."""
    return refusal.code == "unknown" and refusal.membership_index > membership_index > 0


def superseded(handshake: Handshake, announced: AnnouncedProcess | None) -> str | None:
    """Why this process is not, and can never again be, the one that the cluster takes for the node; None if it may be.
    The record decides, as memory ends with the process, and two nodes may have met different ones."""
    if announced is None or announced.node_id != handshake.node_id or announced.nonce == 0:
        return None
    if (handshake.boot, handshake.nonce) == (announced.boot, announced.nonce) or handshake.boot > announced.boot:
        return None
    return (
        f"Another process runs as {handshake.tag} since start {announced.boot} of its data directory, and this one is "
        f"start {handshake.boot} of the same: the directory was copied, or is an old copy, or its lock was deleted. "
        f"Stop this one; a copy may join under a new tag, with an empty directory."
    )


def _follows(met: Handshake, handshake: Handshake, announced: AnnouncedProcess | None) -> bool:
    """Whether the speaker is the one who is connected, a later start, or the one of two of a start whom the record has.

    A later start is not sent away for the one that the record has: it is about to announce itself, and must be heard.
    """
    if handshake.boot != met.boot:
        return handshake.boot > met.boot
    return handshake.nonce == met.nonce or announced == (handshake.node_id, handshake.boot, handshake.nonce)
