"""Keeps our top-level packages apart from modules of users that have the same name: config, tasks and observer.

The code of a plug-in, or the directory in which a node is started, may have a config.py of its own, and Python knows a
module by its name alone: `import config` would give one of the two to everybody. So `install` changes two things in
this process:

- ours are found in the directory of this package, whatever stands before it on `sys.path`;
- an `import` of one of these names, written in code that is not ours, gives the user's module if there is one. In
  `sys.modules` it is `theirs_config`, `theirs_tasks` or `theirs_observer`.
"""

import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

SHARED = ("config", "tasks", "observer")
OURS = ("raftnode", *SHARED, "__main__")
PREFIX = "theirs_"
HOME = Path(__file__).resolve().parents[2]

_import = builtins.__import__


def install() -> None:
    """For the rest of this process. To be called before anything of ours is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        builtins.__import__ = _import_by_importer


def users_name(name: str) -> str:
    """The name under which the module of that name is known that a user's code means: the name itself if it is none of
    ours, or there is only ours."""
    top, dot, rest = name.partition(".")
    if top not in SHARED:
        return name
    spec = _spec(top)
    if spec is None:
        return name
    if rest and PathFinder.find_spec(rest.partition(".")[0], spec.submodule_search_locations or []) is None:
        return name
    return f"{PREFIX}{top}{dot}{rest}"


class _Finder(MetaPathFinder):
    """Finds ours in their home, and theirs under their other name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        if fullname in SHARED:
            return PathFinder.find_spec(fullname, [str(HOME)], target)
        top = fullname.removeprefix(PREFIX)
        if top == fullname or top not in SHARED:
            return None
        found = _spec(top)
        if found is None or found.origin is None:
            return None
        return spec_from_file_location(
            fullname, found.origin, submodule_search_locations=found.submodule_search_locations
        )


def _spec(top: str) -> ModuleSpec | None:
    """Where a user's module of that name is. Directories without an __init__.py are no modules of anybody's."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != HOME]
    found = PathFinder.find_spec(top, elsewhere)
    return found if found is not None and found.origin is not None else None


def _import_by_importer(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    importer = str((globals or {}).get("__name__", ""))
    if level == 0 and name.partition(".")[0] in SHARED and importer.partition(".")[0] not in OURS:
        name = users_name(name)
    return _import(name, globals, locals, fromlist or (), level)
