"""What every answer has in common. The views are structs, by which routes answer and the command line reads."""

from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

import msgspec

from raftnode.record.encoding import dec_hook

Shown = TypeVar("Shown")
Made = TypeVar("Made", bound=msgspec.Struct)

Json = dict[str, Any]
"""A JSON object whose shape is its owner's: a document, a task's configuration, an index definition."""


class View(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of the answers. Whoever reads one skips fields that it does not know."""


def view(kind: type[Made], value: msgspec.Struct, **more: Any) -> Made:
    """A `kind` with the fields that it shares with the value, and those given."""
    fields = {name: getattr(value, name) for name in _shared(kind, type(value))}
    return kind(**fields | more)


@cache
def _shared(kind: type[msgspec.Struct], source: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name in source.__struct_fields__ if name in kind.__struct_fields__)


def members(value: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """The names in JSON and the values of the fields, for answers that are made in slices."""
    for name, shown in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        yield shown, getattr(value, name)


def read(answer: Any, kind: type[Shown]) -> Shown:
    """The JSON of an answer as that view. Raises msgspec.ValidationError."""
    return msgspec.convert(answer, kind, dec_hook=dec_hook)


def epoch(value: int) -> str:
    """An epoch, as text: after a recovery it takes more than the 53 bits that JavaScript and jq keep of a number."""
    return str(value)


class Committed(View, frozen=True, kw_only=True):
    """The log index of a command that took effect."""

    raft_command_index: int
