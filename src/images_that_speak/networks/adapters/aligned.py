"""The adapter that knows when each phoneme sounds."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ..condition import Condition, Input
from .phonemes import PhonemeAdapter, phone_table


class ResidualConv(nn.Module):
    """x + conv(gelu(conv(gelu(norm x)))) along time, (B, C, L) → (B, C, L)."""

    def __init__(self, width: int, kernel: int = 5):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.GELU(), nn.Conv1d(width, width, kernel, padding=kernel // 2),
            nn.GELU(), nn.Conv1d(width, width, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def progress(position: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, frames) how far a phoneme has gone, 0 to 1 → (B, frames, 4): so that begin and end count alike."""
    return torch.stack([position, 1 - position, (torch.pi * position).sin(),
                        (2 * torch.pi * position).sin()], dim=-1).to(dtype)


class AlignedAdapter(PhonemeAdapter):
    """Phonemes expanded by their durations onto the latent's columns.

    At every mel frame the phoneme sounding there and how far it has gone (0 to 1) are embedded, brought
    down to one vector a latent column by strided convolutions, mixed along time, and spread over the
    latent's rows by a linear map of its own per row: so a formant's place in the picture can be read off
    the phoneme without the UNet having to know at which frequency it stands.

    The residual starts at zero, that a pretrained UNet starts from what it knew.

    Args:
        channels: of the UNet's first feature map. rows, columns: the latent's height and width.
    """

    timed: ClassVar[bool] = True

    @register_to_config
    def __init__(self, phones: int, voices: int, channels: int, rows: int = 16, columns: int = 64,
                 frames: int = 1024, width: int = 128, hidden: int = 192, embedding: int = 64,
                 layers: int = 3, features: int | None = None):
        super().__init__()
        ratio = frames // columns
        if frames % columns or ratio % 8:
            raise ValueError(f"frames={frames}, columns={columns}: expected a multiple of 8 frames a column")
        self.phone = phone_table(phones, embedding, features)
        self.voice = nn.Embedding(voices + 1, hidden)
        self.position = nn.Linear(4, embedding)
        self.down = nn.Sequential(
            nn.Conv1d(embedding, hidden, 8, stride=4, padding=2), nn.GELU(),
            nn.Conv1d(hidden, hidden, 2 * (ratio // 4), stride=ratio // 4, padding=ratio // 8))
        self.mix = nn.Sequential(*(ResidualConv(hidden) for _ in range(layers)))
        self.spread = nn.Conv1d(hidden, channels * rows, 1)
        nn.init.zeros_(self.spread.weight)
        nn.init.zeros_(self.spread.bias)  # type: ignore[arg-type]
        self.token = nn.Linear(hidden, width)

    @property
    def inputs(self) -> dict[str, Input]:
        frames = (self.config.frames,)
        # Where nothing sounds a position says nothing: weights have been trained with it kept.
        found = {"frame_phones": Input(shape=frames), "voice": Input(),
                 "frame_position": Input(0, frames, torch.float32, dropped=False)}
        if self.config.features:
            return {**found, "frame_index": Input(-1, frames),
                    "phone_embedding": Input(0, (1, self.config.features), torch.float32)}
        return found

    def encode(self, batch: dict[str, Any]) -> Condition:
        frames = self.frames(batch) + self.position(progress(batch["frame_position"],
                                                             self.position.weight.dtype))
        voice = self.voice(batch["voice"])
        hidden = self.down(frames.transpose(1, 2)) + voice[..., None]
        hidden = self.mix(hidden)
        residual = self.spread(hidden)
        residual = residual.unflatten(1, (self.config.channels, self.config.rows))
        tokens = self.token(torch.cat([voice[:, None], hidden.transpose(1, 2)], dim=1))
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
                         residual)

    def frames(self, batch: dict[str, Any]) -> Tensor:
        """(B, frames, embedding): what sounds in each frame."""
        if not self.config.features:
            return self.phone(batch["frame_phones"])
        index = batch["frame_index"][..., None]
        vectors = self.vectors(batch)
        sounding = vectors.gather(1, index.clamp(min=0).expand(-1, -1, vectors.shape[-1]))
        nothing: Any = self.phone.bias
        return torch.where(index < 0, nothing.to(vectors), sounding)
