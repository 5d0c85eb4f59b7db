"""A picture as a network: brightness from the place of a pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierPicture(nn.Module):
    """Places → random Fourier features → a perceptron → brightness (Tancik et al. 2020).

    γ(v) = (sin 2πBv, cos 2πBv), v a pixel's row and column as shares of the picture's height and width, the
    columns of B drawn from N(0, bandwidth²). As in Images that Sound, a hidden layer is linear, ReLU, batch
    norm over the pixels.

    Args:
        rows, columns: of the picture. features: columns of B. hidden, layers: of the perceptron.
        bandwidth: in cycles a picture.
    """

    waves: Tensor

    def __init__(self, rows: int = 256, columns: int = 1024, features: int = 128, hidden: int = 256,
                 layers: int = 3, bandwidth: float = 10.0):
        super().__init__()
        y, x = (torch.arange(n) / n for n in (rows, columns))
        places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(-1, 2)
        angles = 2 * math.pi * places @ (torch.randn(2, features) * bandwidth)
        self.register_buffer("waves", torch.cat([angles.sin(), angles.cos()], -1), persistent=False)
        widths = [2 * features, *[hidden] * layers]
        parts = [part for wide, next_ in zip(widths, widths[1:], strict=False)
                 for part in (nn.Linear(wide, next_), nn.ReLU(), nn.BatchNorm1d(next_))]
        self.body = nn.Sequential(*parts, nn.Linear(widths[-1], 1))
        self.shape = (1, rows, columns)

    def forward(self) -> Tensor:
        """The picture, (1, rows, columns) in (0, 1)."""
        return self.body(self.waves).view(self.shape).sigmoid()
