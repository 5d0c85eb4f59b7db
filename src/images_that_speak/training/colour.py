"""The pocket family's colours: a network that learns the chroma of gray drawings from their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from ..data.coloured import ColouredBatch, ColouredWindows
from ..errors import UserError
from ..networks.chroma import ChromaNet
from ..networks.text import TextConditioner
from ..weights import finite
from .export import save_half
from .schedule import adamw

VALID = 8  # batches of captions that no training saw


def error(network: ChromaNet, text: TextConditioner, batch: ColouredBatch) -> tuple[Tensor, Tensor]:
    """Mean squared error of the chroma, and of leaving everything gray, each pixel by its brightness.

    Squared: most pixels are gray, and the median of what a network cannot tell apart yet would be gray too.
    """
    with torch.no_grad():
        pooled = text.encode({"input_ids": text.tokenize(batch.captions)}).pooled
    weight = batch.gray / batch.gray.mean()
    found = network(batch.gray, pooled) - batch.chroma
    return (weight * found**2).mean(), (weight * batch.chroma**2).mean()


def train_colour(out_dir: str | Path, *, corpus: str, text_encoder: str | Path, tokenizer: str | Path,
                 steps: int = 700, seed: int = 0, batch_size: int = 16, lr: float = 3e-3,
                 widths: Sequence[int] = (24, 40, 64)) -> dict[str, Any]:
    """Train a `ChromaNet` on `ColouredWindows`; write it to `out_dir`/colour.

    Returns the error on captions that no training saw, as a share of what leaving them gray costs.
    """
    for key, folder in (("text_encoder", text_encoder), ("tokenizer", tokenizer)):
        if not Path(folder).is_dir():
            raise UserError(f"model.{key}={folder}: no such folder (python train.py experiment=pocket/text "
                            "makes it)")
    torch.manual_seed(seed)
    text = TextConditioner(finite(CLIPTextModel.from_pretrained(text_encoder, torch_dtype=torch.float32),
                                  text_encoder),
                           CLIPTokenizer.from_pretrained(tokenizer))
    network = ChromaNet(tuple(widths), text.text_encoder.config.hidden_size)
    windows = ColouredWindows(corpus, seed=seed, batch_size=batch_size)
    settings: Any = adamw(network.parameters(), lr=lr, warmup=steps // 20, total=steps)
    with trange(steps, desc="What is of which colour", unit="step") as bar:
        for step in bar:
            loss, gray = error(network, text, windows.batch(step))
            settings["optimizer"].zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            settings["optimizer"].step()
            settings["lr_scheduler"]["scheduler"].step()
            bar.set_postfix(error=f"{float(loss.detach() / gray):.2f}", refresh=False)
    save_half(network, Path(out_dir) / "colour")
    valid = ColouredWindows(corpus, seed=seed + 1, batch_size=batch_size, split="test")
    with torch.no_grad():
        errors = torch.tensor([error(network, text, valid.batch(index)) for index in range(VALID)]).mean(0)
    return {"valid/error": float(errors[0] / errors[1])}
