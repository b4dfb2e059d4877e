"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

# Tests wait for conditions and measure no time: on a busy machine any example may take long. A failure prints what
# replays it.
settings.register_profile(
    "raftnode", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, derandomize=False
)
settings.load_profile("raftnode")

# A shell's background job ignores ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
