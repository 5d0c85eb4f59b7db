"""Where a training's weights are copied to beside its run folder: `export`."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ..files import replace_folder
from .identity import is_volatile


def export_folder(cfg: DictConfig) -> tuple[str | None, str | None]:
    """The folder that the trained weights are copied to as well, and what is to be said where it is none.

    An experiment replaces the weights that ship when it is run as it is written. With another number of
    steps, other data or another network it is a trial, and replaces them only where the command says
    `export=`.
    """
    if not cfg.export or cfg.debug is not None:
        return None, None
    overrides = _overrides()
    trial = [text for key, text in overrides.items() if key != "experiment" and not is_volatile(key, "train")]
    if "export" in overrides or not trial:
        return cfg.export, None
    return None, (f"{', '.join(trial)}: not the experiment as it is written, so the weights stay in the run "
                  f"folder; the same command with export={cfg.export} copies them")


def export_weights(run: Path, folder: str) -> None:
    """Copy every part of a run's `weights/` over the one of that name in `folder`."""
    for part in sorted((run / "weights").glob("*")):
        replace_folder(part, Path(folder) / part.name)


def export_finished(run: Path, cfg: DictConfig) -> None:
    """The same for a run that was finished before, where the command says `export=`."""
    if cfg.get("export") and "export" in _overrides():
        export_weights(run, cfg.export)
        print(f"its weights were copied to {cfg.export}")


def _overrides() -> dict[str, str]:
    """{key: the override} of the command line; nothing where a function was called with a configuration."""
    written = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {text.lstrip("+~").partition("=")[0]: text for text in written}
