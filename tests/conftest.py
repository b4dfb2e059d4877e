"""What holds for every test."""

import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from raftnode.cli import local_cluster
from tests import workers

# Tests wait for conditions and measure no time: on a busy machine any example may take long. Each run tries the same
# examples, so that a failure is the change's; `--hypothesis-profile=hunt` tries others, and prints what replays one.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("raftnode", PATIENT, derandomize=True)
settings.register_profile("hunt", PATIENT, derandomize=False)
settings.load_profile("raftnode")

# No test goes further than this machine, whomever it trusts: to read that list takes each process a tenth of a second.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)

# A shell's background job ignores ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
"""Which of several worker processes this is; none without."""

local_cluster.share = workers.share(WORKER, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WORKER:
        items.sort(key=lambda item: workers.rank(item.nodeid))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if WORKER and os.geteuid() == 0:  # nobody else may take niceness back
        os.setpriority(os.PRIO_PROCESS, 0, workers.niceness(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler: Any = LoadScopeScheduling(config, log)
    scheduler._split_scope = workers.unit
    return scheduler
