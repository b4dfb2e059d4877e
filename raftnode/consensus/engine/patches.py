"""What is changed inside the PySyncObj package, once and for all of this process: its clock and its pickle.

The package reads its clock through one module-level name, and pickles through others. The clock becomes that of
whichever engine is running, read once as it is entered; pickling becomes an error, as nothing of ours ever needs it.
"""

from collections.abc import Iterator
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


_seconds = 0.0


def use_time(seconds_now: float) -> None:
    """Makes it that time for the package. Every engine does so whenever it is entered; they share one thread."""
    global _seconds
    _seconds = seconds_now


def seconds() -> float:
    """When the running engine was entered, by its clock."""
    return _seconds


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
