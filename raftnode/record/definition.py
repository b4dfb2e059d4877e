"""A task as its kind has accepted it. Kinds return it, and `PutTask` carries it through the log as it is."""

import msgspec

from raftnode.record.model import KindTraits


class TaskDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """The header that placement reads, see `record.model.Task`, and the configuration as a JSON object. The names of
    the fields are part of the journal's format."""

    name: str
    kind: str
    key: int
    mentor: str | None = None
    pinned: bool = False
    disabled: bool = False
    traits: KindTraits = KindTraits()
    requires: tuple[str, ...] = ()
    connection_string: str | None = None
    configuration: bytes = b"{}"
