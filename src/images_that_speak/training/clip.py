"""Training of the pocket CLIP, which reads what a picture shows.

Contrastive, over distorted windows (data/windows.py). A batch carries one caption for every concept and one
for an empty window, so each window is told from all of them. Captions of untrained text towers look alike, so
both towers are also drawn to one free vector a concept, which is dropped after training; and the distortions
grow from none to all while training ramps up.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.emoji import FONT, concepts
from ..data.tokenizer import CONTEXT, build_tokenizer
from ..data.windows import Windows
from ..errors import UserError, nearest
from ..files import atomic_path, atomic_write, content_hash, read_json, write_json
from .checkpoints import whole_checkpoint, write_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipSettings:
    """What a training of the reader is determined by.

    width: of the ResNet's stem; the image tower ends with 32·width features. pixels: the side to which a
    256x256 crop is brought, a multiple of 32. ramp: steps until all windows are distorted. precision:
    "bf16-mixed" (1.6 times as fast on a CPU with AVX512-BF16) or "32-true".
    """

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 50
    ramp: int = 350
    ema_decay: float = 0.995
    seed: int = 0
    pixels: int = 64
    width: int = 24
    embed_dim: int = 256
    text_width: int = 128
    text_layers: int = 2
    precision: str = "32-true"
    checkpoint_every: int = 100
    font: str = FONT


def open_clip_config(settings: ClipSettings, vocab_size: int) -> dict[str, Any]:
    """The `open_clip_config.json` from which open_clip builds the model out of a local folder."""
    return {
        "model_cfg": {
            "embed_dim": settings.embed_dim,
            "vision_cfg": {
                "image_size": settings.pixels,
                "layers": [1, 1, 1, 1],
                "width": settings.width,
                "head_width": 64,
                "patch_size": None,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocab_size,
                # open_clip takes the tokenizer from the model's own folder when this is set at all.
                "hf_tokenizer_name": ".",
                "width": settings.text_width,
                "heads": max(1, settings.text_width // 64),
                "layers": settings.text_layers,
            },
        },
        "preprocess_cfg": {
            "mean": [0.2] * 3,
            "std": [0.25] * 3,
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


def _rate(settings: ClipSettings, step: int) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine to 0."""
    ramp = min(1.0, (step + 1) / settings.warmup)
    return settings.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (matrices, kernels) and without (gains, biases, the logit scale)."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def fit_clip(settings: ClipSettings, out_dir: str | Path, work_dir: str | Path,
             begin: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Train, or go on where `work_dir` stopped; `out_dir` holds the averaged model of the last checkpoint.

    The same command after a kill ends with the same weights: a batch is a function of its step. `begin` is
    called before the first step, once the checkpoint is known to be of these settings. Returns
    steps, seconds, parameters, the last loss, and the share of distorted windows (first choice among all
    concepts and nothing) that the saved model reads right on batches that were not trained on.
    """
    import open_clip
    from tqdm.auto import tqdm

    out_dir, work_dir = Path(out_dir), Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(out_dir)
    write_json(out_dir / "open_clip_config.json", open_clip_config(settings, len(tokenizer)))
    torch.manual_seed(settings.seed)
    model = open_clip.create_model(f"local-dir:{out_dir}", load_weights=False)
    preprocess = read_json(out_dir / "open_clip_config.json")["preprocess_cfg"]
    model.visual.to(memory_format=torch.channels_last)
    if settings.precision not in ("bf16-mixed", "32-true"):
        raise UserError(f"clip.precision={settings.precision!r}: expected 'bf16-mixed' or '32-true'")
    anchors = nn.Parameter(torch.randn(len(concepts()) + 1, settings.embed_dim))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        [*_groups(model, settings.weight_decay), {"params": [anchors], "weight_decay": 0.0}],
        lr=0.0,
        betas=(0.9, 0.98),
    )
    windows = Windows(settings.seed, settings.pixels, settings.batch_size, font=settings.font)
    irrelevant = ("checkpoint_every", "font")
    identity = content_hash({k: v for k, v in asdict(settings).items() if k not in irrelevant})

    def forward(step: int, source: Windows, distort: float) -> tuple[Tensor, Tensor, Tensor]:
        batch = source.batch(step, distort)
        ids = tokenizer(source.texts(step), padding="max_length", truncation=True, return_tensors="pt")
        pictures = (batch.pictures[:, None] - preprocess["mean"][0]) / preprocess["std"][0]
        pictures = pictures.repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
            image, text = model.encode_image(pictures), model.encode_text(ids["input_ids"])
        return F.normalize(image.float(), dim=1), F.normalize(text.float(), dim=1), batch.labels

    checkpoint, step, spent = work_dir / "clip.ckpt", 0, 0.0
    rows: list[dict[str, float]] = []
    if (whole := whole_checkpoint(checkpoint)) is not None:
        saved = torch.load(whole, weights_only=True)
        if saved["identity"] != identity:
            raise UserError(f"{whole}: made with other settings (remove it to train anew)")
        anchors.data.copy_(saved["anchors"])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, spent = saved["average"], saved["step"], saved["seconds"]
        rows = saved["rows"]
    begin()
    started = time.monotonic() - spent
    model.train()
    progress = tqdm(total=settings.steps, initial=step, desc="pocket CLIP", unit="step", mininterval=2)
    while step < settings.steps:
        for group in optimizer.param_groups:
            group["lr"] = _rate(settings, step)
        image, text, labels = forward(step, windows, min(1.0, step / settings.ramp))
        loss = contrastive_loss(image, text, labels, model.logit_scale.exp())
        loss = loss + anchor_loss(image, text, labels, anchors)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            # CLIP bounds the scale at 100, above which training is unstable.
            model.logit_scale.clamp_(0, math.log(100))
            decay = min(settings.ema_decay, (1 + step) / (10 + step))
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)
        step += 1
        progress.update()
        if step % settings.checkpoint_every == 0 or step == settings.steps:
            scored = labels >= 0
            right = ((image @ text.T).argmax(1) == labels)[scored].float().mean()
            rows.append({"step": step, "loss": loss.item(), "right": right.item()})
            progress.set_postfix(loss=f"{loss.item():.3f}", right=f"{right.item():.2f}")
            write_checkpoint({
                "identity": identity, "anchors": anchors.data, "model": model.state_dict(),
                "average": average, "optimizer": optimizer.state_dict(), "step": step, "rows": rows,
                "seconds": time.monotonic() - started}, checkpoint)
            _write_state(average, rows, out_dir, work_dir)
    # Once more: a kill may have come between the last checkpoint and these.
    _write_state(average, rows, out_dir, work_dir)
    progress.close()
    seconds = time.monotonic() - started
    model.load_state_dict(average)
    model.eval()
    unseen = Windows(settings.seed + 1, settings.pixels, settings.batch_size, font=settings.font)
    hits = []
    with torch.inference_mode():
        for index in range(4):
            image, text, labels = forward(index, unseen, 1.0)
            hits.append(((image @ text.T).argmax(1) == labels)[labels >= 0].float())
    return {
        "steps": step,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "concepts": len(concepts()),
        "loss": rows[-1]["loss"],
        "window_top1": torch.cat(hits).mean().item(),
    }


def _write_state(average: Mapping[str, Tensor], rows: list[dict[str, float]], out_dir: Path,
                 work_dir: Path) -> None:
    save_clip(average, out_dir)
    # From the checkpoint's rows: lines that a killed training wrote after it are not there twice.
    atomic_write(work_dir / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


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


def clip_settings(cfg: Mapping[str, Any]) -> ClipSettings:
    """The settings in a composed training configuration (experiment=pocket/clip).

    `cfg.model` holds ClipSettings; steps, seed, precision and the checkpoint interval stand beside it. Raises
    UserError for a setting there is not.
    """
    names = [field.name for field in fields(ClipSettings)]
    given = {key: value for key, value in dict(cfg["model"]).items() if not key.startswith("_")}
    for key in given:
        if key not in names:
            raise UserError(f"model.{key}: no such setting.{nearest(key, names)}")
    beside = {
        "steps": cfg["steps"],
        "seed": cfg["seed"],
        "precision": cfg["precision"]["trainer"],
        "checkpoint_every": cfg["trainer"]["checkpoint_every"],
    }
    return ClipSettings(**{**beside, **given})


def train_clip(
    cfg: Mapping[str, Any], work_dir: str | Path, out_dir: str | Path | None = None,
    begin: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """`fit_clip` with the settings of `cfg`; out_dir: `clip` in the pocket family's folder unless given."""
    if out_dir is None:
        out_dir = Path(cfg["paths"]["weights"]) / "pocket" / "clip"
    return fit_clip(clip_settings(cfg), out_dir, work_dir, begin)
