"""The scene adapter, taught what is where in a drawing before a UNet reads it.

Text and place determine a drawing's latent but for detail, so they can be related by plain regression, which
needs no UNet and no noise and sees a thousand drawings in the time of one denoising step. The UNet then
starts from a condition that already says what is to be drawn.
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


def _cells(batch: dict[str, torch.Tensor], n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places (B, n, 2), squares (B, n, 5) and latents (B, n, C) of n cells of each picture, drawn at
    random."""
    latent, scene = batch["latent"].float(), batch["scene"]
    rows, columns = latent.shape[-2:]
    place, nearest = cell_coordinates(scene, rows, columns)
    chosen = scene_cells(scene, rows, columns).flatten(1).float().multinomial(n, replacement=True)
    square = nearest.flatten(1).gather(1, chosen)
    return (place.flatten(2).transpose(1, 2).gather(1, chosen[..., None].expand(-1, -1, 2)),
            scene.gather(1, square[..., None].expand(-1, -1, scene.shape[-1])),
            latent.flatten(2).transpose(1, 2).gather(1, chosen[..., None].expand(-1, -1, latent.shape[1])))


def train_scene(train: BatchDataset, valid: BatchDataset | None, out_dir: str | Path, *,
                text_encoder: str | Path, tokenizer: str | Path, steps: int = 600, seed: int = 0,
                batch_size: int = 256, cells: int = 50, lr: float = 2e-3, **adapter: Any) -> dict[str, Any]:
    """Regress the latent of every cell on text and place; write the adapter to `out_dir`/scene.

    train, valid: CaptionedPictures with latents. cells: of each picture that a step sees. adapter: sizes of
    the SceneAdapter. The linear map from its channels to the latent is not kept.
    Returns the share of the variance within other pictures' squares that is explained, by latent channel.
    """
    torch.manual_seed(seed)
    train.setup()
    conditioner = pocket_scene_conditioner(text_encoder, tokenizer, **adapter)
    scene: SceneAdapter = conditioner.scene
    first = train[0]
    head = torch.nn.Linear(scene.config.channels, first["latent"].shape[0])
    # Whitened, the faintest detail would count as much as the shape: errors count as they do in the picture.
    weight = torch.ones(len(head.bias)) if train.std is None else torch.tensor(train.std, dtype=torch.float32)
    weight = weight / weight.mean()
    everything = np.arange(len(train))
    pooled = _pooled(conditioner, torch.from_numpy(train.conditions(everything)["input_ids"]))
    settings: Any = adamw([*scene.parameters(), *head.parameters()], lr=lr, warmup=steps // 20, total=steps)
    rng = np.random.default_rng(seed)
    with trange(steps, desc="What is where", unit="step") as bar:
        for _ in bar:
            rows = rng.integers(0, len(train), batch_size)
            place, square, latent = _cells(train.__getitems__(rows.tolist()), cells)
            film = scene.modulation(pooled[torch.from_numpy(rows)][:, None])
            error = (head(scene.describe(place, square, film)) - latent) ** 2
            loss = (error * weight).mean()
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
        place, square, latent = _cells(batch, 200)
        with torch.no_grad():
            film = scene.modulation(_pooled(conditioner, batch["input_ids"])[:, None])
            error = ((head(scene.describe(place, square, film)) - latent) ** 2).flatten(0, 1).mean(0)
        explained = (1 - error / latent.flatten(0, 1).var(0)).tolist()
    return {"variance_explained": explained, "loss": float(loss.detach())}
