"""Guidance wraps the model: a branch bound to its conditions, and two branches acting as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..networks.condition import Condition
from ..ranges import check_ranges
from .composition import Composition, Guided, Moment
from .predictor import Predictor

ALWAYS = (0.0, 1.0)


@dataclass(frozen=True)
class Guidance:
    """How hard a branch is guided, and when.

    scale: s of classifier-free guidance; 1 is the conditional model.
    interval: the shares of the schedule [from, to) in which it is guided, in [0, 1]; elsewhere s is 1
        (Kynkäänniemi et al. 2024).
    rescale: φ of `Guided`, in [0, 1].
    """

    scale: float
    interval: tuple[float, float] = ALWAYS
    rescale: float = 0.0

    def at(self, progress: float) -> float:
        """The scale when this share of the schedule is done."""
        return self.scale if self.interval[0] <= progress < self.interval[1] else 1.0

    def passes(self, progress: float, uses_uncond: bool) -> int:
        """UNet passes a sample: 2, or 1 where u is not asked for and cancels out of g."""
        return 2 if uses_uncond or self.at(progress) != 1 else 1


class Branch:
    """A predictor bound to B conditions, to as many null conditions and to its guidance.

    Both passes of all samples are one UNet call of 2B.
    """

    def __init__(self, predictor: Predictor, condition: Condition, null: Condition, guidance: Guidance):
        self.predictor = predictor
        self.condition = condition
        self.both = Condition.cat([null, condition])
        self.guidance = guidance

    def __call__(self, x: Tensor, t: Tensor, progress: float, uses_uncond: bool) -> Guided:
        """x_t (B, C, H, W) at timestep t () → this branch's x̂₀ without and with its condition.

        Where one pass is enough, `uncond` is `cond`, which leaves g = c.
        """
        scale = self.guidance.at(progress)
        if self.guidance.passes(progress, uses_uncond) == 1:
            cond = self.predictor(x, t.expand(len(x)), self.condition).x0
            return Guided(cond, cond, scale)
        prediction = self.predictor(torch.cat([x, x]), t.expand(2 * len(x)), self.both)
        uncond, cond = prediction.x0.chunk(2)
        return Guided(uncond, cond, scale, self.guidance.rescale)


class Said:
    """Stands for a branch that has made up its mind: the same x̂₀ (B, C, H, W) at every step."""

    def __init__(self, latent: Tensor):
        self.latent = latent

    def __call__(self, x: Tensor, t: Tensor, progress: float, uses_uncond: bool) -> Guided:
        return Guided(self.latent, self.latent, 1.0)


class Joint:
    """Branches joined by a composition, each from its start point on.

    Before a branch's start only the other acts, and the late one's UNet is not called.

    Args:
        compose: says which branches it needs.
        branches: `image`, `speech` or both.
        starts: for each branch the share of the schedule at which it sets in, in [0, 1); one must be 0.
        activity: (B, F) speech activity, for compositions with a mask.
    """

    def __init__(self, compose: Composition, branches: Mapping[str, Branch | Said],
                 starts: dict[str, float] | None = None, activity: Tensor | None = None):
        missing = [name for name in compose.branches if name not in branches]
        if missing:
            raise UserError(f"composition={compose.name}: needs the {missing[0]} branch, "
                            "which the family does not have")
        self.compose = compose
        self.branches = {name: branches[name] for name in compose.branches}
        self.starts = start_points(compose, starts)
        check_starts(self.starts)
        self.activity = activity

    def __call__(self, x: Tensor, t: Tensor, progress: float) -> Tensor:
        """x_t (B, C, H, W) at timestep t → the joint x̂₀."""
        said = {}
        for name, branch in self.branches.items():
            if progress >= self.starts[name]:
                said[name] = branch(x, t, progress, self.compose.uses_uncond)
        if len(said) < 2:
            return next(iter(said.values())).guided
        return self.compose(said["image"], said["speech"], Moment(progress, self.activity))


def start_points(compose: Composition, starts: dict[str, float] | None) -> dict[str, float]:
    """{branch: the share of the schedule at which it sets in} of the branches that `compose` needs."""
    # Alone, a branch has nobody to leave the first steps to.
    alone = len(compose.branches) < 2
    return {name: 0.0 if alone else float((starts or {}).get(name, 0.0)) for name in compose.branches}


def evaluations(compose: Composition, guidance: dict[str, Guidance], starts: dict[str, float] | None,
                steps: int) -> int:
    """UNet passes that one sample takes; a pass with and one without a condition count one each."""
    starts = start_points(compose, starts)
    draws, draw_steps = compose.speech_draws
    if draws:
        del starts["speech"]
    said = sum(guidance["speech"].passes(i / draw_steps, False) for i in range(draw_steps))
    return draws * said + sum(guidance[name].passes(i / steps, compose.uses_uncond)
                      for name, start in starts.items()
                      for i in range(steps) if i / steps >= start)


def check_starts(starts: dict[str, float]) -> None:
    """Raise UserError unless every start lies in [0, 1) and one is 0."""
    keys = {"image": "guidance.image_start", "speech": "guidance.audio_start"}
    check_ranges({keys[name]: start for name, start in starts.items()})
    if starts and min(starts.values()) > 0:
        told = ", ".join(f"{keys[name]}={start}" for name, start in starts.items())
        raise UserError(f"{told}: one branch must start at 0, or the first steps have nobody to take them")
