"""Errors, in RavenDB's shape."""

from raftnode.web.views.base import View


class ErrorView(View, frozen=True, kw_only=True):
    """An error: the request's path, RavenDB's exception name, and a sentence with the remedy, twice. Some have details
    beside these fields."""

    url: str
    type: str
    message: str
    error: str
