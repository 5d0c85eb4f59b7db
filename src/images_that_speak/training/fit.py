"""One way to run a Lightning training: checkpoints, EMA, progress, and going on where it stopped."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data.datamodule import PictureData
from ..errors import UserError
from ..ranges import check_ranges
from .checkpoints import Checkpoints, WholeFiles, check_reached, whole_checkpoint
from .ema import EMA
from .resume import Begin, OwnSettings, refuse_misfit

# Of frozen parts, which are meant to be in eval mode, and of Lightning's own use of torch.
EXPECTED = (r"Found \d+ module\(s\) in eval mode", r".*isinstance\(treespec, LeafSpec\)")


def only_news(record: logging.LogRecord) -> bool:
    """No to what recommends a product."""
    return "💡" not in record.getMessage()


def quieten() -> None:
    """Leave out what Lightning tells that no user can act on: what is left is worth reading."""
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(only_news)


class StepSeed(L.Callback):
    """Seeds torch anew at every batch from (seed, batch number).

    Noise, timesteps and dropout are then a function of the batch's number alone: a run that was killed and
    resumed draws what it would have drawn, without generator states in the checkpoint.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        batch = trainer.fit_loop.total_batch_idx
        state = np.random.SeedSequence([self.seed, batch]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> 1))


class StepBar(L.Callback):
    """One progress bar over the optimiser's steps of the whole run, with rate, time left and loss.

    Lightning's own begins anew at every epoch, so it cannot say when a run counted in steps will end.
    """

    def __init__(self, every: int):
        self.every = every
        self.bar: tqdm | None = None

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.is_global_zero:
            return
        self.bar = tqdm(total=trainer.max_steps, initial=trainer.global_step, unit="step", desc="Training",
                        dynamic_ncols=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.bar is None or trainer.global_step == self.bar.n:
            return
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            loss = trainer.callback_metrics.get("train/loss")
            if loss is not None:
                self.bar.set_postfix(loss=f"{float(loss):.4f}", refresh=False)
            self.bar.update(trainer.global_step - self.bar.n)

    def teardown(self, *_: Any, **__: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class LastValidation(L.Callback):
    """Has the last step validated, whatever `validate_every` is: a result tells of the weights beside it.

    Must come before what asks whether a batch is validated (`Checkpoints`).
    """

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.val_check_batch = trainer.fit_loop.total_batch_idx + 1


class Sharded(ModelParallelStrategy):
    """`trainer.strategy=fsdp`: torch's fully_shard over all processes, which runs on CPUs too."""

    def setup_environment(self) -> None:
        # Else Lightning would split the matrices themselves over the processes of a machine.
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


class Whole(L.Callback):
    """Gathers the weights of a sharded training at its end: `state` is {name: tensor} in the first
    process."""

    state: dict[str, Any] | None = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(trainer.strategy, Sharded):
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

            self.state = get_model_state_dict(pl_module, options=StateDictOptions(
                full_state_dict=True, cpu_offload=True))


def check_strategy(strategy: Any, ema_decay: float | None) -> None:
    """Raise UserError on settings of the trainer that exclude each other."""
    if strategy == "fsdp" and ema_decay is not None:
        raise UserError(f"trainer.ema_decay={ema_decay}: no average is kept of sharded weights; expected "
                        "null with trainer=fsdp")


def fit(module: L.LightningModule, train: DataLoader | L.LightningDataModule, folder: Path, *,
        max_steps: int, seed: int = 0, valid: DataLoader | None = None, precision: str = "32-true",
        checkpoint_every: int = 500, validate_every: int = 1000, ema_decay: float | None = 0.999,
        clip: float | None = 1.0, accumulate: int = 1, log_every: int = 20,
        begin: Callable[[int], Iterable[Logger]] = lambda done: (), callbacks: Iterable[L.Callback] = (),
        progress: bool = True, strategy: Any = "auto", **trainer: Any) -> L.Trainer:
    """Train `module` until `max_steps`, from `last.ckpt` when the folder has one.

    A broken `last.ckpt` is told, and the one before it gone on from. `begin` is called with the
    steps done before the first one, when nothing but the training itself can go wrong any more, and gives the
    loggers. Returns the trainer;
    when `ema_decay` is not None its EMA callback is found by `ema_of(trainer)`. Raises UserError on what
    cannot be done by several processes together, and where `module` does not fit the checkpoint.
    """
    check_strategy(strategy, ema_decay)
    check_ranges({"trainer.accumulate": accumulate, "trainer.checkpoint_every": checkpoint_every,
                  "trainer.log_every": log_every, "trainer.validate_every": validate_every})
    quieten()
    checkpoints = Checkpoints(folder / "checkpoints", checkpoint_every)
    extra: list[L.Callback] = [Begin(begin), StepSeed(seed), LastValidation(), checkpoints, Whole(),
                               *callbacks]
    if (resume := whole_checkpoint(checkpoints.path)) is not None:
        check_reached(resume, max_steps)
        refuse_misfit(module, resume)
        extra.append(OwnSettings())
    if ema_decay is not None:
        extra.append(EMA(ema_decay))
    if progress:
        extra.append(StepBar(log_every))
    automatic = module.automatic_optimization
    engine = L.Trainer(
        default_root_dir=folder, max_steps=max_steps,
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        callbacks=extra, gradient_clip_val=clip if automatic else None,
        accumulate_grad_batches=accumulate if automatic else 1, log_every_n_steps=log_every,
        val_check_interval=validate_every, check_val_every_n_epoch=None,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        plugins=[*cluster(), WholeFiles()],
        strategy=Sharded(save_distributed_checkpoint=False) if strategy == "fsdp" else strategy,
        use_distributed_sampler=False, **trainer)
    if engine.world_size > 1 and not isinstance(train, PictureData):
        raise UserError(f"trainer.devices={trainer.get('devices')}: {type(train).__name__} gives "
                        "every process the same batches; expected PictureData, which shares them out, or one "
                        "device")
    try:
        engine.fit(module, train, valid, ckpt_path=str(resume) if resume else None, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        raise
    return engine


def cluster() -> list[Any]:
    """Within a SLURM job: Lightning leaves requeueing to submitit, whose signal it would otherwise take.

    Submitit's handler ends the process; `Checkpoints` has it wait for the end of the step, and saves first.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def whole_state(trainer: L.Trainer) -> dict[str, Any] | None:
    """The gathered weights of a sharded training, or None where the module holds them itself."""
    return next(c.state for c in trainer.callbacks if isinstance(c, Whole))  # type: ignore[attr-defined]


def ema_of(trainer: L.Trainer) -> EMA | None:
    """The trainer's EMA callback, if it has one."""
    return next((c for c in trainer.callbacks  # type: ignore[attr-defined]
                 if isinstance(c, EMA)), None)
