"""Optimisers and learning-rate schedules that every LightningModule here shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product
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
          betas: tuple[float, float] = (0.9, 0.99),
          factor: Callable[[int], float] | None = None) -> OptimizerLRSchedulerConfig:
    """AdamW with warm-up and cosine, in the form `configure_optimizers` returns.

    factor: of the learning rate at a step, in place of `learning_rate_factor`.
    """
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas)
    curve = factor or (lambda step: learning_rate_factor(step, warmup, total))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def regrouped(saved: dict[str, Any], roles: Sequence[str],
              shapes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """An optimiser's state with a group for each role, whatever its groups were.

    roles, shapes: of each trained parameter, in the order of the module. Groups used to be keyed by their
    learning rates, so that roles of one rate were one group. Returned as it is where no such grouping fits.
    """
    names = list(dict.fromkeys(roles))
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    if len(sizes) == len(names) or sum(sizes) != len(roles):
        return saved
    for numbers in product(range(len(sizes)), repeat=len(names)):
        group_of = dict(zip(names, numbers, strict=True))
        order = sorted(range(len(roles)), key=lambda at: group_of[roles[at]])
        moments = [saved["state"].get(place, {}).get("exp_avg") for place in range(len(order))]
        if ([sum(group_of[role] == number for role in roles) for number in range(len(sizes))] == sizes
                and all(moment is None or tuple(moment.shape) == tuple(shapes[at])
                        for moment, at in zip(moments, order, strict=True))):
            break
    else:
        return saved
    place_of = {at: place for place, at in enumerate(order)}
    state: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    for name in names:
        places = [place_of[at] for at, role in enumerate(roles) if role == name]
        first = sum(len(group["params"]) for group in groups)
        state |= {first + i: saved["state"][place] for i, place in enumerate(places)
                  if place in saved["state"]}
        groups.append({**saved["param_groups"][group_of[name]],
                       "params": list(range(first, first + len(places)))})
    return {**saved, "state": state, "param_groups": groups}
