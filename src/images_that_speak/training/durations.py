"""The duration model, fitted to how long the phones of a corpus last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ..data.duration_data import DurationData
from ..figures import declares
from ..speech.durations import LONGEST, SHORTEST, DurationModel
from ..speech.phonemes import PAUSE, PHONE_IDS


@declares("train/loss", "valid/mae_ms", "valid/utterance_error")
class DurationTraining(L.LightningModule):
    """L1 on ln seconds: the median, which a few long phones do not move.

    Each phone begins with its mean in the training data. A batch is one of `data.duration_data.DurationData`.

    Validation leaves pauses out. It gives the mean absolute error of a phone in ms, "valid/mae_ms", beside
    that of the per-phone mean, "valid/baseline_ms", which is the best that can be done without the
    neighbours; and the mean absolute relative error of a phrase's length, "valid/utterance_error".

    Args:
        voices: names in the order of their numbers.
        width, layers, kernel, dropout: of the `DurationModel`.
        lr: the peak of one cycle (Smith and Topin 2019), reached after a tenth of `max_steps`.
    """

    def __init__(self, voices: Sequence[str], width: int = 96, layers: int = 2, kernel: int = 5,
                 dropout: float = 0.1, lr: float = 3e-3, max_steps: int = 500):
        super().__init__()
        self.save_hyperparameters()
        self.model = DurationModel(voices, width, layers, kernel, dropout)
        self.report: dict[str, float] = {}
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        # Before a checkpoint is restored. debug=overfit has no data module.
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, DurationData):
            for phone, seconds in data.spoken.items():
                self.model.mean.weight.data[phone] = float(seconds.mean())

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        mask = batch["phones"] > 0
        said = self.model(batch["phones"], mask, batch["voice"])
        loss = ((said - batch["seconds"]).abs() * mask).sum() / mask.sum()
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        phones = batch["phones"]
        said = self.model(phones, phones > 0, batch["voice"]).exp().clamp(SHORTEST, LONGEST)
        true = batch["seconds"].exp()
        speech = (phones > 0) & (phones != PHONE_IDS[PAUSE])
        lengths = (true * speech).sum(1)
        self._validated.append((
            (said - true).abs()[speech], (batch["expected"] - true).abs()[speech],
            ((said * speech).sum(1) - lengths).abs() / lengths))

    def on_validation_epoch_end(self) -> None:
        error, baseline, length = (torch.cat(found) for found in zip(*self._validated, strict=True))
        self._validated.clear()
        self.report = {"mae_ms": round(1000 * float(error.mean()), 2),
                       "baseline_ms": round(1000 * float(baseline.mean()), 2), "phones": len(error),
                       "utterance_error": round(float(length.mean()), 4)}
        self.log_dict({f"valid/{name}": float(value) for name, value in self.report.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["report"] = self.report

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.report = checkpoint["report"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=0.01)
        schedule = OneCycleLR(optimizer, self.hparams["lr"], total_steps=self.hparams["max_steps"],
                              pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `durations/`, which `DurationModel.from_pretrained` loads, with what was measured last."""
        self.model.save_pretrained(folder / "durations", self.report)
