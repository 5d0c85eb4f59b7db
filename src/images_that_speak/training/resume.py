"""Going on from a checkpoint under the settings of now: whether they fit, and which of the two has a say.

A checkpoint says where a training is: weights, moments, counters. The configuration says how it goes on:
learning rates, schedules, decay. Libraries restore both from the checkpoint, and a changed rate would be
ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from ..errors import UserError
from .lora import trainable_state

# Of a schedule's state: where it is. All else is how it goes.
PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")


def open_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are read when they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def misfit(module: L.LightningModule, saved: dict[str, Any]) -> str | None:
    """What of a Lightning checkpoint does not fit `module`, whose parameters may be without numbers; or None.

    Its weights by name and shape, and how many parameters its optimisers train.
    """
    own = module.state_dict()
    if not module.strict_loading:
        own = trainable_state(module, own)
    before = {name: tuple(value.shape) for name, value in saved["state_dict"].items()}
    now = {name: tuple(value.shape) for name, value in own.items()}
    odd = [name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)]
    if odd:
        more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
        return f"{odd[0]} is {_shape(before, odd[0])} there and {_shape(now, odd[0])} now{more}"
    trained = sum(p.requires_grad for p in module.parameters())
    counted = sum(len(group["params"]) for state in saved["optimizer_states"]
                  for group in state["param_groups"])
    if counted != trained:
        return f"{counted} parameters were trained there, and {trained} would be now"
    return None


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return "×".join(map(str, shapes[name])) or "a number" if name in shapes else "absent"


def refuse_misfit(module: L.LightningModule, path: Path) -> None:
    """Raise UserError when the checkpoint at `path` is of another network, or of another part of it."""
    if (fault := misfit(module, open_checkpoint(path))) is not None:
        raise UserError(f"{path}: does not fit the settings of now: {fault} (expected model, adapter and "
                        "trainer as it was trained with; without resume= they train from the beginning)")


class Begin(L.Callback):
    """Calls `begin` with the steps done, when all is set up and loaded; it gives the loggers.

    Until then anything that is wrong leaves everything as it was. Stands before all other callbacks.
    """

    def __init__(self, begin: Callable[[int], Iterable[Logger]]):
        self.begin = begin

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loggers = list(self.begin(trainer.global_step))
        if not loggers:
            return
        trainer.loggers = loggers
        for logger in loggers:
            logger.log_hyperparams(pl_module.hparams_initial)
        # Lightning goes through this very list, and comes to it.
        trainer.callbacks.append(LearningRateMonitor("step"))  # type: ignore[attr-defined]


class OwnSettings(L.Callback):
    """Has optimisers and schedules go on with the configuration's settings, not with the checkpoint's.

    Where nothing was changed, nothing is touched: the training is that of one never stopped, bit for bit.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Optimisers are there and the checkpoint is not loaded into them yet.
        self._groups = [[_settings(group) for group in optimizer.param_groups]
                        for optimizer in trainer.optimizers]
        self._schedules = [_course(config.scheduler) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                before, now = group.get("initial_lr", group["lr"]), own.get("initial_lr", own["lr"])
                rate = group["lr"]
                group.update(own)
                if now == before:
                    group["lr"] = rate
                else:
                    group["lr"] = rate * now / before if before else now
        for config, own in zip(trainer.lr_scheduler_configs, self._schedules, strict=True):
            scheduler: Any = config.scheduler
            changed = {key: value for key, value in own.items() if scheduler.__dict__.get(key) != value}
            scheduler.__dict__.update(changed)
            if isinstance(scheduler, LambdaLR):
                # It is a function of the step alone; with another length it is elsewhere on its curve.
                for group, base, factor in zip(scheduler.optimizer.param_groups, scheduler.base_lrs,
                                               scheduler.lr_lambdas, strict=True):
                    group["lr"] = base * factor(scheduler.last_epoch)
            elif isinstance(scheduler, OneCycleLR):
                # So are its rates and its momenta, which are settings of the group.
                scheduler.last_epoch -= 1
                scheduler._step_count -= 1
                scheduler.step()


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _course(scheduler: Any) -> dict[str, Any]:
    return {key: value for key, value in scheduler.state_dict().items()
            if key not in (*PROGRESS, "lr_lambdas")}
