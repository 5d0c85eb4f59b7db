"""The image branch's text encoder, taught what captions name before it is asked to help drawing.

A text encoder fresh from its initialisation gives every caption nearly the same vector, and a small UNet then
learns grounds and counts long before it learns which thing is meant. A minute of telling concept, count and
ground from captions mends that; the encoder is trained on with the UNet.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..data.captions import COUNTS, GROUNDS
from ..data.emoji import concepts
from ..figures import declares
from ..networks.text import pocket_text_conditioner
from .export import save_half
from .schedule import adamw


@declares("train/loss", "valid/loss", "valid/right")
class TextTraining(L.LightningModule):
    """A small CLIP text encoder whose pooled vector passes three linear heads: concept, count and ground.

    The loss is the sum of their cross-entropies. A batch is one of `data.caption_data.CaptionData`.

    Args:
        tokenizer: folder of the captions' CLIPTokenizer.
        width, layers, heads: of the encoder.
        max_steps: of the run; a twentieth of them is warm-up, then the learning rate falls along a cosine.
    """

    def __init__(self, tokenizer: str | Path, width: int = 128, layers: int = 2, heads: int = 4,
                 lr: float = 1e-3, max_steps: int = 400):
        super().__init__()
        self.save_hyperparameters()
        self.text = pocket_text_conditioner(tokenizer, width, layers, heads)
        self.heads = nn.ModuleList(nn.Linear(width, size)
                                   for size in (len(concepts()), len(COUNTS), len(GROUNDS)))

    def answers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B,) the likeliest concepts, and the loss."""
        pooled = self.text.encode(batch).pooled
        said = [head(pooled) for head in self.heads]
        losses = [cross_entropy(scores, batch["labels"][:, k]) for k, scores in enumerate(said)]
        return said[0].argmax(1), torch.stack(losses).sum()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss = self.answers(batch)[1]
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        concept, loss = self.answers(batch)
        right = (concept == batch["labels"][:, 0]).float().mean()
        self.log_dict({"valid/loss": loss, "valid/right": right}, batch_size=len(concept))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = self.hparams["max_steps"]
        return adamw(self.parameters(), lr=self.hparams["lr"], warmup=steps // 20, total=steps)

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `text_encoder/` in fp16; the heads are not kept."""
        save_half(self.text.text_encoder, folder / "text_encoder")
