"""Training what draws sounds: the published way, and with what its author left to others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, mse_loss
from torchmetrics.functional.image import structural_similarity_index_measure

from ..errors import UserError
from ..figures import declares
from ..networks.discriminators import discriminator_loss, generator_loss
from ..networks.mfcc_gan import SoundPictureDiscriminator, SoundPictureGenerator
from ..packages import need
from ..ranges import check_ranges
from ..scoring.pairs import histogram_similarity
from .adversarial import step
from .export import save_half, save_pretrained

LOSSES = ("squares", "pixels", "similarity", "perceptual", "frames", "adversarial")
PERCEPTUAL_SIDE = 96  # pixels that the perceptual loss looks at; 224 would take five times as long


def ssim(made: Tensor, real: Tensor) -> Tensor:
    """Structural similarity of pictures (B, 3, H, W) in [-1, 1], the mean; 1 for equal ones."""
    found: Any = structural_similarity_index_measure((made + 1) / 2, (real + 1) / 2, data_range=1.0)
    return found


def frame_to_frame(made: Tensor, real: Tensor, follows: Tensor) -> Tensor:
    """Mean |Δ made − Δ real| from each frame to the one after it; 0 where no row follows another.

    follows: (B,) whether a row is the frame after the row before it.
    """
    after = follows[1:]
    if not after.any():
        return made.sum() * 0
    return ((made[1:] - made[:-1]) - (real[1:] - real[:-1])).abs().mean((1, 2, 3))[after].mean()


class PerceptualDistance:
    """Mean |Δ| of EfficientNet-Lite0's feature maps, each level scaled to deviation 1 (on what is real).

    levels: blocks whose outputs are compared.
    """

    def __init__(self, levels: Sequence[int] = (1, 3, 6, 11, 15), device: torch.device | str = "cpu"):
        from ..scoring.efficientnet import EfficientNetReader

        self.network: Any = EfficientNetReader("lite0", device=str(device)).network
        self.levels = levels

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The feature maps of pictures (B, 3, H, W) in [-1, 1]."""
        network = self.network
        x = interpolate(pictures, size=(PERCEPTUAL_SIDE,) * 2, mode="area")
        x = network._swish(network._bn0(network._conv_stem(x * 127.5 / 128)))
        found = []
        for level, block in enumerate(network._blocks[: max(self.levels) + 1]):
            x = block(x)
            if level in self.levels:
                found.append(x)
        return found

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            truth = self.features(real)
        return torch.stack([((a - b) / (b.std() + 1e-6)).abs().mean()
                            for a, b in zip(self.features(made), truth, strict=True)]).mean()


def _nothing() -> None:
    return None


@declares("train/loss", *(f"train/{name}" for name in (*LOSSES, "discriminator")), "valid/loss", "valid/mse",
          "valid/ssim", "valid/hss")
