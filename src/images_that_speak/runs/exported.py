"""Where a training's weights are copied to beside its run folder: `export`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from ..files import replace_folder


def export_weights(run: Path, cfg: DictConfig) -> str | None:
    """Copy every part of a run's `weights/` over the one of that name in the folder `cfg.export`.

    Returns that folder; None where nothing is copied, for there is none or a debug configuration was chosen.
    """
    if not cfg.get("export") or cfg.debug is not None:
        return None
    for part in sorted((run / "weights").glob("*")):
        replace_folder(part, Path(cfg.export) / part.name)
    return str(cfg.export)
