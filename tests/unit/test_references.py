"""What docstrings, comments and pages name in backticks is there: a rename leaves no name behind."""

import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest

from config.table import settings_table

ROOT = Path(__file__).parents[2]
PACKAGES = ("raftnode", "observer", "tasks", "config")
REFERENCE = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*?\))?`")
NAMED_ALIKE = {"raftnode.tasks"}
"""The group of entry points."""
SETTINGS = {setting.key for setting in settings_table()}
FILE_NAMES = (".py", ".md", ".toml")


def prose(path: Path) -> str:
    """A page, or the comments and strings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in (tokenize.STRING, tokenize.COMMENT))


def exists(name: str) -> bool:
    """Whether the dotted name is a module, or something in one. Settings, like `tasks.enabled`, are named likewise."""
    if name in SETTINGS | NAMED_ALIKE:
        return True
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            if not hasattr(found, word):
                return False
            found = getattr(found, word)
        return True
    return False


def pages() -> list[Path]:
    modules = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        *modules,
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("raftnode/**/*.md")),
    ]


@pytest.mark.parametrize(("name", "there"), [("raftnode.lease.holder", True), ("raftnode.lease.holder.Nobody", False)])
def test_a_name_that_is_not_there_is_found(name: str, there: bool) -> None:
    assert exists(name) is there


def test_every_dotted_name_in_backticks_is_there() -> None:
    named = {(path, name) for path in pages() for name in REFERENCE.findall(prose(path))}
    named = {(path, name) for path, name in named if not name.endswith(FILE_NAMES)}
    assert len(named) > 20
    assert sorted(f"{path.relative_to(ROOT)}: {name}" for path, name in named if not exists(name)) == [], (
        "correct the name, or give the module"
    )
