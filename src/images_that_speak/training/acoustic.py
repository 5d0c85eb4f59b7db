"""The acoustic model, taught what phonemes look like before a UNet reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ..networks.adapters import AcousticModel
from .diffusion import column_weights, crop_to_speech
from .export import save_half
from .schedule import adamw


class AcousticTraining(L.LightningModule):
    """Weighted squared error of the latent that `AcousticModel` expects.

    A batch holds "latent" (B, C, H, W), normalised, "frame_phones" and "frame_position" (B, F), "voice" (B,).

    Args:
        network: the model to train.
        channel_weights: (C,) weights of the latent's channels; None weighs whitened channels alike.
        silence_weight: of columns where no phoneme sounds, in [0, 1].
        crop_columns: train on windows of that many columns around the speech; None on whole pictures.
    """

    def __init__(self, network: AcousticModel, *, channel_weights: list[float] | None = None,
                 silence_weight: float = 0.25, crop_columns: int | None = None, lr: float = 1.5e-3,
                 warmup: int = 100, max_steps: int | None = None, weight_decay: float = 0.01):
        super().__init__()
        # Numbers only: Lightning reads a checkpoint's hyperparameters with weights_only.
        self.save_hyperparameters(ignore=["network"])
        self.network = network

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        latent = batch["latent"].float()
        weight = column_weights(batch["frame_phones"], latent.shape[-1], self.hparams["silence_weight"])
        if self.hparams["channel_weights"] is not None:
            each = torch.tensor(self.hparams["channel_weights"], device=latent.device)
            weight = weight * each[:, None, None]
        return ((self.network(batch) - latent) ** 2 * weight).mean() / weight.mean()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        columns = self.hparams["crop_columns"]
        loss = self.loss(batch if columns is None else crop_to_speech(batch, columns))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.log("valid/loss", self.loss(batch), batch_size=len(batch["latent"]), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return adamw(self.parameters(), lr=self.hparams["lr"], warmup=self.hparams["warmup"],
                     total=self.hparams["max_steps"], weight_decay=self.hparams["weight_decay"])

    def export(self, folder: Path, _: Iterable[Any]) -> None:
        """Write `acoustic/`, which `AcousticModel.from_pretrained` loads, in fp16."""
        save_half(self.network, folder / "acoustic")
