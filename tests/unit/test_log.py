"""Where the daemon's sentences go, and that it outlives that place."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import structlog
from config import Settings
from raftnode.log import configure
configure(Settings())
log = structlog.get_logger("test")
for n in range(10_000):
    log.info("one sentence", n=n)
print("alive")
"""


@pytest.mark.parametrize("place", ["/dev/full", "a pipe whose reader has gone"])
def test_a_log_that_takes_no_more_costs_lines_and_not_the_daemon(place: str) -> None:
    if place == "/dev/full":
        with Path(place).open("w") as full:
            ran = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=full, check=False)
            said = ran.stdout
    else:
        process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stderr is not None
        process.stderr.close()
        said, _ = process.communicate()
    assert said == b"alive\n"
