"""Connection strings and index definitions. Their own shapes are their kinds' and their clients'."""

from raftnode.web.views.base import View


class User(View, frozen=True, kw_only=True):
    """A task that uses a connection string."""

    kind: str
    id: int
    identifier: None = None
    name: str


class IndexPut(View, frozen=True, kw_only=True):
    """An index definition that was put."""

    index: str
    raft_command_index: int


class IndexesPut(View, frozen=True, kw_only=True):
    """The index definitions that were put."""

    results: list[IndexPut]
