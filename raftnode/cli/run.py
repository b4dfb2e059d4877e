"""`raftnode run`: a node in the foreground. Its flags are the table of settings."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from config import Settings, SettingsError, load, settings_table
from config.reference import literal
from raftnode.cli.advertised import unknown, unreachable
from raftnode.foundation.masking import in_text

SETTING = "setting__"


def _parameter(key: str) -> str:
    return SETTING + key.replace(".", "__")


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags of the table of settings, and `--config`; `settings_of` reads them."""
    for setting in reversed(settings_table()):
        flags = [setting.flag, setting.alias] if setting.alias else [setting.flag]
        text = f"{setting.meaning}. Takes {setting.rule}. Default: {literal(setting.default)}."
        function = click.option(*flags, _parameter(setting.key), metavar="VALUE", help=text)(function)
    return click.option("--config", envvar="RAFTNODE_CONFIG", type=click.Path(path_type=Path), help="A TOML file.")(
        function
    )


def settings_of(config: Path | None, values: dict[str, Any]) -> Settings:
    """The settings of a command's flags, of the environment and of the file. Ends the process with 2 if they are
    refused."""
    flags = {s.key: value for s in settings_table() if (value := values[_parameter(s.key)]) is not None}
    try:
        return load(config, os.environ, flags)
    except SettingsError as error:
        click.echo(f"raftnode: {error}", err=True)
        sys.exit(2)


@click.command()
@click.option("--join", metavar="URL", help="Join the cluster of the node at that address.")
@click.option("--watcher", is_flag=True, help="Join as a watcher: it runs tasks and does not vote.")
@with_settings
def run(config: Path | None, join: str | None, watcher: bool, **values: Any) -> None:
    """Run a node until SIGTERM or Ctrl-C.

    Alone it is a cluster of one node on loopback, with its data under ./data.
    """
    if watcher and not join:
        raise click.UsageError("--watcher says how to join: give --join URL too.")
    settings = settings_of(config, values)
    if join and (problem := unreachable(settings, join)):
        click.echo(f"raftnode: {problem}", err=True)
        sys.exit(2)
    if join and (warning := unknown(settings)):
        click.echo(f"raftnode: {warning}", err=True)
    try:
        # Imported late: the other commands start faster without the daemon. Nothing of it is garbage: to look for some
        # meanwhile takes an eighth of the time.
        gc.disable()
        from raftnode.node import run_node

        gc.enable()
        _greet(settings, join)
        sys.exit(asyncio.run(run_node(settings, join=join, watcher=watcher)))
    except KeyboardInterrupt:
        # It came before the node listens for signals, and means the same.
        sys.exit(0)


def _greet(settings: Settings, join: str | None) -> None:
    if not sys.stderr.isatty():
        return
    others = len(settings.cluster.initial_nodes)
    alone = f"is one of {others} nodes" if others > 1 else "runs alone"
    cluster = f"joins the cluster at {in_text(join)}" if join else alone
    click.echo(f"Node {settings.node.tag} {cluster}: {settings.url}, data in {settings.node.data_dir}.", err=True)
    click.echo(f"Try in another shell: raftnode --url {settings.url} status. Ctrl-C ends the node.", err=True)
