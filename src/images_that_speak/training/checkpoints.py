"""Checkpoints of a training: when they are written, how they stay whole, and which one is gone on from.

`last.ckpt` is the newest and `previous.ckpt` the one before it. Both are zip files with a checksum for each
part, so a file that was cut off or changed is known before anything is loaded from it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import zipfile
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from ..config import first_line
from ..errors import UserError
from ..files import atomic_path

log = logging.getLogger(__name__)
# Ctrl-C, and the signal that submitit has SLURM send before the time is over.
SIGNALS = (signal.SIGINT, signal.SIGUSR2)


def write_checkpoint(checkpoint: Any, path: str | Path) -> None:
    """Write `path` under a temporary name and rename it; what was there becomes `previous.ckpt` beside it.

    Raises UserError when the disk is full; both files stay as they were.
    """
    # In memory first: torch reports a full disk as an error without a cause, plain bytes tell the truth.
    buffer = BytesIO()
    torch.save(checkpoint, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
        if Path(path).exists():
            os.replace(path, previous(path))


def previous(path: str | Path) -> Path:
    return Path(path).with_name("previous.ckpt")


def whole_checkpoint(path: str | Path) -> Path | None:
    """The checkpoint to go on from, `path` or the one before it; None where there is none.

    A broken `path` is named in a warning and kept as `broken.ckpt`. Raises UserError when there are
    checkpoints and none is whole: going on would silently begin anew.
    """
    path = Path(path)
    broken = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        fault = damage(candidate)
        if fault is not None:
            broken.append(f"{candidate}: {fault}")
            continue
        if broken:
            os.replace(path, path.with_name("broken.ckpt"))
            found = _open(candidate)
            log.warning("%s; goes on from the one before it, step %s", broken[0],
                        found["global_step"])
        return candidate
    if broken:
        raise UserError("\n".join([*broken, "no checkpoint is whole; fresh=true trains anew beside them"]))
    return None


def check_reached(path: Path, steps: int) -> None:
    """Raise UserError when the checkpoint `path` is of a later step than `steps`: weights do not go back."""
    if not path.exists() or damage(path) is not None:
        return
    found = _open(path)
    reached = int(found["global_step"])
    if reached > steps:
        raise UserError(f"steps={steps}: {path} is of step {reached} already; expected at least {reached}, "
                        f"or steps={steps} without resume=, which trains anew")


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's file; None when every part has its checksum and it can be loaded."""
    try:
        with zipfile.ZipFile(path) as file:
            if (part := file.testzip()) is not None:
                return f"no whole checkpoint ({part} is not what was written)"
        _open(path)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # these libraries raise whatever a changed byte leads them to
        return f"no whole checkpoint ({first_line(error)})"
    return None


def _open(path: Path) -> Any:
    """A checkpoint whose tensors are not read."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoints through `write_checkpoint`.

    Its own are written to the system's temporary folder and moved, which on another disk is a copy that a
    kill cuts off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, path)


class Checkpoints(Checkpoint):
    """`last.ckpt` every `every` steps, after the last step, and before a signal ends the training.

    Always at the end of a step and of the validation that belongs to it, for there the position in the data
    is exact: in the middle of a step its batch is drawn already, and would be missing from what follows. So a
    signal waits for the end of the step; within a validation it ends the training at once, as an error does
    anywhere, and the training goes on from the checkpoint before.

    Lightning's own saves when an exception passes, and before the validation of the same step.

    Raises UserError where a file cannot be written.
    """

    def __init__(self, folder: str | Path, every: int):
        self.path = Path(folder) / "last.ckpt"
        self.every = every
        self.saved = -1  # step of last.ckpt
        self._due = False
        self._asked: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                self._handlers[number] = handler
                signal.signal(number, lambda number, frame: self._signalled(trainer, number, frame))

    def _signalled(self, trainer: L.Trainer, number: int, frame: FrameType | None) -> None:
        asked, self._asked = self._asked, (number, frame)
        if asked is not None or trainer.validating:
            self._handlers[number](number, frame)
        elif trainer.is_global_zero:
            log.warning("%s: ends when this step is done", signal.Signals(number).name)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        # All ranks save together, or none does.
        ends = trainer.strategy.reduce_boolean_decision(self._asked is not None or trainer.received_sigterm,
                                                        all=False)
        # Under gradient accumulation several batches make one step.
        if step != self.saved and (ends or step % self.every == 0 or step == trainer.max_steps):
            self._due = True
        # A data module without validation data enables it all the same, and then none comes.
        validates = (trainer.enable_validation and sum(trainer.num_val_batches) > 0
                     and (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch == 0)  # type: ignore[operator]
        if not validates:
            self._save(trainer)
        if self._asked is not None:
            self._handlers[self._asked[0]](*self._asked)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if self._due and not trainer.sanity_checking:
            self._due, self.saved = False, trainer.global_step
            trainer.save_checkpoint(self.path, weights_only=False)  # optimisers and loops too

    def teardown(self, *_: Any, **__: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
