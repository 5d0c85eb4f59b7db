"""The scene adapter, taught what is where in a drawing before a UNet reads it.

Text and place determine a drawing's latent but for detail, so they can be related by plain regression, which
needs no UNet and no noise and sees a thousand drawings in the time of one denoising step. The UNet then starts
from a condition that already says what is to be drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import trange

from ..data.datamodule import BatchDataset
from ..networks.scene import SceneAdapter, cell_coordinates, pocket_scene_conditioner, scene_cells
from .export import save_half
from .schedule import adamw


@torch.no_grad()
def _pooled(conditioner: Any, ids: torch.Tensor) -> torch.Tensor:
    return torch.cat([conditioner.text.encode({"input_ids": part}).pooled for part in ids.split(512)])


def _cells(batch: dict[str, torch.Tensor], rng: np.random.Generator | None,
           share: float) -> tuple[torch.Tensor, ...]:
    """Places, squares, owners and latents of the cells of a batch, or of a random share of them."""
    latent, scene = batch["latent"].float(), batch["scene"]
    rows, columns = latent.shape[-2:]
    place, nearest = cell_coordinates(scene, rows, columns)
    cells = scene_cells(scene, rows, columns)[:, 0]
    if rng is not None:
        cells = cells & torch.from_numpy(rng.random(tuple(cells.shape)) < share)
    owner = torch.arange(len(scene))[:, None, None].expand_as(cells)[cells]
    return (place.permute(0, 2, 3, 1)[cells], scene[owner, nearest[:, 0][cells]], owner,
            latent.permute(0, 2, 3, 1)[cells])


def train_scene(train: BatchDataset, valid: BatchDataset | None, out_dir: str | Path, *, text_encoder: str | Path,
                tokenizer: str | Path, steps: int = 600, seed: int = 0, batch_size: int = 256,
                share: float = 0.15, lr: float = 2e-3, **adapter: Any) -> dict[str, Any]:
    """Regress the latent of every cell on text and place; write the adapter to `out_dir`/scene.

    train, valid: CaptionedPictures with latents. share: of each picture's cells that a step sees. adapter: sizes
    of the SceneAdapter. The linear map from its channels to the latent is not kept.
    Returns the share of the held-out pictures' variance, within their squares, that is explained.
    """
    torch.manual_seed(seed)
    train.setup()
    conditioner = pocket_scene_conditioner(text_encoder, tokenizer, **adapter)
    scene: SceneAdapter = conditioner.scene
    first = train[0]
    head = torch.nn.Linear(scene.config.channels, first["latent"].shape[0])
    everything = np.arange(len(train))
    pooled = _pooled(conditioner, torch.from_numpy(train.conditions(everything)["input_ids"]))
    settings: Any = adamw([*scene.parameters(), *head.parameters()], lr=lr, warmup=steps // 20, total=steps)
    rng = np.random.default_rng(seed)
    with trange(steps, desc="What is where", unit="step") as bar:
        for _ in bar:
            rows = rng.integers(0, len(train), batch_size)
            place, square, owner, latent = _cells(train.__getitems__(rows.tolist()), rng, share)
            error = (head(scene.describe(place, square, pooled[torch.from_numpy(rows)][owner])) - latent) ** 2
            loss = error.mean()
            settings["optimizer"].zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(scene.parameters(), 1.0)
            settings["optimizer"].step()
            settings["lr_scheduler"]["scheduler"].step()
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}", refresh=False)
    save_half(scene, Path(out_dir) / "scene")
    explained = None
    if valid is not None:
        valid.setup()
        batch = valid.__getitems__(list(range(len(valid))))
        place, square, owner, latent = _cells(batch, None, 1.0)
        with torch.no_grad():
            said = head(scene.describe(place, square, _pooled(conditioner, batch["input_ids"])[owner]))
        explained = float(1 - ((said - latent) ** 2).mean() / latent.var(0).mean())
    return {"variance_explained": explained, "loss": float(loss.detach())}
