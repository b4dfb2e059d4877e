"""Commands that cannot be undone ask on a terminal, need --yes without one, and change nothing before that."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from raftnode.cli.main import cli

NOWHERE = "http://127.0.0.1:1"
WRONG_USAGE = 2
UNREACHABLE = 3
ASKING: dict[tuple[str, ...], list[str]] = {
    ("db", "delete"): ["Shop"],
    ("task", "delete"): ["orders"],
    ("task", "reset"): ["orders"],
    ("etl", "delete"): ["orders"],
    ("connection-string", "delete"): ["target", "--database", "Shop"],
    ("node", "remove"): ["B"],
}
ON_A_DIRECTORY = {("recover",)}
"""Asks once it has found a log in the directory: tests/cluster/test_recovery_by_hand.py."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below the group with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_all_that_deletes_removes_or_resets_takes_yes() -> None:
    taking = {path for path, one in commands(cli) if any("--yes" in param.opts for param in one.params)}
    assert taking == ASKING.keys() | ON_A_DIRECTORY
    verbs = {"delete", "remove", "reset"}
    assert {path for path, _ in commands(cli) if path[-1] in verbs} <= taking


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_without_a_terminal_yes_is_needed(command: tuple[str, ...]) -> None:
    arguments = [*command, *ASKING[command], "--url", NOWHERE]
    refused = CliRunner().invoke(cli, arguments, input="y\n")
    assert refused.exit_code == WRONG_USAGE
    assert "give --yes" in refused.output
    assert CliRunner().invoke(cli, [*arguments, "--yes"]).exit_code == UNREACHABLE


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", UNREACHABLE)])
def test_a_terminal_is_asked_and_standard_output_left_to_the_answer(answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "raftnode", "node", "remove", "B", "--json", "--url", NOWHERE],
            stdin=theirs, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Remove node B?" in done.stderr
