"""Pictures into and out of an AutoencoderKL, whatever number of channels it takes.

The pocket autoencoder takes 4 × 4 patches as 16 channels: on a CPU the full-resolution levels of an
autoencoder cost most of its time, and a convolution has to learn there what rearranging pixels does for
nothing. Stable Diffusion's takes three equal channels, and the mean of its three is the picture.
"""

from __future__ import annotations

import math

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


def pocket_autoencoder(channels: tuple[int, ...] = (64, 96, 128), latent_channels: int = 16,
                       patch: int = 4) -> AutoencoderKL:
    """A small AutoencoderKL on `patch` × `patch` patches of one gray channel, without attention.

    It is patch · 2^(levels − 1) times down.
    """
    return AutoencoderKL(
        in_channels=patch**2, out_channels=patch**2, latent_channels=latent_channels,
        block_out_channels=tuple(channels), down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels), layers_per_block=1, norm_num_groups=8,
        mid_block_add_attention=False, sample_size=256 // patch, scaling_factor=1.0)


def patch_size(in_channels: int) -> int:
    """The side of the patches that an autoencoder takes as channels: 1 for one or three channels."""
    return 1 if in_channels in (1, 3) else math.isqrt(in_channels)


def encode(vae: AutoencoderKL, picture: Tensor) -> DiagonalGaussianDistribution:
    """(B, 1, 256, F) picture in [0, 1], of the autoencoder's dtype → the posterior over latents, a diagonal Gaussian."""
    x = picture * 2 - 1
    return vae.encode(x.expand(-1, 3, -1, -1) if vae.config.in_channels == 3
                      else pixel_unshuffle(x, patch_size(vae.config.in_channels))).latent_dist


def decode(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    """(B, C, H, W) latent, of the autoencoder's dtype, not normalised → (B, 1, 256, F) picture, float32, not clamped."""
    x = vae.decode(latent).sample.float()
    x = x.mean(1, keepdim=True) if vae.config.out_channels == 3 else pixel_shuffle(x, patch_size(vae.config.in_channels))
    return x / 2 + 0.5
