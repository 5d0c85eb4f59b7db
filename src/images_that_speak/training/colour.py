"""The pocket family's colours: a network that learns the chroma of gray drawings from their captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import UserError
from ..figures import declares
from ..networks.chroma import ChromaNet
from ..networks.text import TextConditioner
from ..weights import finite
from .export import save_half
from .schedule import adamw


@declares("train/loss", "train/error", "valid/error")
class ColourTraining(L.LightningModule):
    """Mean squared error of the chroma, each pixel weighed by its brightness.

    Squared: most pixels are gray, and the median of what a network cannot tell apart yet would be gray too.
    A batch is one of `data.coloured.ColouredData`.

    Args:
        text_encoder, tokenizer: folders of the image branch's, which is not trained.
        widths: channels of the `ChromaNet`.
        max_steps: of the run; a twentieth of them is warm-up, then the learning rate falls along a cosine.
    """

    def __init__(self, text_encoder: str | Path, tokenizer: str | Path, widths: Sequence[int] = (24, 40, 64),
                 lr: float = 3e-3, max_steps: int = 700):
        super().__init__()
        self.save_hyperparameters()
        for key, folder in (("text_encoder", text_encoder), ("tokenizer", tokenizer)):
            if not Path(folder).is_dir():
                raise UserError(f"model.{key}={folder}: no such folder (python train.py "
                                "experiment=pocket/text makes it)")
        encoder = finite(CLIPTextModel.from_pretrained(text_encoder, torch_dtype=torch.float32), text_encoder)
        self.text = TextConditioner(encoder, CLIPTokenizer.from_pretrained(tokenizer)).requires_grad_(False)
        self.network = ChromaNet(tuple(widths), encoder.config.hidden_size)
        self._validated: list[Tensor] = []

    def errors(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss, and what it would be if everything were left gray."""
        gray, chroma = batch["gray"], batch["chroma"]
        ids = self.text.tokenize(batch["captions"]).to(gray.device)
        pooled = self.text.encode({"input_ids": ids}).pooled
        weight = gray / gray.mean()
        return (weight * (self.network(gray, pooled) - chroma) ** 2).mean(), (weight * chroma**2).mean()

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        loss, gray = self.errors(batch)
        self.log_dict({"train/loss": loss.detach(), "train/error": loss.detach() / gray}, prog_bar=True,
                      batch_size=len(batch["gray"]))
        return loss

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self._validated.append(torch.stack(self.errors(batch)))

    def on_validation_epoch_end(self) -> None:
        # Of all batches together: one that is nearly gray would outweigh the others.
        loss, gray = torch.stack(self._validated).sum(0)
        self._validated.clear()
        self.log("valid/error", loss / gray)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = self.hparams["max_steps"]
        return adamw(self.network.parameters(), lr=self.hparams["lr"], warmup=steps // 20, total=steps)

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `colour/` in fp16, which `ChromaNet.from_pretrained` loads."""
        save_half(self.network, folder / "colour")
