"""Training of the recogniser of phones that is the second reader of speech."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn.functional import ctc_loss, nll_loss

from ..data.utterances import SYMBOLS
from ..errors import UserError
from ..figures import declares
from ..networks.recogniser import BLANK, PhoneRecogniser, greedy
from .export import check_half
from .schedule import adamw


@declares("train/loss", "train/ctc", "train/alignment", "train/frame_error", "valid/ctc", "valid/alignment",
          "valid/frame_error", "valid/phone_error")
class RecogniserTraining(L.LightningModule):
    """CTC (Graves et al. 2006) and, since the synthesiser says when a phone sounds, cross-entropy by frames.

    CTC alone first learns to say nothing, and finds the phones late. The frames' labels are one of the
    alignments that CTC sums over, so where one loss is least the other is too.

    A batch is what `data.utterances.collate` makes.

    Args:
        dim, layers, expansion, stride, depth: of `PhoneRecogniser`.
        alignment_weight: of the cross-entropy, beside CTC's loss a phone.
        base: folder of a trained recogniser of the same sizes to go on from.

    Raises UserError when `base` is none, or of other sizes.
    """

    def __init__(self, dim: int = 192, layers: int = 6, expansion: int = 3, stride: int = 2,
                 depth: float = 10.0, lr: float = 2e-3, warmup: int = 50, max_steps: int = 1000,
                 weight_decay: float = 0.02, alignment_weight: float = 1.0,
                 base: str | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.network = PhoneRecogniser(SYMBOLS, dim, layers, expansion, stride, depth)
        if base is not None:
            with torch.device("cpu"):  # also where a configuration is only looked at, on no device
                trained = PhoneRecogniser.from_pretrained(base)
            differs = [f"{key}={value} (there {trained.config[key]})" for key, value in
                       self.network.config.items() if trained.config[key] != value]
            if differs:
                raise UserError(f"model.base={base}: a recogniser of other sizes: model."
                                f"{', model.'.join(differs)}")
            self.network.load_state_dict(trained.state_dict(), assign=True)

    def losses(self, batch: dict[str, Tensor], log_probs: Tensor) -> dict[str, Tensor]:
        """Nats a phone, nats a frame, and the share of frames whose symbol is not the likeliest."""
        frames = torch.full_like(batch["lengths"], log_probs.shape[1])
        flat, labels = log_probs.flatten(0, 1), batch["labels"].flatten()
        # Over the phones of the batch: divided by its own, a window without any would outweigh all others.
        ctc = ctc_loss(log_probs.transpose(0, 1), batch["targets"], frames, batch["lengths"], BLANK, "sum",
                       zero_infinity=True)
        return {"ctc": ctc / batch["lengths"].sum().clamp(min=1),
                "alignment": nll_loss(flat, labels),
                "frame_error": (flat.argmax(1) != labels).float().mean()}

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        losses = self.losses(batch, self.network(batch["logmel"]).float())
        total = losses["ctc"] + self.hparams["alignment_weight"] * losses["alignment"]
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        log_probs = self.network(batch["logmel"]).float()
        losses = self.losses(batch, log_probs)
        asked = [target.tolist() for target in batch["targets"].split(batch["lengths"].tolist())]
        wrong = sum(Levenshtein.distance(a, b) for a, b in zip(asked, greedy(log_probs), strict=True))
        losses["phone_error"] = torch.tensor(wrong / max(1, len(batch["targets"])))
        self.log_dict({f"valid/{name}": value for name, value in losses.items()},
                      batch_size=len(batch["logmel"]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return adamw(self.parameters(), lr=self.hparams["lr"], warmup=self.hparams["warmup"],
                     total=self.hparams["max_steps"], weight_decay=self.hparams["weight_decay"])

    def export(self, folder: Path, batches: Iterable[dict[str, Tensor]]) -> None:
        """Write `ctc/`, which `PhoneRecogniser.from_pretrained` loads, in fp16."""
        check_half(self.network, folder)
        self.network.save_pretrained(folder / "ctc")
