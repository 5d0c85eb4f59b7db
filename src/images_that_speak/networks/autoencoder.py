"""The autoencoders: diffusers' AutoencoderKL, and the pocket family's own. codec.py has what uses them.

`PatchAutoencoder` is the pocket family's: the Karhunen–Loève transform of 16 × 16 patches, cut after 32
coefficients, and a small network that mends what the cut took. Half an hour of two CPU cores trains an
AutoencoderKL of this size to a word error rate of 42 % (docs/results.md); the transform is computed in
seconds, loses a few points, and is linear: a mixture of latents is the mixture of the pictures.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

from ..files import read_json
from ..weights import finite


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(gelu(norm x)))), (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """z = B (x − m) for every patch x of `patch`² pixels; back by Bᵀ z + m and a learnt correction.

    B holds the first `latent_channels` eigenvectors of the patches' covariance: of all linear codes of that
    size the one with the least squared error (Karhunen 1947, Loève 1948). It has AutoencoderKL's interface;
    its posterior has no variance. The correction sees the whole picture as 4 × 4 patches, so that it can mend
    the borders between patches; it starts at zero.

    Args:
        width: channels of the correction; 0 leaves it out. layers: its residual blocks.
        latents_mean, latents_std: per channel; diffusion works on (z − mean)/std.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, patch: int = 16, latent_channels: int = 16, width: int = 48, layers: int = 4,
                 latents_mean: list[float] | None = None, latents_std: list[float] | None = None,
                 in_channels: int = 1, out_channels: int = 1):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(patch**2), requires_grad=False)
        self.basis = nn.Parameter(torch.eye(latent_channels, patch**2), requires_grad=False)
        self.correction = None
        if width:
            last = nn.Conv2d(width, 16, 3, padding=1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
            self.correction = nn.Sequential(
                nn.Conv2d(16, width, 3, padding=1), *(ResidualBlock(width) for _ in range(layers)), last)

    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """(B, 1, H, W) in [-1, 1] → .latent_dist over (B, C, H / patch, W / patch)."""
        patches = pixel_unshuffle(x, self.config.patch) - self.mean[:, None, None]
        z = conv2d(patches, self.basis[:, :, None, None])
        moments = torch.cat([z, torch.full_like(z, -30.0)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, z: Tensor) -> DecoderOutput:
        """(B, C, h, w) → .sample (B, 1, h · patch, w · patch), about [-1, 1]."""
        patches = conv2d(z, self.basis.T[:, :, None, None]) + self.mean[:, None, None]
        x = pixel_shuffle(patches, self.config.patch)
        if self.correction is not None:
            x = x + pixel_shuffle(self.correction(pixel_unshuffle(x, 4)), 4)
        return DecoderOutput(sample=x)

    forward = encode

    @torch.no_grad()
    def fit(self, pictures: Tensor, base: PatchAutoencoder | None = None) -> float:
        """Set mean and basis from (N, 1, H, W) pictures in [-1, 1]; return the share of variance kept.

        base: an autoencoder of fewer coefficients, whose mean and coefficients stay the first ones as they
            are, so that what was trained on its latents can be trained on. The others are then the
            eigenvectors of the covariance of what it leaves over.
        """
        patches = pixel_unshuffle(pictures, self.config.patch).transpose(0, 1).flatten(1).double()
        covariance = torch.cov(patches)
        total = covariance.trace()
        first = covariance.new_empty(0, len(covariance)) if base is None else base.basis.double()
        # Half-precision coefficients are orthonormal to 1e-3 only: what they span is left out exactly.
        rest = torch.eye(len(covariance), dtype=torch.float64) - torch.linalg.pinv(first) @ first
        values, vectors = torch.linalg.eigh(rest @ covariance @ rest)
        more = self.config.latent_channels - len(first)
        basis = vectors.flip(1)[:, :more].T
        # An eigenvector's sign is arbitrary: fixed, that the same data give the same latents everywhere.
        self.basis.copy_(torch.cat([first, basis * basis.sum(1, keepdim=True).sign()]))
        self.mean.copy_(patches.mean(1) if base is None else base.mean)
        z = self.encode(pictures).latent_dist.mean
        mean, std = z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).tolist()
        if base is not None:
            mean[:len(first)], std[:len(first)] = base.config.latents_mean, base.config.latents_std
        self.register_to_config(latents_mean=mean, latents_std=std)
        return float(1 - ((rest @ covariance).trace() - values.flip(0)[:more].sum()) / total)


def autoencoder_class(folder: str | Path) -> type[AutoencoderKL] | type[PatchAutoencoder]:
    """The class that the config of an autoencoder's folder names."""
    name = read_json(Path(folder) / "config.json").get("_class_name")
    return PatchAutoencoder if name == PatchAutoencoder.__name__ else AutoencoderKL


def load_autoencoder(folder: str | Path,
                     dtype: torch.dtype = torch.float32) -> AutoencoderKL | PatchAutoencoder:
    """The autoencoder of a folder."""
    return finite(autoencoder_class(folder).from_pretrained(folder, torch_dtype=dtype), folder)


def pocket_autoencoder(channels: tuple[int, ...] = (64, 96, 128), latent_channels: int = 16,
                       patch: int = 4) -> AutoencoderKL:
    """A small, untrained AutoencoderKL on `patch` × `patch` patches of one gray channel, without attention.

    It is patch · 2^(levels − 1) times down.
    """
    return AutoencoderKL(
        in_channels=patch**2, out_channels=patch**2, latent_channels=latent_channels,
        block_out_channels=tuple(channels), down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels), layers_per_block=1, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=256 // patch, scaling_factor=1.0)
