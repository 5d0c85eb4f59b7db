"""What a conditioner makes of a batch, and what a UNet can be given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import register_dataclass


@dataclass
class Condition:
    """Tokens for cross-attention and, optionally, a residual on the UNet's first feature map.

    Attributes:
        tokens: (B, L, D).
        mask: (B, L) bool, True where a token counts.
        residual: (B, C, H, W), added to the output of `conv_in`, or None. Adding there is the same as
            giving `conv_in` extra input channels, yet leaves a pretrained UNet's weights as they are.
        pooled: (B, D), the whole of a prompt in one vector, which a UNet with `time_cond_proj_dim` adds to
            its time embedding; others leave it.
    """

    tokens: Tensor
    mask: Tensor
    residual: Tensor | None = None
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(self.tokens[rows], self.mask[rows], *(
            None if part is None else part[rows] for part in (self.residual, self.pooled)))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Stack conditions along the batch, padding tokens to the longest."""
        length = max(part.tokens.shape[1] for part in parts)
        tokens = [pad(part.tokens, (0, 0, 0, length - part.tokens.shape[1])) for part in parts]
        mask = [pad(part.mask, (0, length - part.mask.shape[1])) for part in parts]
        return Condition(torch.cat(tokens), torch.cat(mask), _stack([part.residual for part in parts]),
                         _stack([part.pooled for part in parts]))


# So that torch finds the tensors in what a conditioner returns: FSDP hangs its gathering on them.
register_dataclass(Condition)


def _stack(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All of them along the batch, or None when there are none."""
    there = [part for part in parts if part is not None]
    if there and len(there) < len(parts):
        raise ValueError("conditions with and without a residual or pooled vector cannot be stacked")
    return torch.cat(there) if there else None
