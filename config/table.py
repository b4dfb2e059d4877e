"""The settings of `config.schema` as rows, for the loader, the command line and the reference page."""

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import Meta

from config.schema import Settings

ENV_PREFIX = "RAFTNODE_"


@dataclass(frozen=True)
class Setting:
    """One row. `type` is what msgspec converts a value to; `rule` says in words which values are taken.

    `alias` is a second, shorter flag, or empty.
    """

    section: str
    name: str
    type: Any
    unit: str
    default: Any
    rule: str
    meaning: str
    alias: str

    @property
    def key(self) -> str:
        """The TOML key with its section: "cluster.heartbeat_ms"."""
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        """The variable: "RAFTNODE_CLUSTER_HEARTBEAT_MS"."""
        return f"{ENV_PREFIX}{self.section}_{self.name}".upper()

    @property
    def flag(self) -> str:
        """The flag: "--cluster.heartbeat-ms"."""
        return f"--{self.section}.{self.name.replace('_', '-')}"


@cache
def settings_table() -> tuple[Setting, ...]:
    """Every setting, in the order of the schema."""
    sections = msgspec.structs.fields(Settings)
    return tuple(
        _setting(section.name, field) for section in sections for field in msgspec.structs.fields(type(section.default))
    )


@cache
def sections() -> dict[str, str]:
    """The sections and what each is about."""
    return {s.name: (type(s.default).__doc__ or "").strip() for s in msgspec.structs.fields(Settings)}


def _setting(section: str, field: msgspec.structs.FieldInfo) -> Setting:
    base, *metas = get_args(field.type)
    merged: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for meta in metas:
        assert isinstance(meta, Meta)
        extra |= meta.extra or {}
        given = {n: getattr(meta, n) for n in ("ge", "le", "min_length", "description")}
        merged |= {n: value for n, value in given.items() if value is not None}
    return Setting(
        section=section,
        name=field.name,
        type=field.type,
        unit=extra.get("unit", ""),
        default=field.default,
        rule=_rule(base, merged, extra),
        meaning=merged["description"],
        alias=extra.get("alias", ""),
    )


def _rule(base: Any, merged: dict[str, Any], extra: dict[str, Any]) -> str:
    if base is int:
        unit = f" {extra['unit']}" if extra.get("unit") else ""
        return f"a whole number from {merged['ge']} to {merged['le']}{unit}"
    choices = get_args(base)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    if extra.get("form"):
        return str(extra["form"])
    return "text that is not empty" if merged.get("min_length") else "text"
