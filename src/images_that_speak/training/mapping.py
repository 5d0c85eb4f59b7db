"""A baseline of speech to image: speech is mapped to where the text encoder puts what it says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, normalize

from ..figures import declares
from ..networks.scene import SceneConditioner
from ..networks.speech_bottleneck import SpeechConditioner
from .export import save_half
from .schedule import adamw


@declares("train/loss", "valid/loss", "valid/right")
class SpeechMapping(L.LightningModule):
    """Contrast, as SpeechCLIP has it (Shih et al. 2022), of what a bottleneck hears and a text encoder reads.

    The loss is the cross-entropy, both ways, of the cosines of B utterances with their B captions over
    `temperature`, and `distance` times the mean squared error of the vectors themselves: they are to be
    drawn from. Tokens are not taught; they stay near what is said of nothing.

    Args:
        conditioner: speech, in the text encoder's place. text: the conditioner that is mapped to; frozen.
        max_steps: of the run; a tenth of them is warm-up, then the learning rate falls along a cosine.
    """

    def __init__(self, conditioner: SceneConditioner, text: SceneConditioner, lr: float = 1e-3,
                 temperature: float = 0.07, distance: float = 1.0, max_steps: int = 1000):
        super().__init__()
        self.save_hyperparameters(ignore=["conditioner", "text"])
        assert isinstance(conditioner.text, SpeechConditioner)
        self.speech, self.text = conditioner.text, text.text.requires_grad_(False)

    def compared(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(loss, share of the utterances whose own caption is the nearest)."""
        with torch.no_grad():
            read = self.text.encode(batch).pooled
        said = self.speech.encode(batch)
        heard = said.pooled
        assert heard is not None and read is not None
        cosines = normalize(heard, dim=1) @ normalize(read, dim=1).T / self.hparams["temperature"]
        own = torch.arange(len(cosines), device=cosines.device)
        contrast = (cross_entropy(cosines, own) + cross_entropy(cosines.T, own)) / 2
        idle = (said.tokens - self.speech.bottleneck.null_token.detach()).square().mean()
        loss = contrast + self.hparams["distance"] * mse_loss(heard, read) + 0.1 * idle
        return loss, (cosines.argmax(1) == own).float().mean()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss = self.compared(batch)[0]
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        loss, right = self.compared(batch)
        self.log("valid/loss", loss, batch_size=len(batch["concept"]))
        self.log("valid/right", right, batch_size=len(batch["concept"]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = self.hparams["max_steps"]
        return adamw(list(self.speech.parameters()), lr=self.hparams["lr"], warmup=steps // 10, total=steps)

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `bottleneck/` in fp16."""
        self.speech.export(folder, save_half)
