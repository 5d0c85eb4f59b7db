"""What a conditioner makes of a batch, and what a UNet can be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass
class Condition:
    """Tokens for cross-attention and, optionally, a residual on the UNet's first feature map.

    Attributes:
        tokens: (B, L, D).
        mask: (B, L) bool, True where a token counts.
        residual: (B, C, H, W), added to the output of `conv_in`, or None. Adding there is the same as
            giving `conv_in` extra input channels, yet leaves a pretrained UNet's weights as they are.
    """

    tokens: Tensor
    mask: Tensor
    residual: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(self.tokens[rows], self.mask[rows],
                         None if self.residual is None else self.residual[rows])

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Stack conditions along the batch, padding tokens to the longest."""
        length = max(part.tokens.shape[1] for part in parts)
        tokens = [pad(part.tokens, (0, 0, 0, length - part.tokens.shape[1])) for part in parts]
        mask = [pad(part.mask, (0, length - part.mask.shape[1])) for part in parts]
        residuals = [part.residual for part in parts]
        if any(r is None for r in residuals) and not all(r is None for r in residuals):
            raise ValueError("conditions with and without a residual cannot be stacked")
        residual = None if residuals[0] is None else torch.cat(residuals)  # type: ignore[arg-type]
        return Condition(torch.cat(tokens), torch.cat(mask), residual)
