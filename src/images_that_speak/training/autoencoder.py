"""The autoencoder that both branches share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import l1_loss

from ..figures import declares
from ..networks.autoencoder import load_autoencoder, pocket_autoencoder
from ..networks.codec import decode, encode
from .export import save_half
from .schedule import adamw


def edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbouring frames and between neighbouring bands of (B, 1, H, W)."""
    return picture.diff(dim=-1), picture.diff(dim=-2)


@declares("train/loss", "train/l1", "train/edge", "train/kl", "valid/l1", "valid/edge", "valid/kl")
class AutoencoderTraining(L.LightningModule):
    """L1 on the picture and on its edges, and a KL term per latent element.

    One unit of the picture is 146 dB, so L1 is an error in decibels. The edge term keeps harmonics and
    formant borders, which L1 alone blurs. The KL term makes the posterior as wide as the decoder bears,
    so that what the diffusion models get slightly wrong still decodes.

    A batch is {"picture": (B, 1, H, W) in [0, 1]}.

    Args:
        pretrained: folder of an autoencoder whose decoder alone is trained further; its encoder stays, and
            with it every cached latent and every model trained on latents.
        latent_noise: noise added to latents before decoding, in standard deviations of each channel, that
            the decoder bears what diffusion gets slightly wrong (with `pretrained` only).
    """

    def __init__(self, channels: tuple[int, ...] = (64, 96, 128), latent_channels: int = 16,
                 patch: int = 4, lr: float = 1e-3, warmup: int = 50, max_steps: int = 2000,
                 kl_weight: float = 1e-6, edge_weight: float = 0.5, pretrained: str | None = None,
                 latent_noise: float = 0.0):
        super().__init__()
        self.save_hyperparameters()
        self.vae = (pocket_autoencoder(channels, latent_channels, patch) if pretrained is None
                    else load_autoencoder(pretrained))
        self.decoder_only = pretrained is not None
        if self.decoder_only:
            # What was encoded with it, and what was trained on that, stays valid.
            for name, part in self.vae.named_children():
                if name in ("encoder", "quant_conv"):
                    part.requires_grad_(False)

    def losses(self, picture: Tensor) -> dict[str, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.decoder_only):
            posterior = encode(self.vae, picture)
            latent = posterior.sample()
        if self.hparams["latent_noise"]:
            std = torch.tensor(self.vae.config.latents_std, device=latent.device)[:, None, None]
            latent = latent + self.hparams["latent_noise"] * std * torch.randn_like(latent)
        decoded = decode(self.vae, latent)
        across, down = map(l1_loss, edges(decoded), edges(picture))
        losses = {"l1": l1_loss(decoded, picture), "edge": across + down}
        if not self.decoder_only:
            mean, variance = posterior.mean.float(), posterior.var.float()
            losses["kl"] = 0.5 * (mean**2 + variance - 1 - variance.log()).mean()
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        weights = {"l1": 1.0, "edge": self.hparams["edge_weight"], "kl": self.hparams["kl_weight"]}
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        losses = self.losses(batch["picture"])
        total = self.total(losses)
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.log_dict({f"valid/{name}": value for name, value in self.losses(batch["picture"]).items()},
                      batch_size=len(batch["picture"]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return adamw([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"],
                     warmup=self.hparams["warmup"], total=self.hparams["max_steps"], weight_decay=1e-3)

    @torch.no_grad()
    def measure_latents(self, batches: Iterable[dict[str, Tensor]]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of every latent channel over the posterior means of `batches`."""
        self.eval()
        latents = torch.cat([encode(self.vae, batch["picture"]).mean.float().cpu()
                             for batch in batches])
        return latents.mean((0, 2, 3)).tolist(), latents.std((0, 2, 3)).tolist()

    def export(self, folder: Path, batches: Iterable[dict[str, Tensor]]) -> None:
        """Write `vae/`, which `load_autoencoder` loads, in fp16.

        Its config carries `latents_mean` and `latents_std`, measured on `batches`: diffusion works on
        (z − mean)/std, so that every channel has variance 1.
        """
        if not self.decoder_only:
            mean, std = self.measure_latents(batches)
            self.vae.register_to_config(latents_mean=mean, latents_std=std)
        save_half(self.vae, folder / "vae")
