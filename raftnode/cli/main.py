"""The command line: one group, `run` when no command is given."""

import sys
from importlib import import_module

import click

from raftnode.cli.streams import INTERRUPTED

MODULES = {
    "backup": "backups",
    "cluster": "licence",
    "connection-string": "definitions",
    "db": "groups",
    "demo": "demo",
    "document": "documents",
    "drain": "placement",
    "etl": "etl",
    "import": "imports",
    "node": "placement",
    "observer": "cluster",
    "pin": "definitions",
    "recover": "recovery",
    "reelect": "cluster",
    "run": "run",
    "snapshot": "recovery",
    "status": "status",
    "task": "definitions",
    "tasks": "status",
    "what-if": "placement",
    "why": "placement",
}
"""Each command, and the module of `raftnode.cli` that has it whole, with every command below it."""


class CommandGroup(click.Group):
    """`raftnode` and `raftnode --profile fast` mean `raftnode run ...`. A command is imported when it is asked for:
    each starts without what only others need, a node without tables and progress bars, all but the demo without a
    database library."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in MODULES:
            return None
        try:
            module = import_module(f"raftnode.cli.{MODULES[cmd_name]}")
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # click would say "Aborted!" and end with 1
        return next(c for c in vars(module).values() if isinstance(c, click.Command) and c.name == cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `run` first when the first word is no command and no option of this group."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if not args or (args[0].startswith("-") and args[0].partition("=")[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="raftnode")
@click.option("--url", metavar="URL", help="A node to ask; see each command.")
@click.pass_context
def cli(context: click.Context, url: str | None) -> None:
    """Highly available tasks: every node decides for itself which ongoing tasks are its own. One runner at a time,
    and effects exactly once in targets that are fenced.

    Without a command: runs a node. Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 no node
    answers, 4 no such thing, 5 not now (no leader, not in time): try again, 6 a task fails or has skipped
    documents (status, tasks, why), 130 ended by Ctrl-C.
    """
    context.obj = url
