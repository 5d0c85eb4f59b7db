"""An exponential moving average of what is trained, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..ranges import RANGES


class EMA(L.Callback):
    """Shadow copies of the parameters that require a gradient, and of batch norms' running statistics.

    shadow ← d·shadow + (1 − d)·parameter after every optimiser step, with the warm-up
    d = min(decay, (1 + n)/(10 + n)) so that the first steps do not linger. Lightning's own EMA copies the
    frozen base too and cannot resume a LoRA-only checkpoint. Validation runs on the shadow.

    Args:
        decay: in [0, 1).
    """

    def __init__(self, decay: float = 0.999):
        if (wrong := RANGES["trainer.ema_decay"].wrong("decay", decay)) is not None:
            raise UserError(wrong)
        self.decay = decay
        self.shadow: dict[str, Tensor] = {}
        self.updates = 0
        self.last_step = 0

    @staticmethod
    def averaged(module: nn.Module) -> dict[str, Tensor]:
        """{name: tensor} of what is averaged."""
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        return trained | {name: value for name, value in module.named_buffers()
                          if name.endswith(("running_mean", "running_var"))}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, parameter in self.averaged(pl_module).items():
            kept = self.shadow.get(name)
            self.shadow[name] = (parameter.detach().clone() if kept is None
                                 else kept.to(parameter.device, parameter.dtype))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # Under gradient accumulation several batches make one step.
        if trainer.global_step == self.last_step:
            return
        self.last_step = trainer.global_step
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = self.averaged(pl_module)
        with torch.no_grad():
            torch._foreach_lerp_([self.shadow[name] for name in parameters],
                                 [p.detach() for p in parameters.values()], 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within, `module` carries the average instead of its own parameters."""
        parameters = self.averaged(module)
        backup = {name: p.detach().clone() for name, p in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.shadow[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(backup[name])

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.shadow:
            self._swap = self.applied(pl_module)
            self._swap.__enter__()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.shadow:
            self._swap.__exit__(None, None, None)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "updates": self.updates, "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.shadow = dict(state_dict["shadow"])
        self.updates = state_dict["updates"]
        self.last_step = state_dict["last_step"]
