"""The scene adapter, taught what is where in a drawing before a UNet reads it.

Text and place determine a drawing's latent but for detail, so they can be related by plain regression, which
needs no UNet and no noise and sees a thousand drawings in the time of one denoising step. The UNet then
starts from a condition that already says what is to be drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ..diffusion.layout import latent_statistics
from ..figures import declares
from ..networks.scene import pocket_scene_conditioner
from ..networks.squares import cell_coordinates, scene_cells
from .export import save_half
from .schedule import adamw

VALID_CELLS = 200  # of each picture


def drawn_cells(batch: dict[str, Tensor], n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places (B, n, 2), squares (B, n, 5) and latents (B, n, C) of n random cells of each picture's
    squares."""
    latent, scene = batch["latent"].float(), batch["scene"]
    rows, columns = latent.shape[-2:]
    place, nearest = cell_coordinates(scene, rows, columns)
    chosen = scene_cells(scene, rows, columns).flatten(1).float().multinomial(n, replacement=True)
    square = nearest.flatten(1).gather(1, chosen)

    def at(values: Tensor) -> Tensor:
        """(B, C, rows, columns) → (B, n, C)."""
        flat = values.flatten(2).transpose(1, 2)
        return flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1]))

    return at(place), scene.gather(1, square[..., None].expand(-1, -1, scene.shape[-1])), at(latent)


@declares("train/loss", "valid/loss", "valid/variance_explained")
class SceneTraining(L.LightningModule):
    """Regression of the latent of single cells on text and place.

    A batch is one of `data.datamodule.CaptionedPictures` with latents.

    Args:
        text_encoder, tokenizer: folders of the image branch's, which is not trained.
        autoencoder: folder of the one that made the latents. Errors count as they do in the picture: each of
            its channels by its deviation, for whitened the faintest detail would count as much as the shape.
        cells: of each picture that a step sees.
        channels, hidden, layers: of the `SceneAdapter`. The linear map from its channels to the latent is not
            kept.
        max_steps: of the run; a twentieth of them is warm-up, then the learning rate falls along a cosine.
    """

    weight: Tensor

    def __init__(self, text_encoder: str | Path, tokenizer: str | Path, autoencoder: str | Path,
                 cells: int = 50, channels: int = 96, hidden: int = 256, layers: int = 4, lr: float = 2e-3,
                 max_steps: int = 600):
        super().__init__()
        self.save_hyperparameters()
        told = pocket_scene_conditioner(text_encoder, tokenizer, channels=channels, hidden=hidden,
                                        layers=layers)
        self.text, self.scene = told.text.requires_grad_(False), told.scene
        shape, _, std = latent_statistics(Path(autoencoder))
        self.head = nn.Linear(channels, shape[0])
        weight = torch.tensor(std, dtype=torch.float32)
        self.register_buffer("weight", weight / weight.mean(), persistent=False)
        self._validated: list[tuple[Tensor, Tensor]] = []

    def compared(self, batch: dict[str, Tensor], cells: int) -> tuple[Tensor, Tensor]:
        """(B, cells, C) squared errors and true latents, both in units of each channel's deviation."""
        with torch.no_grad():
            pooled = self.text.encode(batch).pooled
        assert pooled is not None
        place, square, latent = drawn_cells(batch, cells)
        film = self.scene.modulation(pooled[:, None])
        return (self.head(self.scene.describe(place, square, film)) - latent) ** 2, latent

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        error = self.compared(batch, self.hparams["cells"])[0]
        loss = (error * self.weight).mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        # The same cells at every validation, or the figure would move by itself.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            self._validated.append(self.compared(batch, VALID_CELLS))

    def on_validation_epoch_end(self) -> None:
        error, latent = (torch.cat(found).flatten(0, 1) for found in zip(*self._validated, strict=True))
        self._validated.clear()
        self.log("valid/loss", (error * self.weight).mean())
        self.log("valid/variance_explained", (1 - error.mean(0) / latent.var(0)).mean())

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: int | float | None = None,
                                    gradient_clip_algorithm: str | None = None) -> None:
        """Clip the adapter alone: the map to the latent is to follow at once."""
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.scene.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        steps = self.hparams["max_steps"]
        return adamw([*self.scene.parameters(), *self.head.parameters()], lr=self.hparams["lr"],
                     warmup=steps // 20, total=steps)

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `scene/` in fp16, which `SceneAdapter.from_pretrained` loads."""
        save_half(self.scene, folder / "scene")
