"""One process of a node: what the record, the wire and a node itself call it by."""

import msgspec


class NodeIncarnation(msgspec.Struct, frozen=True):
    """The node's tag, the id that was made with its data directory (32 hex digits), how often that directory was
    started, from 1, and the random nonce of the process. Two processes on copies of one directory differ in the nonce
    alone."""

    tag: str
    node_id: str
    boot: int
    nonce: int
