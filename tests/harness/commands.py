"""Commands of the command line, each in a process of its own that is forked from one which has loaded everything:
loading takes longer than nearly every command. What starts a node, or concerns how Python starts, runs
`python -m raftnode` itself."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from raftnode.cli.main import MODULES

LIMIT_SEC = 60
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["tests.harness.commands_loaded"])


def run(
    *arguments: str, cwd: Path, env: Mapping[str, str], given: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """One command to its end. `given` is its standard input, none without."""
    with tempfile.TemporaryDirectory() as made:
        streams = [Path(made) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(given or "")
        for empty in streams[1:]:
            empty.touch()
        process = _forking.Process(target=_command, args=(arguments, str(cwd), dict(env), [str(s) for s in streams]))
        process.start()
        process.join(LIMIT_SEC)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["raftnode", *arguments], LIMIT_SEC)
        output, errors = (stream.read_text() for stream in streams[1:])
        assert process.exitcode is not None
        return subprocess.CompletedProcess(["raftnode", *arguments], process.exitcode, output, errors)


def _command(arguments: list[str], cwd: str, env: dict[str, str], streams: list[str]) -> NoReturn:
    for descriptor, path in enumerate(streams):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has put another one there
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["raftnode", *arguments]
    import_module("raftnode.__main__").main()
    sys.exit(0)


def load() -> None:
    """Everything that commands import."""
    for name in sorted(set(MODULES.values())):
        import_module(f"raftnode.cli.{name}")
