"""The first words of a connection, and who is let in: pure rules, so that every refusal can be tested."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from raftnode.decoding import MsgpackDecoder

PROTOCOL_VERSION = 1
HELLO_BYTES_MAX = 4096

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Tag = Annotated[str, Meta(pattern=r"^[A-Z]{1,4}\Z")]
Code = Literal["version", "cluster", "tag", "certificate", "node", "incarnation", "unknown"]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Who is speaking: which cluster, which node, which incarnation of it, and the log index of the newest membership
    it has applied (0: it has none)."""

    version: int
    cluster: Name
    tag: Tag
    node_id: Name
    boot: int
    nonce: int
    membership_index: int


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Why the speaker is not let in, and by which membership."""

    code: Code
    text: str
    membership_index: int


_decoder: MsgpackDecoder[Hello | Refusal] = MsgpackDecoder(Hello | Refusal)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Hello | Refusal:
    """The first frame of a connection. Raises one of `UNREADABLE`."""
    return _decoder.decode(data)


@dataclass(frozen=True)
class Guard:
    """What the rest of the node says of who may come in: whether an IP address is served at all, and which node id
    the cluster has a tag under (empty: none yet)."""

    admits: Callable[[str], bool] = lambda host: True
    node_id_of: Callable[[str], str] = lambda tag: ""


@dataclass(frozen=True)
class Door:
    """What a node knows when somebody knocks: itself, the incarnations it has met, its peers' tags, the names in the
    other side's certificate (None without TLS), and the node id the cluster has the tag under (empty: none)."""

    own: Hello
    met: Mapping[str, Hello]
    peers: Collection[str]
    certificate_names: Collection[str] | None = None
    node_id: str = ""


def judge(hello: Hello, door: Door) -> Refusal | None:
    """None lets the speaker in."""
    own = door.own

    def refuse(code: Code, text: str) -> Refusal:
        return Refusal(code, text, own.membership_index)

    if hello.version != own.version:
        return refuse("version", f"Protocol version {hello.version} meets {own.version}: upgrade the older node.")
    if hello.cluster != own.cluster:
        return refuse(
            "cluster",
            f"This is cluster {own.cluster}, not {hello.cluster}: correct the addresses of one. A node whose cluster "
            "began anew without it joins again with an empty data directory.",
        )
    if hello.tag == own.tag:
        return refuse("tag", f"This node is {own.tag} itself: every node needs a tag of its own.")
    names = door.certificate_names
    if names is not None and hello.tag.lower() not in {name.lower() for name in names}:
        named = ", ".join(sorted(names)) or "nobody"
        return refuse("certificate", f"The certificate names {named}, but its subjectAltName must name {hello.tag}.")
    # Whoever knows a newer membership may have been added by it, and may be the leader who is to tell this node of it.
    knows_more = hello.membership_index > own.membership_index
    if door.node_id not in ("", hello.node_id) and not knows_more:
        return refuse("node", f"{hello.tag} is node {door.node_id} in the cluster, and not {hello.node_id}.")
    met = door.met.get(hello.tag)
    if met is not None and hello.node_id != met.node_id:
        if knows_more:
            return None
        return refuse(
            "node",
            f"{hello.tag} was node {met.node_id} and now claims to be {hello.node_id}: a node with a new directory "
            f"needs a new tag, or must be removed first.",
        )
    text = _conflict(hello, met)
    if text is not None:
        return refuse("incarnation", text)
    if hello.tag not in door.peers and not knows_more:
        return refuse("unknown", f"{hello.tag} is not in the cluster as {own.tag} knows it.")
    return None


def is_impostor(refusal: Refusal, membership_index: int) -> bool:
    """Whether a node that knows this membership is refused as not the one it was, and must end. Whoever knows no newer
    membership may only not have heard yet that the node has joined."""
    another = refusal.code == "node" and 0 < membership_index < refusal.membership_index
    return another or refusal.code == "incarnation"


def is_removed(refusal: Refusal, membership_index: int) -> bool:
    """Whether a node that knows this membership is refused as one that a newer membership does not contain."""
    return refusal.code == "unknown" and refusal.membership_index > membership_index > 0


def _conflict(hello: Hello, met: Hello | None) -> str | None:
    if met is None:
        return None
    if hello.boot < met.boot:
        return (
            f"{hello.tag} was started {met.boot} times and now claims {hello.boot}: its directory is an old copy. "
            f"Stop it, remove it from the cluster, and add it again under a new directory."
        )
    if hello.boot == met.boot and hello.nonce != met.nonce:
        return f"Two processes claim to be {hello.tag} in its start {hello.boot}: its directory was cloned. Stop one."
    return None
