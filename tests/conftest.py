"""What every test can count on."""

from __future__ import annotations

import pytest
from hydra.core.hydra_config import HydraConfig


@pytest.fixture(autouse=True)
def no_job_of_another_test() -> None:
    """Hydra remembers the last job of a process; a run's name is taken from its command line."""
    HydraConfig.instance().cfg = None
