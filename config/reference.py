"""`docs/settings.md` and `config/default.toml`, written from the table."""

import textwrap
from typing import Any

import msgspec

from config.table import Setting, sections, settings_table
from config.timings import PROFILES
from raftnode.foundation.clock_margins import FACTOR_TEXT, MARGIN_MS

HEAD = """# Settings

Written by `python -m config` from the table in `config/schema.py`; do not edit.

A setting comes from the first of these that gives it: a flag (`--cluster.heartbeat-ms 40`), an environment
variable (`RAFTNODE_CLUSTER_HEARTBEAT_MS=40`), the TOML file (`[cluster]`, `heartbeat_ms = 40`), the profile, the
default. An unknown name, a value out of range and timings that do not fit each other are refused at start,
all of them at once, each with its rule and its remedy. Empty environment variables count as not given.
"""

TIMING_RULES = f"""
The timings must fit each other:

- `election_min_ms` >= 2 x `heartbeat_ms`, and `election_max_ms` > `election_min_ms`;
- `lease_ms` >= `election_max_ms` + 3 x `heartbeat_ms`, so that a leader's crash stops nobody else's tasks;
- `time_before_moving_to_rehab_ms` >= (`lease_ms` + `task_stop_timeout_ms`) x {FACTOR_TEXT} + {MARGIN_MS}, so that a \
silent node's
  tasks have ended before another node starts them.
"""


def settings_md() -> str:
    """The reference page."""
    parts = [HEAD]
    for section, about in sections().items():
        parts += [f"\n## {section}\n\n{about}\n"]
        parts += [_entry(setting) for setting in settings_table() if setting.section == section]
        if section == "cluster":
            parts += ["\n### Profiles\n", TIMING_RULES, "\n", _profiles()]
    return "".join(parts)


def default_toml() -> str:
    """A settings file with every setting at its default, each commented out, so that profiles still count."""
    lines = ["# Every setting at its default. Uncomment what you change. docs/settings.md has the ranges.", ""]
    for section, about in sections().items():
        lines += [f"# {about}", f"[{section}]"]
        for setting in settings_table():
            if setting.section == section:
                meaning = f"# {setting.meaning} ({setting.rule})."
                lines += textwrap.wrap(meaning, 100, subsequent_indent="# ")
                lines += [f"#{setting.name} = {literal(setting.default)}"]
        lines += [""]
    return "\n".join(lines)


def _entry(setting: Setting) -> str:
    flags = " or ".join(f"`{flag}`" for flag in (setting.flag, setting.alias) if flag)
    default = literal(setting.default)
    unit = f" {setting.unit}" if setting.unit else ""
    return (
        f"\n**`{setting.key}`** = `{default}`{unit}: {setting.meaning}.  \n"
        f"Takes {setting.rule}. Flag {flags}, variable `{setting.env}`.\n"
    )


def _profiles() -> str:
    names = list(PROFILES)
    rows = ["| setting | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for timing in PROFILES["default"]:
        rows.append(f"| `{timing}` | " + " | ".join(str(PROFILES[name][timing]) for name in names) + " |")
    return "\n".join(rows) + "\n"


def literal(value: Any) -> str:
    return msgspec.json.encode(value).decode()
