"""What the jobs of training/jobs.py would train, built from `model`'s options without doing the job."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from ..data.tokenizer import build_tokenizer
from ..diffusion.layout import pocket_layout
from ..errors import UserError
from ..networks.autoencoder import PatchAutoencoder
from ..training.clip import clip_settings, open_clip_config

Parts = dict[str, nn.Module]


def basis(cfg: Any, options: dict[str, Any]) -> Parts:
    extends = options.pop("extends")
    if extends is not None and not (Path(extends) / "config.json").exists():
        raise UserError(f"model.extends={extends}: no autoencoder (expected a folder with its config.json)")
    return {"autoencoder": PatchAutoencoder(**options)}


def clip(cfg: Any, options: dict[str, Any]) -> Parts:
    from open_clip.model import CLIP

    with tempfile.TemporaryDirectory() as folder:
        words = len(build_tokenizer(Path(folder)))
    return {"CLIP": CLIP(**open_clip_config(clip_settings({**cfg, "model": options}), words)["model_cfg"])}


def bind(cfg: Any, options: dict[str, Any]) -> Parts:
    if (Path(options["folder"]) / "family.json").exists():  # else the job writes it first
        pocket_layout(options["folder"])
    return {}


# Of the tokenizer's job there is nothing to build.
JOBS = {f"images_that_speak.training.jobs.{build.__name__}": build
        for build in (basis, clip, bind)}
