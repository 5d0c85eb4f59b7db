"""metrics.jsonl of a training: exact, also over a kill and a resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightning as L

from ..ranges import check_ranges
from .run import append_metrics


class MetricsJsonl(L.Callback):
    """Writes what the module logs to `path`, every `every` optimiser steps and after each validation.

    A callback, not a Lightning logger: a logger is told of a step after the checkpoint of that step is saved,
    so a kill in between would lose a line. Here the line is written first, and the checkpoint carries the
    length of the file. A training that goes on from it drops what later steps wrote and writes it again, so
    the file is the same, byte for byte, as that of a training never stopped.

    `figures` are the latest of all, for the result. They too are those of a training never stopped: one that
    was killed after its last step runs no step that would log them again.

    Names that begin with `valid/` belong to validation; all others to training steps.
    """

    def __init__(self, path: str | Path, every: int = 20):
        check_ranges({"trainer.log_every": every})
        self.path = Path(path)
        self.every = every
        self.length = 0  # bytes written before the checkpoint
        self.step = 0
        self.last_step = -1  # the last one written
        self._before: dict[str, float] = {}  # figures at the checkpoint gone on from
        self._trainer: L.Trainer | None = None

    @property
    def figures(self) -> dict[str, float]:
        now = {} if self._trainer is None else self._trainer.callback_metrics
        return {**self._before, **{name: float(value) for name, value in now.items()}}

    def state_dict(self) -> dict[str, Any]:
        return {"length": self.length, "step": self.step, "last_step": self.last_step,
                "figures": self.figures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.length, self.step, self.last_step = state["length"], state["step"], state["last_step"]
        self._before = state.get("figures", {})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not on_fit_start: a sharded training hands over the checkpoint's state only after that.
        self._trainer = trainer
        if not trainer.is_global_zero or not self.path.exists():
            return
        for line in self.path.read_bytes()[self.length:].splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] > self.step or not self.step:
                break
            self.length += len(line)
        os.truncate(self.path, min(self.length, self.path.stat().st_size))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = self.step = trainer.global_step
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
