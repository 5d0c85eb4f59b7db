"""The adapter that is also told the pitch, and the model that expects one where it is not told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle

from ...audio.mel import MEL, band_frequencies
from ...errors import UserError
from ...files import read_json
from ...speech.phonemes import PAUSE, PHONE_IDS
from ...weights import finite
from ..autoencoder import PatchAutoencoder
from ..condition import Condition, Input
from .aligned import AlignedAdapter, ResidualConv, progress


class PitchModel(nn.Module):
    """Phonemes with their times → the pitch expected of them, ln Hz (B, frames): a voice's own, and what
    convolutions along time add to it. A batch carries what AlignedAdapter's does."""

    def __init__(self, phones: int, voices: int, width: int = 96, layers: int = 3):
        super().__init__()
        self.phone = nn.Embedding(phones, width)
        self.position = nn.Linear(4, width)
        self.level = nn.Embedding(voices + 1, 1)
        self.voice = nn.Embedding(voices + 1, width)
        self.first = nn.Conv1d(width, width, 8, stride=4, padding=2)
        self.mix = nn.Sequential(*(ResidualConv(width) for _ in range(layers)), nn.GELU())
        self.last = nn.Conv1d(width, 1, 1)
        nn.init.constant_(self.level.weight, math.log(140.0))
        nn.init.zeros_(self.last.weight)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        dtype = self.last.weight.dtype
        frames = self.phone(batch["frame_phones"]) + self.position(progress(batch["frame_position"], dtype))
        hidden = self.first(frames.transpose(1, 2)) + self.voice(batch["voice"])[..., None]
        contour = interpolate(self.last(self.mix(hidden)), scale_factor=4, mode="linear")
        return contour[:, 0] + self.level(batch["voice"])


def harmonics(pitch: Tensor, frequencies: Tensor) -> Tensor:
    """(B, F) Hz, (H,) Hz → (B, H, F) in [-1, 1]: 1 at the pitch's multiples, -1 between them."""
    return (2 * torch.pi * frequencies[None, :, None] / pitch[:, None].clamp(min=1)).cos()


def spoken(frame_phones: Tensor) -> Tensor:
    """(B, F) ids → bool: where a phone sounds, neither padding nor a pause."""
    return frame_phones > PHONE_IDS[PAUSE]


class PitchedAdapter(AlignedAdapter):
    """AlignedAdapter that is also told where the harmonics lie: the picture of a voice of that pitch.

    What of a picture of speech phonemes, times and voice do not determine is nearly all harmonics; those of
    neighbouring patches must fit together. A batch that carries "frame_pitch" (B, frames) Hz is spoken at
    that pitch, another at the one that a PitchModel expects. Saying nothing has no harmonics.

    Args:
        patch: pixels of the picture that a latent cell is wide and high. waves: features of a cell's
            harmonics. pitch_width, pitch_layers: sizes of the PitchModel. The others are AlignedAdapter's.
    """

    pitched: ClassVar[bool] = True
    millihertz: Tensor

    @register_to_config
    def __init__(self, phones: int, voices: int, channels: int, rows: int = 16, columns: int = 64,
                 frames: int = 1024, width: int = 128, hidden: int = 192, embedding: int = 64,
                 layers: int = 3, features: int | None = None, patch: int = 16, waves: int = 32,
                 pitch_width: int = 96, pitch_layers: int = 3):
        super().__init__(phones, voices, channels, rows, columns, frames, width, hidden, embedding, layers,
                         features)
        if rows * patch != MEL.n_mels or columns * patch != frames:
            raise ValueError(f"patch={patch}: expected {MEL.n_mels} / rows={rows} and frames={frames} / "
                             f"columns={columns}")
        self.expected = PitchModel(phones, voices, pitch_width, pitch_layers)
        self.look = nn.Conv2d(patch**2, waves, 1, bias=False)
        self.join = nn.Conv2d(waves, channels, 3, padding=1)
        nn.init.orthogonal_(self.look.weight)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)  # type: ignore[arg-type]
        # Whole numbers, which no half precision rounds: an error counts at every multiple of the pitch.
        # The highest band first, as a picture's rows.
        millihertz = (1000 * band_frequencies().flip(0)).round().long()
        self.register_buffer("millihertz", millihertz, persistent=False)

    @property
    def inputs(self) -> dict[str, Input]:
        pitch = Input(0, (self.config.frames,), torch.float32, need="training", dropped=False)
        return {**super().inputs, "frame_pitch": pitch}

    def encode(self, batch: dict[str, Any]) -> Condition:
        condition = super().encode(batch)
        pitch = batch.get("frame_pitch")
        if pitch is None:
            pitch = self.expected(batch).exp()
        picture = harmonics(pitch.float(), self.millihertz / 1000) * spoken(batch["frame_phones"])[:, None]
        patches = pixel_unshuffle(picture[:, None].to(self.dtype), self.config.patch)
        condition.residual = condition.residual + self.join(self.look(patches))
        return condition

    def auxiliary_loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean |ln Hz| by which the expected pitch is off where something is said."""
        weight = spoken(batch["frame_phones"]).float()
        off = (self.expected(batch).float() - batch["frame_pitch"].clamp(min=1).log()).abs()
        return (off * weight).sum() / weight.sum().clamp(min=1)


def pitched_adapter(base: str | Path | None = None, autoencoder: str | Path | None = None,
                    **adapter: Any) -> PitchedAdapter:
    """A PitchedAdapter that looks at harmonics as the autoencoder looks at pictures.

    Args:
        base: folder of a trained adapter, aligned or pitched, to go on from; what an aligned one says stays
            the same until more is trained. Without one the adapter is fresh, of the sizes in `adapter`.
        autoencoder: folder of a PatchAutoencoder whose coefficients are the features of harmonics at first;
            None leaves them as they are in a pitched base, or random.

    Raises UserError on a folder that is not there or does not fit.
    """
    for key, folder in (("base", base), ("autoencoder", autoencoder)):
        if folder is not None and not (Path(folder) / "config.json").exists():
            raise UserError(f"model.conditioner.{key}={folder}: no such folder")
    if base is None:
        made = PitchedAdapter(**adapter)
    else:
        known = {cls.__name__: cls for cls in (AlignedAdapter, PitchedAdapter)}
        kind = known.get(read_json(Path(base) / "config.json")["_class_name"], AlignedAdapter)
        trained = finite(kind.from_pretrained(base, torch_dtype=torch.float32), base)
        sizes = {key: value for key, value in trained.config.items() if not key.startswith("_")}
        made = PitchedAdapter(**{**adapter, **sizes})
        if not made.spread.weight.is_meta:  # check=true counts parameters and holds none
            made.load_state_dict(trained.state_dict(), strict=False)
    if autoencoder is not None:
        basis = finite(PatchAutoencoder.from_pretrained(autoencoder, torch_dtype=torch.float32),
                       autoencoder).basis
        if basis.shape != made.look.weight.shape[:2]:
            raise UserError(f"model.conditioner.autoencoder={autoencoder}: {tuple(basis.shape)} coefficients "
                            f"of pixels (expected {tuple(made.look.weight.shape[:2])}: waves, patch²)")
        made.look.weight.data.copy_(basis[:, :, None, None])
    return made
