"""What the jobs of training/jobs.py would train, built from `model`'s options without doing the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..diffusion.layout import pocket_layout
from ..errors import UserError
from ..networks.autoencoder import PatchAutoencoder
from ..training.jobs import family_folder

Parts = dict[str, nn.Module]


def basis(cfg: Any, options: dict[str, Any]) -> Parts:
    extends = options.pop("extends")
    if extends is not None and not (Path(extends) / "config.json").exists():
        raise UserError(f"model.extends={extends}: no autoencoder (expected a folder with its config.json)")
    return {"autoencoder": PatchAutoencoder(**options)}


def bind(cfg: Any, options: dict[str, Any]) -> Parts:
    folder = family_folder(options["folder"])
    if (folder / "family.json").exists():  # else the job writes it first
        pocket_layout(folder)
    return {}


# Of the tokenizer's job there is nothing to build.
JOBS = {f"images_that_speak.training.jobs.{build.__name__}": build for build in (basis, bind)}
