"""The image branch's text encoder, taught what captions name before it is asked to help drawing.

A text encoder fresh from its initialisation gives every caption nearly the same vector, and a small UNet then
learns grounds and counts long before it learns which thing is meant. A minute of telling concept, count and
ground from captions mends that; the encoder is trained on with the UNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import trange

from ..data.captions import COUNTS, GROUNDS, captions
from ..data.emoji import concepts
from ..networks.text import pocket_text_conditioner
from .export import save_half
from .schedule import adamw


def train_text(tokenizer: str | Path, out_dir: str | Path, *, steps: int = 400, seed: int = 0,
               batch_size: int = 256, lr: float = 1e-3, **encoder: Any) -> dict[str, Any]:
    """Train a small CLIP text encoder to tell what captions say; write it to `out_dir`/text_encoder.

    Its pooled vector passes three linear heads: concept, count and ground, each with a cross-entropy.

    tokenizer: folder of the captions' CLIPTokenizer. encoder: sizes, as `pocket_text_conditioner` takes them.
    Returns how many held-out captions have their concept told right, and the loss.
    """
    torch.manual_seed(seed)
    conditioner = pocket_text_conditioner(tokenizer, **encoder)
    width = conditioner.text_encoder.config.hidden_size
    sizes = len(concepts()), len(COUNTS), len(GROUNDS)
    heads = torch.nn.ModuleList(torch.nn.Linear(width, size) for size in sizes)

    def read(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        found = captions(split)
        labels = [(c.concept, COUNTS.index(c.count), GROUNDS.index(c.ground)) for c in found]
        return conditioner.tokenize([c.text for c in found]), torch.tensor(labels)

    ids, labels = read("train")
    settings: Any = adamw([*conditioner.parameters(), *heads.parameters()], lr=lr, warmup=steps // 20,
                          total=steps)
    rng = np.random.default_rng(seed)
    loss = torch.zeros(())
    with trange(steps, desc="Reading captions", unit="step") as bar:
        for _ in bar:
            rows = torch.from_numpy(rng.integers(0, len(ids), batch_size))
            pooled = conditioner.encode({"input_ids": ids[rows]}).pooled
            losses = [cross_entropy(head(pooled), labels[rows, k]) for k, head in enumerate(heads)]
            loss = torch.stack(losses).sum()
            settings["optimizer"].zero_grad()
            loss.backward()
            settings["optimizer"].step()
            settings["lr_scheduler"]["scheduler"].step()
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}", refresh=False)
    ids, labels = read("test")
    with torch.no_grad():
        said = torch.cat([heads[0](conditioner.encode({"input_ids": part}).pooled).argmax(1)
                          for part in ids.split(512)])
    save_half(conditioner.text_encoder, Path(out_dir) / "text_encoder")
    return {"held_out_right": float((said == labels[:, 0]).float().mean()), "loss": float(loss.detach())}
