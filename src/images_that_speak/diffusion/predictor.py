"""A UNet bound to what it predicts: from noisy latent and condition to x̂₀ and ε̂."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..networks.condition import Condition

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class NoiseSchedule:
    """x_t = α_t x₀ + σ_t ε with α_t² = ᾱ_t, σ_t² = 1 − ᾱ_t (Ho et al. 2020, eq. 4).

    The default is Stable Diffusion's "scaled linear" schedule.

    Args:
        steps: number of training timesteps.
        beta_start, beta_end: ends of the schedule, linear in √β.
    """

    def __init__(self, steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0)
        # Rounded to float32 only now: not every device knows float64.
        self.alpha, self.sigma = self.alphas_cumprod.sqrt().float(), (1 - self.alphas_cumprod).sqrt().float()
        self.steps = steps

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) → α, σ of shape (B, 1, …), in float32 on the device of `like`."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        alpha, sigma = (table.to(like.device)[t.to(like.device).long()].view(shape)
                        for table in (self.alpha, self.sigma))
        return alpha, sigma

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of clean latents (B, …)."""
        alpha, sigma = self.coefficients(t, x0)
        return alpha * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor, prediction_type: str) -> Tensor:
        """What a UNet of this type should answer; v = α ε − σ x₀ (Salimans and Ho 2022)."""
        if prediction_type == "epsilon":
            return noise
        if prediction_type == "sample":
            return x0
        alpha, sigma = self.coefficients(t, x0)
        return alpha * noise - sigma * x0

    def snr(self, t: Tensor) -> Tensor:
        """α²/σ² of timesteps (B,)."""
        alpha, sigma = self.coefficients(t, t)
        return (alpha / sigma) ** 2


@dataclass
class Prediction:
    """One model's estimate of the clean latent and of the noise, both (B, C, H, W) float32."""

    x0: Tensor
    eps: Tensor


class Predictor(nn.Module):
    """UNet(x_t, t, condition) → Prediction, whatever the UNet was trained to predict.

    Args:
        unet: a stock UNet2DConditionModel.
        schedule: the noise schedule it was trained with.
        prediction_type: "epsilon", "v_prediction" or "sample".
    """

    def __init__(self, unet: UNet2DConditionModel, schedule: NoiseSchedule,
                 prediction_type: str = "epsilon"):
        super().__init__()
        if prediction_type not in PREDICTION_TYPES:
            raise UserError(f"prediction_type={prediction_type!r}: expected one of "
                            f"{', '.join(PREDICTION_TYPES)}.{nearest(prediction_type, PREDICTION_TYPES)}")
        self.unet = unet
        self.schedule = schedule
        self.prediction_type = prediction_type
        self._residual: Tensor | None = None
        unet.conv_in.register_forward_hook(self._add_residual)

    def _add_residual(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if self._residual is None else output + self._residual.to(output.dtype)

    def _pooled(self, condition: Condition, dtype: torch.dtype) -> Tensor | None:
        if not self.unet.config.time_cond_proj_dim or condition.pooled is None:
            return None
        return condition.pooled.to(dtype)

    @contextmanager
    def _told(self, condition: Condition) -> Iterator[dict[str, Tensor | None]]:
        """The UNet's arguments that say a condition; within, the residual is added to its first feature map.
        """
        dtype = self.unet.dtype
        self._residual = condition.residual
        try:
            yield {"encoder_hidden_states": condition.tokens.to(dtype),
                   "timestep_cond": self._pooled(condition, dtype),
                   "encoder_attention_mask": None if bool(condition.mask.all()) else condition.mask}
        finally:
            self._residual = None

    def raw(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """What the UNet itself says, (B, C, H, W)."""
        with self._told(condition) as told:
            return self.unet(x_t.to(self.unet.dtype), t, **told).sample

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """(B, C, H, W) noisy latent, (B,) timesteps → Prediction in float32."""
        with self._told(condition) as told:
            answer = self.unet(x_t.to(self.unet.dtype), t, **told).sample.float()
        x_t = x_t.float()
        alpha, sigma = self.schedule.coefficients(t, x_t)
        if self.prediction_type == "v_prediction":
            return Prediction(x0=alpha * x_t - sigma * answer, eps=sigma * x_t + alpha * answer)
        if self.prediction_type == "epsilon":
            return Prediction(x0=(x_t - sigma * answer) / alpha, eps=answer)
        return Prediction(x0=answer, eps=(x_t - alpha * answer) / sigma)
