"""What the pages say that a machine can check: routes, commands, files and links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from config.__main__ import ROOT
from raftnode.cli.main import cli
from raftnode.web.app import AREAS

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
BLOCK = re.compile(r"(?ms)^```(?:sh)?\n(.*?)^```")
HERE_DOCUMENT = re.compile(r"(?ms) <<'(\w+)'$.*?^\1$")
COMMAND = re.compile(r"(?:/opt/raftnode/bin/)?raftnode(?= |$)|python -m raftnode(?= |$)")
DATABASE = "/databases/{database}"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named_routes(page: str) -> set[tuple[str, str]]:
    """Every method and path that stands at the head of a table's row or of a paragraph, or in a sentence as code."""
    page = page.replace("{id or name}", "{task}").replace("{db}", "{database}")
    heads = re.findall(r"(?m)^\| ((?:GET|PUT|POST|DELETE|RESET) /[^|]*)\|", page)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_block_is_one_that_can_be_typed(page: Path, tmp_path: Path) -> None:
    for line in typed(text(page)):
        command, words = found_in(shlex.split(line, comments=True))
        files = [p.name for p in command.params if isinstance(p.type, click.File)]
        given = ["-" if files and word.endswith((".json", ".jsonl")) else word for word in words]
        assert not isinstance(command, click.Group), line
        with command.make_context(line, given):
            pass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_in_a_sentence_exists(page: Path) -> None:
    for line in re.findall(r"`raftnode ([a-z-][^`]*)`", BLOCK.sub("", text(page))):
        command, words = found_in([word for word in line.split() if word != "…"])
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word not in options]
        assert unknown == [], line
        assert not isinstance(command, click.Group) or not words, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_link_leads_somewhere(page: Path) -> None:
    named = re.findall(r"`((?:raftnode|observer|tasks|config|tests|scripts|docs)/[\w./*-]*)", text(page))
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/")))] == []
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text(page))):
        if not target.startswith("http"):
            file = page.parent / target if target else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(text(file)), f"{target}#{anchor}"


def anchors(page: str) -> list[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
