"""What every test can count on."""

from __future__ import annotations

import pytest
from hydra.core.hydra_config import HydraConfig

from images_that_speak import kept


@pytest.fixture(autouse=True)
def no_job_of_another_test() -> None:
    """What a process remembers of its last job: Hydra its name, a sweep what it loaded."""
    HydraConfig.instance().cfg = None
    kept.keep(False)
