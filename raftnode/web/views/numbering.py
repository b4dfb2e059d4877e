"""Numbers that clients make ids of."""

from raftnode.web.views.base import View


class HiloRange(View, frozen=True, kw_only=True):
    """A range of numbers, both ends included. Ids are the prefix, the number, a dash, and the node's tag."""

    prefix: str
    low: int
    high: int
    last_size: int
    server_tag: str
    last_range_at: str


class NextIdentity(View, frozen=True, kw_only=True):
    """The next value of an identity."""

    new_identity_value: int


class IdentitySeeded(View, frozen=True, kw_only=True):
    """An identity's value after it was set."""

    new_seed_value: int
