"""Pictures into and out of an autoencoder.

An `AutoencoderKL` may take one channel, three equal ones (Stable Diffusion's; the mean of its three is the
picture), or patches of p × p pixels as p² channels. Nothing here imports the library that it is of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    from .autoencoder import PatchAutoencoder


def downsampling(config: Mapping[str, Any]) -> int:
    """Pixels a latent cell is wide, from an autoencoder's config. Raises KeyError when it is none."""
    if "patch" in config:
        return int(config["patch"])
    return patch_size(int(config["in_channels"])) * 2 ** (len(config["block_out_channels"]) - 1)


def patch_size(in_channels: int) -> int:
    """The side of the patches that an autoencoder takes as channels: 1 for one or three channels."""
    return 1 if in_channels in (1, 3) else math.isqrt(in_channels)


def encode(vae: AutoencoderKL | PatchAutoencoder, picture: Tensor) -> DiagonalGaussianDistribution:
    """(B, 1, 256, F) picture in [0, 1] → the posterior over latents, a diagonal Gaussian.

    The picture is of the autoencoder's dtype.
    """
    x = picture * 2 - 1
    return vae.encode(x.expand(-1, 3, -1, -1) if vae.config.in_channels == 3
                      else pixel_unshuffle(x, patch_size(vae.config.in_channels))).latent_dist


def decode(vae: AutoencoderKL | PatchAutoencoder, latent: Tensor) -> Tensor:
    """(B, C, H, W) latent → (B, 1, 256, F) picture, float32, not clamped.

    The latent is of the autoencoder's dtype and not normalised.
    """
    x = vae.decode(latent).sample.float()
    x = (x.mean(1, keepdim=True) if vae.config.out_channels == 3
         else pixel_shuffle(x, patch_size(vae.config.in_channels)))
    return x / 2 + 0.5
