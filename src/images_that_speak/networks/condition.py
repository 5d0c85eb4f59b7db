"""What a conditioner reads of a batch and makes of it, and what a UNet can be given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
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


@dataclass(frozen=True)
class Input:
    """What a conditioner reads of a batch under one key.

    Attributes:
        null: what says nothing, a number or a tensor of `shape`.
        shape: of one sample that says nothing; dtype: its type.
        need: "always"; "training", where `encode` expects a value of its own elsewhere; or "given", where it
            is only taken away with the others.
        dropped: whether dropping a condition sets it to `null`.
    """

    null: Any = 0
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.long
    need: Literal["always", "training", "given"] = "always"
    dropped: bool = True


class Conditioner(nn.Module, ABC):
    """A batch → Condition. What it reads is declared, and what says nothing follows from it.

    timed: whether it is told when each phone sounds. pitched: whether it is told the pitch, and has a network
        `expected` that expects one, ln Hz (B, frames), of a batch without.
    tokenizer: what makes "input_ids" of texts, for those that read them.
    channels: of its residual, which must be those of the UNet's first feature map; None: any.
    voices: how many it knows; None where it knows none by number.
    """

    timed: ClassVar[bool] = False
    pitched: ClassVar[bool] = False
    tokenizer: Any = None
    channels: int | None = None
    voices: int | None = None

    @property
    @abstractmethod
    def inputs(self) -> dict[str, Input]:
        """What it reads of a batch, by key."""

    @abstractmethod
    def encode(self, batch: dict[str, Any]) -> Condition:
        """The condition of a batch."""

    def forward(self, batch: dict[str, Any]) -> Condition:
        return self.encode(batch)

    def lacks(self, keys: Collection[str]) -> list[str]:
        """What a training needs and batches of these keys do not have."""
        return [key for key, read in self.inputs.items() if read.need != "given" and key not in keys]

    def null(self, n: int) -> Condition:
        """The condition of `n` samples about which nothing is said."""
        device = next(self.parameters()).device
        return self.encode({key: torch.as_tensor(read.null, dtype=read.dtype, device=device)
                            .expand(n, *read.shape)
                            for key, read in self.inputs.items() if read.need == "always"})

    def drop(self, batch: dict[str, Any], rows: Tensor) -> dict[str, Any]:
        """The batch with nothing said in `rows` (B,) bool."""
        nothing = {}
        for key, read in self.inputs.items():
            if key in batch and read.dropped:
                value = batch[key]
                where = rows.view(-1, *[1] * (value.ndim - 1))
                nothing[key] = torch.where(where, torch.as_tensor(read.null).to(value), value)
        return {**batch, **nothing}

    def auxiliary_loss(self, batch: dict[str, Any]) -> Tensor | float:
        """What a training adds to its loss."""
        return 0.0

    def export(self, folder: Path, save: Callable[[Any, Path], None]) -> None:
        """Write below `folder` what generating loads, each network by `save(network, where)`."""
        save(self, folder / "adapter")


def _stack(parts: Sequence[Tensor | None]) -> Tensor | None:
    """All of them along the batch, or None when there are none."""
    there = [part for part in parts if part is not None]
    if there and len(there) < len(parts):
        raise ValueError("conditions with and without a residual or pooled vector cannot be stacked")
    return torch.cat(there) if there else None
