"""What every test can count on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from images_that_speak import config, kept


@pytest.fixture(autouse=True)
def no_job_of_another_test() -> None:
    """What a process remembers of its last job: Hydra its name, a sweep what it loaded."""
    HydraConfig.instance().cfg = None
    kept.keep(False)


@pytest.fixture(scope="session")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pocket family with small random weights. Nobody writes into it."""
    from tiny_family import tiny_pocket_family

    return tiny_pocket_family(tmp_path_factory.mktemp("pocket"))


@pytest.fixture
def make_tiny(pocket: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """A configuration of generate.py for the tiny family, nothing read back; masks unless told otherwise."""

    def build(*overrides: str) -> DictConfig:
        chosen = any(text.startswith(("composition=", "method=")) for text in overrides)
        usual = [] if chosen else ["composition=masks"]
        cfg = config.compose("generate", [
            *usual, f"family.weights={pocket}", f"paths.logs={tmp_path}", "audio_prompt='happy music'",
            *overrides])
        OmegaConf.update(cfg, "reader", None)
        return cfg

    return build


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., DictConfig]:
    """A configuration of generate.py whose runs and weights lie in the test's folder."""
    (tmp_path / "weights" / "pocket").mkdir(parents=True)
    (tmp_path / "weights" / "pocket" / "family.json").write_text("{}")

    def compose(*overrides: str) -> DictConfig:
        places = [f"paths.logs={tmp_path}/logs", f"paths.weights={tmp_path}/weights"]
        return config._compose("generate", [*places, *overrides])

    return compose
