"""`python -m raftnode` and the command `raftnode`."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    # Python puts the directory one stands in first. Its modules must not take the place of those that we use.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.realpath(sys.path[0] or os.getcwd()) != os.path.realpath(home):
        del sys.path[0]


def main() -> None:
    """Runs the command line; ends the process with its exit code."""
    from raftnode.foundation import module_isolation

    module_isolation.install()
    from raftnode.cli.streams import guarded

    guarded(_command)


def _command() -> None:
    from raftnode.cli.main import cli

    cli(prog_name="raftnode")


if __name__ == "__main__":
    main()
