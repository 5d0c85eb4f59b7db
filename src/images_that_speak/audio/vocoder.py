"""From log-mel, or from the picture, back to sound: what every vocoder shares, and loading one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..files import atomic_path, read_json, write_json
from .mel import MEL, LogMel, MelSpec, picture_to_logmel

CONFIG, WEIGHTS = "config.json", "model.safetensors"

# What the published vocoders call the keys of the mel spec; they do not store floor, ceil and frames.
PUBLISHED_SPEC = {"sampling_rate": "sample_rate", "n_fft": "n_fft", "hop_size": "hop", "win_size": "win",
                  "num_mels": "n_mels", "fmin": "fmin", "fmax": "fmax"}


class Vocoder(nn.Module):
    """forward: log-mel (B, n_mels, F) in nats → wave (B, F · hop).

    A subclass sets `architecture`, keeps what builds it in `config`, and implements `forward`.
    """

    architecture = ""
    spec: MelSpec = MEL
    config: dict[str, Any]

    def check_logmel(self, logmel: Tensor) -> None:
        """Raise UserError when `logmel` is not (B, n_mels, F) with at least one frame."""
        if logmel.ndim != 3 or logmel.shape[1] != self.spec.n_mels or not logmel.shape[2]:
            raise UserError(f"log-mel of shape {tuple(logmel.shape)}: expected "
                            f"(batch, {self.spec.n_mels}, frames)")

    @torch.no_grad()
    def decode_picture(self, picture: Tensor | np.ndarray) -> Tensor:
        """Play pictures (B, n_mels, F): uint8 luminance, or floats in [0, 1], which are rounded to 8 bits.

        The picture is the message, so what is played is what an 8-bit file of it holds.

        Returns the wave (B, F · hop) float32 on the vocoder's device. Raises UserError on NaN, other types
        and other shapes.
        """
        picture = torch.as_tensor(picture)
        if picture.dtype != torch.uint8:
            if not picture.is_floating_point():
                raise UserError(f"picture of {picture.dtype}: expected uint8 or floats in [0, 1]")
            if not torch.isfinite(picture).all():
                raise UserError("picture: holds NaN or infinity (expected values in [0, 1])")
            picture = (picture.float().clamp(0, 1) * 255).round()
        if picture.ndim != 3:
            raise UserError(f"picture of shape {tuple(picture.shape)}: expected "
                            f"(batch, {self.spec.n_mels}, frames)")
        device = next(iter([*self.parameters(), *self.buffers()])).device
        return self(picture_to_logmel(picture.to(device).float() / 255, self.spec)).float()


V = TypeVar("V")


def load_vocoder(source: str | Path = "griffin_lim") -> Vocoder:
    """A vocoder ready to play: `griffin_lim`, which needs no weights, or a trained one.

    source is `griffin_lim`, or a path:
    - a folder written by `save_vocoder` (config.json and model.safetensors);
    - Auffusion's vocoder folder (config.json and vocoder.pt), or the folder above it;
    - a HiFi-GAN run (config.json and g_XXXXXXXX; the newest), or one `g_XXXXXXXX` file beside its config.

    Raises UserError when nothing is there, a file is broken, or the weights are of another mel spec.
    """
    if str(source) == "griffin_lim":
        from .griffin_lim import GriffinLim

        return GriffinLim()
    path = Path(source)
    if not path.exists():
        raise UserError(f"vocoder={source}: no such folder (expected griffin_lim or a vocoder's folder)."
                        f"{nearest(str(source), ['griffin_lim'])}")
    if path.is_dir() and not (path / CONFIG).exists() and (path / "vocoder" / CONFIG).exists():
        path = path / "vocoder"
    if path.is_dir() and (path / WEIGHTS).exists():
        return _load_own(path)
    from .hifigan import load_published

    return load_published(path).eval().requires_grad_(False)


def inverse_filters(spec: MelSpec = MEL) -> Tensor:
    """The pseudo-inverse (n_fft/2+1, n_mels) of the mel filters. Its products with a mel can be negative."""
    # In float64, for the mel it is multiplied with spans seven powers of ten.
    return torch.linalg.pinv(LogMel(spec).filters.double()).float()


def build_vocoder(architecture: str, config: dict[str, Any]) -> Vocoder:
    """A new vocoder from its architecture's name and its settings.

    Raises UserError naming an unknown architecture or setting.
    """
    from .hifigan import HiFiGAN
    from .vocos import Vocos

    known: dict[str, Callable[..., Vocoder]] = {"hifigan": HiFiGAN, "vocos": Vocos}
    if architecture not in known:
        raise UserError(f"vocoder architecture {architecture!r}: expected one of {', '.join(known)}."
                        f"{nearest(architecture, known)}")
    try:
        return known[architecture](**config)
    except TypeError as error:
        raise UserError(f"vocoder architecture {architecture!r}: {error}") from error


def save_vocoder(vocoder: Vocoder, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write config.json (architecture, settings, mel spec) and model.safetensors with `dtype` weights.

    Weight normalisation is folded into plain weights.
    """
    from .hifigan import fold_weight_norm

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


def load_strictly(module: nn.Module, state: dict[str, Tensor], where: object) -> None:
    """`module.load_state_dict(state)`; UserError naming the file when names or shapes do not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{where}: does not fit its config ({detail[:300]})") from error


def check_published_spec(config: dict[str, Any], where: object) -> None:
    """Compare the mel keys of a published vocoder's config.json with ours; UserError when they differ.

    A key the file lacks is taken as agreeing, except the number of bands.
    """
    theirs = {**MEL.to_dict(), "n_mels": None}
    for name, key in PUBLISHED_SPEC.items():
        if name in config:
            theirs[key] = MEL.fmax if name == "fmax" and config[name] is None else config[name]
    MEL.check(theirs, where)


def torch_load(path: Path) -> Any:
    """`torch.load` of tensors and plain containers only; anything else is a UserError naming the file."""
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, json.JSONDecodeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint of plain weights ({reason})") from error
