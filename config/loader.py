"""Settings from defaults, a profile, a TOML file, variables and flags; each overrides the one before."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from config.checks import problems as cross_problems
from config.errors import Problem, SettingsError
from config.schema import Settings
from config.table import ENV_PREFIX, Setting, sections, settings_table
from config.timings import PROFILES

NOT_SETTINGS = re.compile(
    r"RAFTNODE_(CONFIG|URL|TEST_.*|PORT|(.*_)?SERVICE_HOST|(.*_)?SERVICE_PORT(_.*)?|(.*_)?PORT_\d+_(TCP|UDP)(_.*)?)"
)
"""Variables of the command line and the tests, and those that container platforms make for a service of this name."""


@dataclass(frozen=True)
class Given:
    """A value from somewhere; `lenient` values are text that stands for another type."""

    value: Any
    source: str
    lenient: bool


def load(file: Path | None, env: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """The settings, checked. Raises SettingsError, which lists every problem at once.

    `flags` are keyed like the table: {"cluster.heartbeat_ms": "40"}. Empty variables count as not given.
    """
    found: list[Problem] = []
    given: dict[str, Given] = {}
    for layer in (_from_file(file, found), _from_env(env, found), _from_flags(flags, found)):
        given |= layer
    values = _converted(given, found)
    profile = PROFILES.get(values.get("cluster.profile", "default"), {})
    settings = _build({f"cluster.{name}": value for name, value in profile.items()} | values)
    broken = {problem.key for problem in found}
    found += [p for p in cross_problems(settings) if not broken.intersection(p.involved)]
    if found:
        raise SettingsError(found)
    return settings


def _from_file(file: Path | None, found: list[Problem]) -> dict[str, Given]:
    if file is None:
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        found.append(Problem(str(file), "", f"the file cannot be read: {error.strerror}", "Name another file"))
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        rule = f"the file cannot be read as TOML: {error}"
        found.append(Problem(str(file), "", rule, "Fix the file or name another"))
        return {}
    known = {setting.key for setting in settings_table()}
    given = {}
    for key, value in _flattened(tables):
        if key in known:
            given[key] = Given(value, str(file), lenient=False)
        else:
            found.append(_unknown(key, str(file), known))
    return given


def _flattened(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, content in tables.items():
        if section in sections() and isinstance(content, dict):
            yield from ((f"{section}.{name}", value) for name, value in content.items())
        else:
            yield section, content


def _from_env(env: Mapping[str, str], found: list[Problem]) -> dict[str, Given]:
    keys = {setting.env: setting.key for setting in settings_table()}
    given = {}
    for name, value in env.items():
        if name in keys and value:
            given[keys[name]] = Given(value, name, lenient=True)
        elif name.startswith(ENV_PREFIX) and name not in keys and not NOT_SETTINGS.fullmatch(name):
            found.append(_unknown(name, "environment", keys.keys()))
    return given


def _from_flags(flags: Mapping[str, str], found: list[Problem]) -> dict[str, Given]:
    by_key = {setting.key: setting for setting in settings_table()}
    found += [_unknown(key, "command line", by_key.keys()) for key in flags if key not in by_key]
    return {k: Given(v, by_key[k].flag, lenient=True) for k, v in flags.items() if k in by_key}


def _unknown(key: str, source: str, known: Any) -> Problem:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return Problem(key, "", "there is no such setting", f"Did you mean {nearest}?", source)


def _converted(given: Mapping[str, Given], found: list[Problem]) -> dict[str, Any]:
    values = {}
    for setting in settings_table():
        if setting.key not in given:
            continue
        one = given[setting.key]
        try:
            values[setting.key] = _convert(setting, one)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            found.append(Problem(setting.key, repr(one.value), f"must be {setting.rule}", _remedy(error), one.source))
    return values


def _remedy(error: Exception) -> str:
    """Names the part of the value that is wrong. A pattern is left out: the rule says in words what it means."""
    reason, _, part = str(error).partition(" - at ")
    what = part.strip("`") or "the value"
    return f"Fix {what}" if " matching regex " in reason else f"Fix {what} ({reason})"


def _convert(setting: Setting, given: Given) -> Any:
    if given.lenient and isinstance(setting.default, tuple):
        return msgspec.json.decode(given.value, type=setting.type)  # noqa: TID251 - this floor is below decoding
    return msgspec.convert(given.value, setting.type, strict=not given.lenient)


def _build(values: Mapping[str, Any]) -> Settings:
    parts: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        parts[section][name] = value
    built = {f.name: type(f.default)(**parts[f.name]) for f in msgspec.structs.fields(Settings)}
    return Settings(**built)
