"""What the pages say that a machine can check: routes, commands, files, names and links."""

import ast
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from config.__main__ import ROOT
from raftnode.cli.main import cli
from raftnode.web.app import AREAS

TREE = ("raftnode", "observer", "tasks", "config", "tests", "scripts", "docs")
PAGES = sorted(page for pattern in ("*.md", "docs/**/*.md", "raftnode/**/*.md") for page in ROOT.glob(pattern))
OF_THE_CODE = [page for page in PAGES if page.name in ("ARCHITECTURE.md", "DESIGN.md")]
FILES_OF_READERS = {"raftnode_lines.py", "config.py", "tasks.py", "/etc/raftnode/a.toml"}
"""Files that the pages name and that are not the project's."""
CODE = re.compile(r"(?ms)^```\w*\n(.*?)^```|`([^`\n]+)`")
FILE = re.compile(r"[\w./*-]+\.(?:py|md|toml)\b")
BLOCK = re.compile(r"(?ms)^```(?:sh)?\n(.*?)^```")
HERE_DOCUMENT = re.compile(r"(?ms) <<'(\w+)'$.*?^\1$")
COMMAND = re.compile(r"(?:/opt/raftnode/bin/)?raftnode(?= |$)|python -m raftnode(?= |$)")
DATABASE = "/databases/{database}"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def named_routes(page: str) -> set[tuple[str, str]]:
    """Every method and path that stands at the head of a table's row or of a paragraph, or in a sentence as code."""
    page = page.replace("{id or name}", "{task}").replace("{db}", "{database}")
    heads = re.findall(r"(?m)^\| ((?:GET|PUT|POST|PATCH|DELETE|RESET) /[^|]*)\|", page)
    heads += re.findall(r"\*\*([A-Z]+ /[^*]*)\*\*", page) + re.findall(r"`([A-Z]+ /[^`]*)`", page)
    return set(re.findall(r"\b([A-Z]+) (/[\w/{}.-]*)", "\n".join(heads)))


def test_every_route_stands_in_the_page_of_routes_and_no_other() -> None:
    named = {
        ("POST" if method == "RESET" else method, path) for method, path in named_routes(text(ROOT / "docs/http.md"))
    }
    routes = {(route.method, route.path) for area in AREAS for route in area.routes()}
    missing = {(m, path) for m, path in routes if not {(m, path), (m, path.removeprefix(DATABASE))} & named}
    unknown = {(m, path) for m, path in named if not {(m, path), (m, DATABASE + path)} & routes}
    assert (sorted(missing), sorted(unknown)) == ([], [])


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command by its words."""
    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, (*words, name))


def test_every_command_stands_in_the_page_of_commands_as_it_is_typed() -> None:
    lines = [
        f"{line.partition('#')[0].strip()} " for line in "".join(BLOCK.findall(text(ROOT / "docs/cli.md"))).split("\n")
    ]
    missing = [words for words in commands(cli) if not any(line.startswith(f"raftnode {words} ") for line in lines)]
    assert missing == []


def found_in(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words mean, and what is left for it."""
    command: click.Command = cli
    if words[:1] == ["--url"]:
        words = words[2:]
    if not words or words[0].startswith("-"):
        words = ["run", *words]
    while isinstance(command, click.Group) and words:
        below = command.get_command(click.Context(command), words[0])
        assert below is not None, f"{command.name} has no command {words[0]!r}"
        command, words = below, words[1:]
    return command, words


def typed(page: str) -> Iterator[str]:
    """The commands of raftnode in the page's blocks, without their comments and what they read."""
    for block in BLOCK.findall(page):
        for line in HERE_DOCUMENT.sub("", block.replace("\\\n", " ")).splitlines():
            if found := COMMAND.match(line):
                yield line[found.end() :]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_in_a_block_is_one_that_can_be_typed(page: Path, tmp_path: Path) -> None:
    for line in typed(text(page)):
        command, words = found_in(shlex.split(line, comments=True))
        files = [p.name for p in command.params if isinstance(p.type, click.File)]
        given = ["-" if files and word.endswith((".json", ".jsonl")) else word for word in words]
        assert not isinstance(command, click.Group), line
        with command.make_context(line, given):
            pass


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_and_option_in_a_sentence_exists(page: Path) -> None:
    for line in re.findall(r"`raftnode ([a-z-][^`]*)`", BLOCK.sub("", text(page))):
        command, words = found_in([word for word in line.split() if word != "…"])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word not in options]
        assert unknown == [], line
        assert not isinstance(command, click.Group) or not words, line


def code(page: Path) -> str:
    """What stands in the page's blocks and backticks, a line each."""
    return "\n".join(block or span for block, span in CODE.findall(text(page)))


