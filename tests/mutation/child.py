"""The processes that run tests: forked from one that has loaded pytest and other people's packages, and silent."""

import os
import resource
import traceback
from collections.abc import Callable

from hypothesis import Phase, settings

OPTIONS = ("-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider")
"""How pytest is run."""

SLOWER_MAX = 4
"""How many times the processor's time of the unchanged module a mutant may use."""
SPARE_S = 2.0
MEMORY_BYTES_MAX = 2 << 30


def fork(run: Callable[[], int]) -> int:
    """The id of a new process that ends with what `run` returns; with EX_SOFTWARE, and a traceback, if it raises."""
    child = os.fork()
    if child:
        return child
    code, stderr = os.EX_SOFTWARE, os.dup(2)
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = run()
    except Exception:
        os.write(stderr, traceback.format_exc().encode())
    finally:
        os._exit(code)


class Repeatable:
    """The same examples of every property each time, and no search for a smaller one when a mutant is killed."""

    def pytest_collection(self) -> None:
        """After conftest.py, before the tests are imported."""
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", settings(), derandomize=True, database=None, phases=phases)
        settings.load_profile("mutation")
