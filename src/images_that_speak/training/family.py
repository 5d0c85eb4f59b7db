"""Binding trained parts into a family folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..diffusion.family import pocket_layout, write_card
from ..runs import Run


def bind(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Write `family.json` and `scheduler/` beside the parts of `cfg.model.folder`, and check that all are there.

    Raises UserError naming the first part that is missing.
    """
    folder = Path(cfg.model.folder)
    write_card(folder, voices=list(cfg.model.voices), prediction_type=dict(cfg.model.prediction_type),
               template=cfg.model.template)
    layout = pocket_layout(folder)
    return {"folder": str(folder), "latent_shape": list(layout.latent_shape)}
