"""A vocoder's folder: writing one, and loading one by its name or its path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..config import is_own, locate
from ..errors import UserError, nearest
from ..files import atomic_path, read_json, write_json
from .griffin_lim import FastGriffinLim, GriffinLim
from .hifigan import HiFiGAN, fold_weight_norm, load_published, published_files
from .mel import MEL
from .vocoder_base import CONFIG, Vocoder, load_strictly
from .vocos import Vocos

WEIGHTS = "model.safetensors"


ARCHITECTURES: dict[str, type[Vocoder]] = {
    cls.architecture: cls for cls in (GriffinLim, FastGriffinLim, HiFiGAN, Vocos)}


def vocoder_class(architecture: str) -> type[Vocoder]:
    """The vocoder of an architecture's name, or of a class's in one's own modules (config.locate).

    Raises UserError when there is none.
    """
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    found = locate(architecture, "vocoder architecture") if is_own(architecture) else None
    if not (inspect.isclass(found) and issubclass(found, Vocoder)):
        raise UserError(f"vocoder architecture {architecture!r}: expected one of {', '.join(ARCHITECTURES)}."
                        f"{nearest(architecture, ARCHITECTURES)}")
    return found


def without_weights(source: str | Path) -> bool:
    """Whether `source` names a vocoder that needs no weights, and no folder."""
    name = str(source)
    return (name in ARCHITECTURES or is_own(name)) and not vocoder_class(name).trained


def load_vocoder(source: str | Path = "griffin_lim") -> Vocoder:
    """A vocoder ready to play: one that needs no weights, or a trained one.

    source is `griffin_lim` or `griffin_lim_fast`, a class of one's own that needs no weights, or a path:
    - a folder written by `save_vocoder` (config.json and model.safetensors);
    - Auffusion's vocoder folder (config.json and vocoder.pt), or the folder above it;
    - a HiFi-GAN run (config.json and g_<steps>; the newest), or one `g_<steps>` file beside its config.

    Raises UserError when nothing is there, a file is broken, or the weights are of another mel spec.
    """
    if without_weights(source):
        return build_vocoder(str(source), {}).eval().requires_grad_(False)
    file = vocoder_file(source)
    if file.name == WEIGHTS:
        return _load_own(file.parent)
    return load_published(file).eval().requires_grad_(False)


def vocoder_file(source: str | Path) -> Path:
    """The file of weights that `load_vocoder` reads. Raises UserError when nothing is there."""
    path = Path(source)
    if not path.exists():
        raise UserError(f"vocoder={source}: no such folder (expected griffin_lim or a vocoder's folder)."
                        f"{nearest(str(source), ['griffin_lim'])}")
    if path.is_dir() and not (path / CONFIG).exists() and (path / "vocoder" / CONFIG).exists():
        path = path / "vocoder"
    return path / WEIGHTS if (path / WEIGHTS).exists() else published_files(path)[1]


def build_vocoder(architecture: str, config: dict[str, Any]) -> Vocoder:
    """A new vocoder from its architecture's name and its settings.

    Raises UserError naming an unknown architecture or setting.
    """
    cls: Callable[..., Vocoder] = vocoder_class(architecture)
    try:
        return cls(**config)
    except TypeError as error:
        raise UserError(f"vocoder architecture {architecture!r}: {error}") from error


def save_vocoder(vocoder: Vocoder, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write config.json (architecture, settings, mel spec) and model.safetensors with `dtype` weights.

    Weight normalisation is folded into plain weights.
    """
    folder = Path(folder)
    state = {name: value.detach().cpu().to(dtype).contiguous()
             for name, value in fold_weight_norm(vocoder.state_dict()).items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    write_json(folder / CONFIG, {"architecture": vocoder.architecture, **vocoder.config,
                                 "mel_spec": vocoder.spec.to_dict()})


def _load_own(folder: Path) -> Vocoder:
    config = read_json(folder / CONFIG)
    MEL.check(config.pop("mel_spec", None), folder / CONFIG)
    if "architecture" not in config:
        raise UserError(f"{folder / CONFIG}: no key architecture (expected hifigan or vocos)")
    if config["architecture"] == "hifigan":
        config["weight_norm"] = False
    vocoder = build_vocoder(config.pop("architecture"), config)
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS}: not a readable safetensors file ({error})") from error
    load_strictly(vocoder, {name: value.float() for name, value in state.items()}, folder / WEIGHTS)
    return vocoder.eval().requires_grad_(False)
