"""A callback that kills the process, for trainings that are to go on where they were killed."""

from __future__ import annotations

import os
import signal

import lightning as L


class KillAt(L.Callback):
    """SIGKILL, as an out-of-memory killer would send it, before the optimiser's step of one batch."""

    def __init__(self, batch: int):
        self.batch = batch

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)
