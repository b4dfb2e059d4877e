"""The command line: one group, `run` when no command is given."""

import click

from raftnode.cli import etl as _etl  # noqa: F401  # these two add their commands to `etl` and `db`
from raftnode.cli import groups as _groups  # noqa: F401
from raftnode.cli.cluster import node, observer, reelect
from raftnode.cli.databases import db
from raftnode.cli.definitions import connection_string, etl, pin, task_group
from raftnode.cli.documents import document
from raftnode.cli.imports import import_documents
from raftnode.cli.placement import drain, what_if, why
from raftnode.cli.recovery import recover, snapshot
from raftnode.cli.run import run
from raftnode.cli.status import status, tasks


class Commands(click.Group):
    """`raftnode` and `raftnode --profile fast` mean `raftnode run ...`. The demo is imported when it is asked for: it
    needs a database library that a node at rest and the other commands do without."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return sorted([*super().list_commands(ctx), "demo"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name == "demo":
            from raftnode.cli.demo import demo

            return demo
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `run` first when the first word is no command and no option of this group."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if not args or (args[0].startswith("-") and args[0].partition("=")[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="raftnode")
@click.option("--url", metavar="URL", help="A node to ask; see each command.")
@click.pass_context
def cli(context: click.Context, url: str | None) -> None:
    """Highly available tasks: every node decides for itself which ongoing tasks are its own. One runner at a time,
    and effects exactly once in targets that are fenced.

    Without a command: runs a node. Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 no node
    answers, 4 no such thing, 5 not now (no leader, not in time): try again, 6 a task fails or has passed documents
    over (status, tasks, why), 130 ended by Ctrl-C.
    """
    context.obj = url


for command in (run, status, tasks, db, document, import_documents, etl, connection_string, task_group, pin):
    cli.add_command(command)
for command in (node, reelect, observer, why, what_if, drain, snapshot, recover):
    cli.add_command(command)
