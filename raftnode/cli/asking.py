"""Asking before a command that cannot be undone: on a terminal it asks, without one it needs --yes."""

import sys
from collections.abc import Callable
from typing import Any

import click


def asks(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command the option --yes, and as `names` other names of it; its function calls `ask` with the value."""
    return click.option("--yes", *names, "yes", is_flag=True, help="Do not ask.")


def ask(question: str, *, yes: bool) -> None:
    """Ends the command unless `yes` was given or is answered to the question. Without a terminal nobody is asked, and
    the command is refused as wrong usage. Asks on stderr, as standard output is the answer's."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: give --yes.")
    click.confirm(question, abort=True, err=True)
