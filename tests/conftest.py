"""Shared by all tests: one embedded Ray a run, small and quiet."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

# Read by Ray when it is imported or started, so they are set before any test module is imported.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

# A shell starts what runs in its background without interrupts, which tests send to themselves and to their commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a test: how long an example takes is no property of the code. The same examples each run.
hypothesis.settings.register_profile("prectr", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("prectr")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A running Ray, shared by every test that asks for it."""
    from prectr.core.ray_session import RayConfig, ray_session

    with ray_session(RayConfig(num_cpus=8, object_store_gib=0.3)):
        yield
