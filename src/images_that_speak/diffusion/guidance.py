"""Guidance wraps the model: a branch bound to its conditions, and two branches acting as one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from ..networks.condition import Condition
from .composition import Composition, Guided, Moment
from .predictor import Predictor


class Branch:
    """A predictor bound to B conditions, to as many null conditions and to a guidance scale.

    Both passes of all samples are one UNet call of 2B.
    """

    def __init__(self, predictor: Predictor, condition: Condition, null: Condition, scale: float):
        self.predictor = predictor
        self.condition = Condition.cat([null, condition])
        self.scale = float(scale)

    def __call__(self, x: Tensor, t: Tensor) -> Guided:
        """x_t (B, C, H, W) at timestep t () → this branch's x̂₀ without and with its condition."""
        prediction = self.predictor(torch.cat([x, x]), t.expand(2 * len(x)), self.condition)
        uncond, cond = prediction.x0.chunk(2)
        return Guided(uncond, cond, self.scale)


class Joint:
    """Branches joined by a composition, each from its start point on.

    Before a branch's start only the other acts, and the late one's UNet is not called.

    Args:
        compose: says which branches it needs.
        branches: `image`, `speech` or both.
        starts: for each branch the share of the schedule at which it sets in, in [0, 1); one must be 0.
        activity: (B, F) speech activity, for compositions with a mask.
    """

    def __init__(self, compose: Composition, branches: dict[str, Branch],
                 starts: dict[str, float] | None = None, activity: Tensor | None = None):
        missing = [name for name in compose.branches if name not in branches]
        if missing:
            raise UserError(f"composition={type(compose).__name__}: needs the {missing[0]} branch, "
                            "which the family does not have")
        self.compose = compose
        self.branches = {name: branches[name] for name in compose.branches}
        # Alone, a branch has nobody to leave the first steps to.
        self.starts = {name: float((starts or {}).get(name, 0.0)) if len(self.branches) > 1 else 0.0
                       for name in self.branches}
        check_starts(self.starts)
        self.activity = activity

    def __call__(self, x: Tensor, t: Tensor, progress: float) -> Tensor:
        """x_t (B, C, H, W) at timestep t → the joint x̂₀."""
        said = {name: branch(x, t) for name, branch in self.branches.items() if progress >= self.starts[name]}
        if len(said) < 2:
            return next(iter(said.values())).guided
        return self.compose(said["image"], said["speech"], Moment(progress, self.activity))


def check_starts(starts: dict[str, float]) -> None:
    """Raise UserError unless every start lies in [0, 1) and one is 0."""
    keys = {"image": "guidance.image_start", "speech": "guidance.audio_start"}
    for name, start in starts.items():
        if not 0 <= start < 1:
            raise UserError(f"{keys[name]}={start}: expected a share of the schedule in [0, 1)")
    if starts and min(starts.values()) > 0:
        told = ", ".join(f"{keys[name]}={start}" for name, start in starts.items())
        raise UserError(f"{told}: one branch must start at 0, or the first steps have nobody to take them")
