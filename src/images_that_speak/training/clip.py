"""Training of the pocket CLIP, which reads what a picture shows.

Contrastive, over distorted windows (data/windows.py). A batch carries one caption for every concept and one
for an empty window, so each window is told from all of them. Captions of untrained text towers look alike, so
both towers are also drawn to one free vector a concept, which is dropped after training; and the distortions
grow from none to all while training ramps up.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ..data.emoji import concepts
from ..data.tokenizer import CONTEXT, build_tokenizer
from ..figures import declares
from ..files import atomic_path, write_json
from .schedule import adamw

MEAN, STD = 0.2, 0.25  # of a window's brightness, by which it is normalised
LARGEST_SCALE = math.log(100)  # CLIP's bound, above which training is unstable


def open_clip_config(vocab_size: int, pixels: int = 64, width: int = 24, embed_dim: int = 256,
                     text_width: int = 128, text_layers: int = 2) -> dict[str, Any]:
    """The `open_clip_config.json` from which open_clip builds the model out of a local folder."""
    return {
        "model_cfg": {
            "embed_dim": embed_dim,
            "vision_cfg": {
                "image_size": pixels,
                "layers": [1, 1, 1, 1],
                "width": width,
                "head_width": 64,
                "patch_size": None,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocab_size,
                # open_clip takes the tokenizer from the model's own folder when this is set at all.
                "hf_tokenizer_name": ".",
                "width": text_width,
                "heads": max(1, text_width // 64),
                "layers": text_layers,
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def contrastive_loss(image: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE where several windows may carry the same label.

    image (B, D), text (K, D), both of norm 1; labels (B,) in [0, K), or −1 for a window that is not scored.
    With z = scale·image·textᵀ: −mean over scored windows of log softmax_k z[b, label_b], and −mean over the
    labels that occur of log Σ_{b: label_b = k} softmax_b z[b, k]; their mean.
    """
    logits = scale * image @ text.T
    to_text = F.cross_entropy(logits, labels, ignore_index=-1)
    own = labels[:, None] == torch.arange(len(text), device=labels.device)
    occurs = own.any(0)
    matched = logits.masked_fill(~own, -torch.inf)[:, occurs].logsumexp(0)
    to_image = (logits[:, occurs].logsumexp(0) - matched).mean()
    return (to_text + to_image) / 2


def anchor_loss(image: Tensor, text: Tensor, labels: Tensor, anchors: Tensor, scale: float = 16.0) -> Tensor:
    """Cross-entropy of scored windows and of texts with the anchors (K, D) as the classes; their mean."""
    classes = F.normalize(anchors, dim=1).T * scale
    texts = F.cross_entropy(text @ classes, torch.arange(len(text), device=text.device))
    return (F.cross_entropy(image @ classes, labels, ignore_index=-1) + texts) / 2


@declares("train/loss", "train/right", "valid/window_top1")
class ClipTraining(L.LightningModule):
    """A small CLIP whose towers are drawn to one another and to one free vector a concept.

    A batch is one of `data.windows.WindowData`. Validation gives the share of distorted windows that are read
    right, the first choice among all concepts and nothing: "valid/window_top1".

    Args:
        pixels: side to which a 256x256 crop is brought, a multiple of 32.
        width: of the ResNet's stem; the image tower ends with 32·width features.
        embed_dim: of the space that pictures and captions share.
        text_width, text_layers: of the text transformer; the width is a multiple of 64.
        learning_rate: its peak, reached after `warmup` steps; all the while it falls along half a cosine.
        weight_decay: of matrices and kernels.
        max_steps: of the run.
    """

    def __init__(self, pixels: int = 64, width: int = 24, embed_dim: int = 256, text_width: int = 128,
                 text_layers: int = 2, learning_rate: float = 2e-3, weight_decay: float = 0.1,
                 warmup: int = 50, max_steps: int = 1000):
        from open_clip.model import CLIP

        super().__init__()
        self.save_hyperparameters()
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer = build_tokenizer(folder)
        self.settings = open_clip_config(len(self.tokenizer), pixels, width, embed_dim, text_width,
                                         text_layers)
        self.clip = CLIP(**self.settings["model_cfg"])
        self.clip.visual.to(memory_format=torch.channels_last)
        self.anchors = nn.Parameter(torch.randn(len(concepts()) + 1, embed_dim))
        self._validated: list[Tensor] = []

    def embed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(B, D) windows and (K, D) captions, of norm 1, in float32."""
        ids = self.tokenizer(batch["texts"], padding="max_length", truncation=True, return_tensors="pt")
        pictures = ((batch["pictures"][:, None] - MEAN) / STD).repeat(1, 3, 1, 1)
        image = self.clip.encode_image(pictures.contiguous(memory_format=torch.channels_last))
        text = self.clip.encode_text(ids["input_ids"].to(self.device))
        return F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1)

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        labels = batch["labels"]
        image, text = self.embed(batch)
        with torch.autocast(image.device.type, enabled=False):
            loss = contrastive_loss(image, text, labels, self.clip.logit_scale.exp())
            loss = loss + anchor_loss(image, text, labels, self.anchors)
        self.log_dict({"train/loss": loss.detach(), "train/right": right(image, text, labels).mean()},
                      batch_size=len(labels))
        return loss

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self._validated.append(right(*self.embed(batch), batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        self.log("valid/window_top1", torch.cat(self._validated).mean())
        self._validated.clear()

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: int | float | None = None,
                                    gradient_clip_algorithm: str | None = None) -> None:
        """Clip the towers alone, as they would be without the free vectors."""
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.clip.parameters(), gradient_clip_val)

    def optimizer_step(self, *parts: Any, **settings: Any) -> None:
        super().optimizer_step(*parts, **settings)
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, LARGEST_SCALE)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        warmup, steps = self.hparams["warmup"], self.hparams["max_steps"]

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))

        decayed = [p for p in self.clip.parameters() if p.ndim >= 2]
        plain = [p for p in self.clip.parameters() if p.ndim < 2]  # gains, biases, the logit scale
        groups: list[dict[str, Any]] = [{"params": decayed},
                                        {"params": [*plain, self.anchors], "weight_decay": 0.0}]
        return adamw(groups, lr=self.hparams["learning_rate"], factor=factor,
                     weight_decay=self.hparams["weight_decay"], betas=(0.9, 0.98))

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `clip/` as open_clip reads it, in fp16, with its tokenizer."""
        build_tokenizer(folder / "clip")
        write_json(folder / "clip" / "open_clip_config.json", self.settings)
        save_clip(self.clip.state_dict(), folder / "clip")


def right(image: Tensor, text: Tensor, labels: Tensor) -> Tensor:
    """1 for each window that is read right, 0 for each that is not; those without a label are left out."""
    return ((image @ text.T).argmax(1) == labels)[labels >= 0].float()


def save_clip(state: Mapping[str, Tensor], out_dir: str | Path) -> Path:
    """Write a model's state as half precision safetensors under the name that open_clip looks for."""
    from safetensors.torch import save_file

    path = Path(out_dir) / "open_clip_model.safetensors"
    halves = {
        name: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for name, value in state.items()
    }
    with atomic_path(path) as temporary:
        save_file(halves, temporary, metadata={"format": "pt"})
    return path
