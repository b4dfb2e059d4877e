"""How maps of the record are written, in msgpack and in JSON, and read again."""

from typing import Any, get_args, get_origin

import msgspec
from immutables import Map


def enc_hook(value: Any) -> Any:
    if isinstance(value, Map):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in the record")


def dec_hook(kind: type, value: Any) -> Any:
    if get_origin(kind) is Map:
        key, item = get_args(kind)
        return Map(msgspec.convert(value, dict[key, item], dec_hook=dec_hook))  # type: ignore[valid-type]
    raise NotImplementedError(f"{kind} has no place in the record")
