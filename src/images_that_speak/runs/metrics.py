"""metrics.jsonl of a training: exact, also over a kill and a resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L

from .run import append_metrics


class MetricsJsonl(L.Callback):
    """Writes what the module logs to `path`, every `every` optimiser steps and after each validation.

    A callback, not a Lightning logger: a logger is told of a step after the checkpoint of that step is saved,
    so a kill in between would lose a line. Here the line is written first, and the checkpoint carries the
    length of the file. A training that goes on from it drops what came after and writes it again, so the file
    is the same, byte for byte, as that of a training never stopped.

    Names that begin with `valid/` belong to validation; all others to training steps.
    """

    def __init__(self, path: str | Path, every: int = 20):
        if every < 1:
            raise ValueError(f"every={every}: expected at least 1")
        self.path = Path(path)
        self.every = every
        self.length = 0  # bytes written so far, as of the checkpoint the training goes on from
        self.last_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"length": self.length, "last_step": self.last_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.length, self.last_step = state["length"], state["last_step"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.path.exists():
            os.truncate(self.path, min(self.length, self.path.stat().st_size))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        # Under gradient accumulation several batches make one step.
        if step != self.last_step and step % self.every == 0:
            self.last_step = step
            self._write(trainer, step, validation=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, trainer.global_step, validation=True)

    def _write(self, trainer: L.Trainer, step: int, validation: bool) -> None:
        metrics = {name: value for name, value in sorted(trainer.callback_metrics.items())
                   if name.startswith("valid/") == validation}
        if metrics and trainer.is_global_zero:
            append_metrics(self.path, metrics, step)
            self.length = self.path.stat().st_size
