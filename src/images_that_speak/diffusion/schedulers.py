"""The schedulers that a config may name. `sampling.make_scheduler` loads this, and diffusers with it."""

from __future__ import annotations

from typing import Any

from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from torch import Tensor


class DDIM(DDIMScheduler):
    """DDIM with η = 0 (Song et al. 2021, eq. 12) that steps to the timestep that really comes next.

    diffusers goes from t to t − T//steps, which is not the next timestep when `steps` does not divide T, and
    leaves noise behind. Where it does divide T both are the same.
    """

    def step(self, model_output: Tensor, timestep: Tensor | int, sample: Tensor, **_: Any  # type: ignore[override]
             ) -> DDIMSchedulerOutput:
        """x̂₀ and x_t, both (B, C, H, W) → x at the next timestep."""
        at = int((self.timesteps == timestep).nonzero()[0])
        after = int(self.timesteps[at + 1]) if at + 1 < len(self.timesteps) else -1
        here = self.alphas_cumprod[int(timestep)]
        there = self.alphas_cumprod[after] if after >= 0 else self.final_alpha_cumprod
        epsilon = (sample - here**0.5 * model_output) / (1 - here) ** 0.5
        return DDIMSchedulerOutput(there**0.5 * model_output + (1 - there) ** 0.5 * epsilon, model_output)


SCHEDULERS: dict[str, Any] = {
    "ddim": DDIM, "dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
