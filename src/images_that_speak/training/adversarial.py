"""What the trainings with a discriminator do alike, for whom Lightning cannot step by itself."""

from __future__ import annotations

from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor


def step(module: LightningModule, optimizer: LightningOptimizer, loss: Tensor, clip: float | None) -> None:
    """One step of an optimizer of a module by hand. clip: largest norm of its gradients; None: any."""
    optimizer.zero_grad()
    module.manual_backward(loss)
    if clip is not None:
        module.clip_gradients(optimizer.optimizer, clip, "norm")
    optimizer.step()