class SoundToImageTraining(L.LightningModule):
    """A `SoundPictureGenerator` on pairs of a sound's features and a picture; steps are counted in batches.

    Args:
        generator: its settings.
        losses: the weight of each: squares (mean squared error × batch size, as published), pixels (mean
            |Δ|), similarity (1 − SSIM of halved pictures), perceptual (`PerceptualDistance`), frames
            (`frame_to_frame`) and adversarial (least squares against a discriminator).
            What is not named, or 0, is left out.
        lr, betas: of Adam. discriminator_lr, discriminator_width: where there is an adversarial loss.
        noise: deviation of what is added to normalised features in training.
        warmup: first steps without the discriminator.
        rows: of a training batch that similarity and perceptual look at, which cost more than all else.
        max_steps: of the run; no schedule depends on it but `decay`: the learning rates fall to 0 by then.
    """

    def __init__(self, generator: Mapping[str, Any] | None = None, losses: Mapping[str, float] | None = None,
                 lr: float = 0.0625, betas: Sequence[float] = (0.5, 0.999), discriminator_lr: float = 4e-4,
                 discriminator_width: int = 24, noise: float = 0.0, warmup: int = 0, rows: int | None = None,
                 decay: bool = False, clip: float | None = None, max_steps: int = 600):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        given = losses or {"squares": 1.0}
        self.weights = {name: float(weight) for name, weight in given.items() if weight}
        if unknown := [name for name in self.weights if name not in LOSSES]:
            raise UserError(f"model.losses.{unknown[0]}: expected some of {', '.join(LOSSES)}")
        if any(weight < 0 for weight in self.weights.values()) or not set(self.weights) - {"adversarial"}:
            raise UserError(f"model.losses={dict(given)}: expected weights above 0, one of them of "
                            "another loss than adversarial")
        if "perceptual" in self.weights:
            need("efficientnet_lite_pytorch", where="model.losses.perceptual")
        check_ranges({"model.noise": noise, **({} if rows is None else {"model.rows": rows})})
        self.generator = SoundPictureGenerator(**dict(generator or {}))
        # A third faster on a CPU, and the same to the last bits.
        self.generator.to(memory_format=torch.channels_last)
        self.discriminator = (SoundPictureDiscriminator(self.generator.config.inputs, discriminator_width)
                              if "adversarial" in self.weights else None)
        self._perceptual: list[Callable[[Tensor, Tensor], Tensor]] = []  # a list: no part of what is stored

    def setup(self, stage: str) -> None:
        if "perceptual" in self.weights and not self._perceptual:
            self._perceptual.append(PerceptualDistance(device=self.device))

    def _losses(self, made: Tensor, real: Tensor, batch: dict[str, Tensor],
                rows: int | None = None) -> dict[str, Tensor]:
        """The weighted losses that need no discriminator; the costly ones on the first `rows` alone."""
        some, true = made[:rows], real[:rows]
        every: dict[str, Callable[[], Tensor]] = {
            "squares": lambda: mse_loss(made, real) * len(real),
            "pixels": lambda: (made - real).abs().mean(),
            # Halved: at full size it costs more than all else together.
            "similarity": lambda: 1 - ssim(avg_pool2d(some, 2), avg_pool2d(true, 2)),
            "perceptual": lambda: self._perceptual[0](some, true),
            "frames": lambda: frame_to_frame(made, real, batch["follows"])}
        return {name: self.weights[name] * loss() for name, loss in every.items() if name in self.weights}

    def training_step(self, batch: dict[str, Tensor], _: int) -> None:
        found: Any = self.optimizers()
        steps: list[Any] = found if isinstance(found, list) else [found]
        heard, real = batch["features"], batch["picture"]
        if self.hparams["noise"]:
            heard = heard + self.hparams["noise"] * heard.std(0, correction=0) * torch.randn_like(heard)
        made = self.generator(heard)
        logs: dict[str, Tensor] = {}
        adversarial = self.discriminator is not None and self.global_step >= self.hparams["warmup"]
        if self.discriminator is not None:
            # As in `vocoder.py`: without this Lightning would count each batch twice.
            steps[1]._on_before_step = steps[1]._on_after_step = _nothing
        if adversarial:
            assert self.discriminator is not None
            with self.toggled_optimizer(steps[1]):
                logs["discriminator"] = discriminator_loss([self.discriminator(real, heard)],
                                                           [self.discriminator(made.detach(), heard)])
                step(self, steps[1], logs["discriminator"], self.hparams["clip"])
        with self.toggled_optimizer(steps[0]):
            losses = self._losses(made, real, batch, self.hparams["rows"])
            if adversarial:
                assert self.discriminator is not None
                losses["adversarial"] = (self.weights["adversarial"]
                                         * generator_loss([self.discriminator(made, heard)]))
            loss = torch.stack(list(losses.values())).sum()
            step(self, steps[0], loss, self.hparams["clip"])
        logs.update({**losses, "loss": loss})
        self.log_dict({f"train/{name}": value.detach() for name, value in logs.items()}, prog_bar=True,
                      batch_size=len(real))
        for schedule in self._schedules()[: 1 + adversarial]:
            schedule.step()

    def _schedules(self) -> list[Any]:
        found: Any = self.lr_schedulers()
        return found if isinstance(found, list) else [] if found is None else [found]

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        real, made = batch["picture"], self.generator(batch["features"])
        pixels = [((part + 1) * 127.5).round().byte().cpu().numpy() for part in (made, real)]
        alike = [histogram_similarity(a, b) for a, b in zip(*pixels, strict=True)]
        self.log_dict({"valid/loss": torch.stack(list(self._losses(made, real, batch).values())).sum(),
                       "valid/mse": mse_loss(made, real), "valid/ssim": ssim(made, real),
                       "valid/hss": torch.tensor(alike, device=self.device).mean()}, batch_size=len(real))

    def configure_optimizers(self) -> tuple[list[torch.optim.Adam], list[Any]]:
        betas = tuple(self.hparams["betas"])
        optimizers = [torch.optim.Adam(self.generator.parameters(), self.hparams["lr"], betas)]
        if self.discriminator is not None:
            optimizers.append(torch.optim.Adam(self.discriminator.parameters(),
                                               self.hparams["discriminator_lr"], betas))
        if not self.hparams["decay"]:
            return optimizers, []
        steps = max(1, self.hparams["max_steps"])
        return optimizers, [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
                            for optimizer in optimizers]

    def export(self, folder: Path, batches: Iterable[Any]) -> None:
        """Write `sound/`, which `SoundPictureGenerator.from_pretrained` loads: in fp16 where that holds it.

        The published learning rate on MFCC as they are drives some weights beyond.
        """
        self.generator.eval()
        try:
            save_half(self.generator, folder / "sound")
        except UserError:
            save_pretrained(self.generator, folder / "sound")