@cache
def files() -> frozenset[str]:
    """The project's files, and each also by the last parts of its path."""
    paths = [path for name in TREE for path in (ROOT / name).rglob("*") if path.is_file()]
    parts = [path.relative_to(ROOT).parts for path in (*paths, *ROOT.glob("*.*"))]
    return frozenset("/".join(each[at:]) for each in parts for at in range(len(each)))


def test_what_is_not_there_is_found() -> None:
    assert "documents/store/body.py" in files()
    assert "documents/store/bodies.py" not in files()
    assert defined("record/machine.py", "apply")
    assert not defined("record/machine.py", "applied")
    assert member("Journal", "sync")
    assert not member("Journal", "synced")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_file_and_link_leads_somewhere(page: Path) -> None:
    named = re.findall(rf"(?:^|[\s(\"'])((?:{'|'.join(TREE)})/[\w./*-]*)", code(page))
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/")))] == []
    named = [path for path in FILE.findall(code(page)) if "*" not in path and path not in FILES_OF_READERS]
    assert [path for path in named if path not in files()] == []
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text(page))):
        if not target.startswith("http"):
            file = page.parent / target if target else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(text(file)), f"{target}#{anchor}"


def test_every_script_and_module_that_is_run_exists_with_its_options() -> None:
    lines = [(page.name, line) for page in PAGES for line in code(page).split("\n")]
    ran = [(page, *found) for page, line in lines for found in re.findall(r"(scripts/\w[\w-]*)([^#|]*)", line)]
    assert len(ran) > 40
    for page, script, rest in ran:
        assert os.access(ROOT / script, os.X_OK), f"{page}: {script}"
        given = rest.partition("--tests")[0] if script == "scripts/test" else rest
        source = text(ROOT / script) + text(ROOT / "tests/mutation/__main__.py") * (script == "scripts/mutate")
        source += text(ROOT / "raftnode/cli/demo.py") * (script == "scripts/demo")
        for option in re.findall(r"--[\w-]+", given):
            assert f'"{option}"' in source or f"{option})" in source or f"{option} ]" in source, (
                f"{page}: {script} {option}"
            )
    for page, line in lines:
        for module in re.findall(r"python -m ([\w.]+)", line):
            assert find_spec(module) is not None, f"{page}: {module}"


def test_every_request_of_an_example_has_a_route() -> None:
    routes = [(route.method, re.sub(r"{\w+}", "[^/]+", route.path)) for area in AREAS for route in area.routes()]
    sent = [
        found for page in PAGES for found in re.findall(r"curl( -X \w+)? '?localhost:8080(/[^\s?']*)(.*)", code(page))
    ]
    assert len(sent) > 4
    for method, path, rest in sent:
        default = "POST" if " -d " in rest else "GET"
        asked = method.removeprefix(" -X ") or default
        assert any(asked == known and re.fullmatch(pattern, path) for known, pattern in routes), f"{asked} {path}"


def sources() -> list[Path]:
    """The modules of the product."""
    return [path for name in TREE[:4] for path in (ROOT / name).rglob("*.py")]


def defined(file: str, name: str) -> bool:
    """Whether a module of that path has a function or class of that name."""
    found = [node for path in sources() if path.as_posix().endswith(f"/{file}") for node in ast.parse(text(path)).body]
    return any(getattr(node, "name", None) == name for node in found)


@cache
def members() -> dict[str, set[str]]:
    """What each class of the product has: its methods, fields, and the attributes that it sets."""
    found: dict[str, set[str]] = {}
    for path in sources():
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.ClassDef):
                own = {getattr(each, "name", None) or getattr(each, "attr", None) for each in ast.walk(node)}
                own |= {
                    each.target.id
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and hasattr(each.target, "id")
                }
                found.setdefault(node.name, set()).update(name for name in own if isinstance(name, str))
    return found


def member(owner: str, name: str) -> bool:
    return name in members().get(owner, set())


@pytest.mark.parametrize("page", OF_THE_CODE, ids=page_id)
def test_every_name_in_a_page_about_the_code_exists(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", text(page))
    for file, name in re.findall(r"(?m)^([\w/]+\.py): (\w+)$", "\n".join(spans)):
        assert defined(file, name) or name in members(), f"{file}: {name}"
    for owner, name in re.findall(r"(?m)^(?:[\w/]+\.py: )?([A-Z]\w+)\.([a-z]\w*)(?:\(\))?$", "\n".join(spans)):
        assert member(owner, name), f"{owner}.{name}"
    for owner, file in re.findall(r"`(\w+)` \(`([\w/]+\.py)`\)", text(page)):
        assert defined(file, owner), f"{file}: {owner}"


def anchors(page: str) -> list[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
