"""Standard streams as users have them: closed, full, in ASCII. None of it is worth a stack trace."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

FAILED = 1
INTERRUPTED = 130


def guarded(command: Callable[[], None]) -> NoReturn:
    """Runs a command, which may end with SystemExit, and ends the process with its code; with FAILED when what it says
    could not be written, and without a word when nobody reads it any more (`| head`)."""
    _prepare()
    code: str | int | None = 0
    try:
        try:
            command()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        code = FAILED
        _silence()
        if not isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError):
                print(f"raftnode: standard output cannot be written: {error.strerror}.", file=sys.stderr, flush=True)
    sys.exit(code)


def _prepare() -> None:
    """Streams that are closed lead nowhere, so that no file that is opened later takes their place; letters that an
    encoding lacks are written as escapes."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _silence() -> None:
    """What still waits to be written goes nowhere: else the interpreter would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
