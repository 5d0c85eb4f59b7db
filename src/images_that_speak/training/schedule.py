"""Optimisers and learning-rate schedules that every LightningModule here shares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn


def learning_rate_factor(step: int, warmup: int, total: int | None) -> float:
    """Linear warm-up over `warmup` steps, then a cosine to 0 at `total` (constant when None)."""
    if step < warmup:
        return (step + 1) / warmup
    if total is None:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def adamw(parameters: Iterable[nn.Parameter] | list[dict[str, Any]], *, lr: float, warmup: int = 0,
          total: int | None = None, weight_decay: float = 0.01,
          betas: tuple[float, float] = (0.9, 0.99)) -> OptimizerLRSchedulerConfig:
    """AdamW with warm-up and cosine, in the form `configure_optimizers` returns."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, warmup, total))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
