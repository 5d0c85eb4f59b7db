"""The sampler: a diffusers scheduler chosen by config, one loop and one callback.

The schedulers are fed x̂₀ (`prediction_type="sample"`), for composition happens on x̂₀.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, nearest

Callback = Callable[[dict[str, Any]], None]
Predict = Callable[[Tensor, Tensor, float], Tensor]


def make_scheduler(name: str, schedule: Mapping[str, Any], **options: Any) -> Any:
    """A scheduler of `schedulers.SCHEDULERS` on a family's noise schedule.

    Args:
        name: "ddim", "dpm" (DPM-Solver++ 2M) or "unipc".
        schedule: the family's scheduler config (betas, timestep_spacing, …).
        options: what the scheduler config changes; None leaves the family's value.

    Raises UserError on an unknown name.
    """
    from .schedulers import SCHEDULERS

    if name not in SCHEDULERS:
        raise UserError(f"scheduler.name={name!r}: expected one of {', '.join(SCHEDULERS)}."
                        f"{nearest(name, SCHEDULERS)}")
    kept = {key: value for key, value in schedule.items() if not key.startswith("_")}
    # The family's file names what its UNets predict; the loop hands over x̂₀, already converted.
    changed = {key: value for key, value in options.items() if value is not None}
    return SCHEDULERS[name].from_config({**kept, "clip_sample": False, "thresholding": False, **changed,
                                         "prediction_type": "sample"})


def set_steps(scheduler: Any, steps: int, device: torch.device | str = "cpu") -> None:
    """Prepare `scheduler` for exactly `steps` steps."""
    total = scheduler.config.num_train_timesteps
    if not 1 <= steps <= total:
        raise UserError(f"steps={steps}: expected 1 to {total}")
    scheduler.set_timesteps(steps, device=device)
    if len(scheduler.timesteps) == steps + 1:
        # Trailing spacing counts down in floating point and for some counts (61, 103, …) adds timestep −1.
        scheduler.timesteps = scheduler.timesteps[:-1]
        scheduler.num_inference_steps = steps
        if getattr(scheduler, "sigmas", None) is not None:
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-2], scheduler.sigmas[-1:]])


def noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (len(seeds), *shape), each sample from its own seed.

    Drawn on the CPU in float32, so that a seed means the same on every device and in every batch.
    """
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(predict: Predict, x: Tensor, scheduler: Any, steps: int,
           callback: Callback | None = None, first: int = 0) -> Tensor:
    """Run the reverse process from noise x (B, C, H, W) to a sample of the same shape.

    Args:
        predict: (x_t, t, progress) → x̂₀, with progress = i/steps in [0, 1).
        scheduler: from `make_scheduler`.
        steps: from 1 to the length of the training schedule.
        callback: called after every step with {"x": x after the step, "i": step, "t": timestep, "x0": x̂₀}.
        first: steps that are left out; x is then a sample noised for the timestep of the first that is not.
            Only for DDIM: the others look back.
    """
    set_steps(scheduler, steps, x.device)
    x = x * scheduler.init_noise_sigma
    for i, t in list(enumerate(scheduler.timesteps))[first:]:
        x0 = predict(x, t, i / steps)
        x = scheduler.step(x0, t, x).prev_sample
        if callback is not None:
            callback({"x": x, "i": i, "t": t, "x0": x0})
    return x
