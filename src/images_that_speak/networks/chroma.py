"""The colours of a gray picture, from what it shows and what its caption says."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate


class ToldBlock(nn.Module):
    """A residual block that a text scales and shifts (FiLM, Perez et al. 2018)."""

    def __init__(self, width: int, text: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.film = nn.Linear(text, 2 * width)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(),
                                  nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """(B, width, H, W), (B, text) → (B, width, H, W)."""
        scale, shift = self.film(text)[..., None, None].chunk(2, 1)
        return x + self.body(gelu(self.norm(x) * (1 + scale) + shift))


class ChromaNet(ModelMixin, ConfigMixin):
    """Gray picture and pooled caption → its chroma, at an eighth of the resolution.

    Chroma is (R − Y)/Y and (B − Y)/Y, so that a dim drawing has the colours of a bright one. The caption
    names a few colours, and the picture says which of them, or gray, is where.

    Args:
        widths: channels of the three levels, each half as fine as the one before. text: width of the caption.
        colours: that a caption names.
    """

    config_name = "config.json"
    REDUCTION = 8  # pixels of the picture that one value of the chroma stands for

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (24, 40, 64), text: int = 128, colours: int = 6):
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.first = nn.Conv2d(1, widths[0], 3, padding=1)
        self.before = nn.ModuleList(ToldBlock(width, text) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.after = nn.ModuleList(ToldBlock(width, text) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairs)
        self.where = nn.Conv2d(widths[0], colours + 1, 3, padding=1)
        self.palette = nn.Sequential(nn.Linear(text, 128), nn.GELU(), nn.Linear(128, 2 * colours))

    def forward(self, gray: Tensor, text: Tensor) -> Tensor:
        """(B, 1, H, W) gray in [0, 1], H and W multiples of 4, (B, text) captions → (B, 2, H, W)."""
        x = self.first(gray)
        kept: list[Any] = []
        for level, block in enumerate(self.before):
            x = block(x, text)
            if level < len(self.down):
                kept.append(x)
                x = self.down[level](x)
        x = self.after[-1](x, text)
        for level in reversed(range(len(self.up))):
            x = kept[level] + self.up[level](interpolate(x, scale_factor=2.0))
            x = self.after[level](x, text)
        where = self.where(gelu(x)).softmax(1)[:, 1:]
        return torch.einsum("bkhw,bkc->bchw", where, self.palette(text).unflatten(1, (-1, 2)))


def reduced(gray: Tensor) -> Tensor:
    """(B, H, W) pictures → what the network sees of them, (B, 1, H/8, W/8)."""
    return torch.nn.functional.avg_pool2d(gray[:, None], ChromaNet.REDUCTION)
