"""What is changed inside the PySyncObj package, once and for all of this process: its clock and its pickle.

The package reads its clock through one module-level name, and pickles through others. The clock becomes that of
whichever engine is running; pickling becomes an error, as nothing of ours ever needs it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pysyncobj.journal
import pysyncobj.serializer
import pysyncobj.syncobj
import pysyncobj.tcp_connection


class PickleRefused(Exception):
    """PySyncObj tried to pickle or unpickle something."""


class _NoPickle:
    """Stands where the package expects its pickle module."""

    @staticmethod
    def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise PickleRefused("Nothing may be pickled or unpickled: unpickling runs code of whoever sent the bytes.")

    load = loads = dump = dumps = to_bytes = _refuse


_seconds: Callable[[], float] = time.monotonic


def use_clock(clock: Callable[[], float]) -> None:
    """Makes `clock` the package's clock. Every engine does so whenever it is entered; they share one thread."""
    global _seconds
    _seconds = clock


def seconds() -> float:
    """The running engine's clock."""
    return _seconds()


@contextmanager
def journal_of(log: object) -> Iterator[None]:
    """Within, a SyncObj that is made takes `log` for its journal."""
    original = pysyncobj.syncobj.createJournal
    pysyncobj.syncobj.createJournal = lambda _path=None: log
    try:
        yield
    finally:
        pysyncobj.syncobj.createJournal = original


def install() -> None:
    """Applies the changes. Doing so again changes nothing."""
    pysyncobj.syncobj.monotonicTime = seconds
    for module in (pysyncobj.syncobj, pysyncobj.serializer, pysyncobj.tcp_connection):
        module.pickle = _NoPickle
    for name in ("loads", "dumps", "to_bytes"):
        setattr(pysyncobj.journal, name, _NoPickle._refuse)


install()
