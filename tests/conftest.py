"""What holds for every test."""

from hypothesis import HealthCheck, settings

# Tests wait for conditions and measure no time: on a busy machine any example may take long. A failure prints what
# replays it.
settings.register_profile(
    "raftnode", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, derandomize=False
)
settings.load_profile("raftnode")
