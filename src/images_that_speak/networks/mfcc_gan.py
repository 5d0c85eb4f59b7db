"""Sound → picture: features of a sound, linear layers, and a DCGAN's generator; and its discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.utils import parametrizations

SLOPE = 0.2
SIDE = 256  # pixels: eight times twice one


class SoundPictureGenerator(ModelMixin, ConfigMixin):
    """Features of a sound → a picture in [-1, 1]. The defaults are the published ones.

    (B, inputs) → linear layers of `hidden` and `channels[0]`, LeakyReLU 0.2 between → (B, channels[0], 1, 1)
    → eight transposed convolutions (kernel 4, stride 2, padding 1) of `channels` and 3, batch norm and
    LeakyReLU between → tanh → (B, 3, 256, 256). Whether the last linear layer has its LeakyReLU, and the
    convolutions their biases, is not published: here it has none, and they have.

    Args:
        features: the name of the `SoundFeatures` that it is drawn from.
        normalised: whether features are brought to mean 0 and deviation 1 first; published: as they are.
        dropout: of the hidden layers, in training.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, inputs: int = 104, hidden: Sequence[int] = (1024, 768, 512, 256),
                 channels: Sequence[int] = (100, 256, 128, 64, 32, 16, 8, 4), features: str = "mfcc",
                 normalised: bool = False, dropout: float = 0.0):
        super().__init__()
        if len(channels) != 8:
            raise ValueError(f"channels={list(channels)}: expected eight, for {SIDE} pixels")
        sizes = [inputs, *hidden, channels[0]]
        self.normalise = nn.BatchNorm1d(inputs, affine=False) if normalised else nn.Identity()
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(a, b), nn.LeakyReLU(SLOPE), *([nn.Dropout(dropout)] if dropout else [])]
        self.encoder = nn.Sequential(*layers[: -2 if dropout else -1])
        blocks: list[nn.Module] = []
        for a, b in zip(channels, [*channels[1:], 3], strict=True):
            blocks += [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1), nn.BatchNorm2d(b),
                       nn.LeakyReLU(SLOPE)]
        self.generator = nn.Sequential(*blocks[:-2], nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) → (B, 3, 256, 256) in [-1, 1]."""
        return self.generator(self.encoder(self.normalise(features))[..., None, None])


class SoundPictureDiscriminator(nn.Module):
    """Judges pictures in patches, and whether they belong to their sound (projection, Miyato & Koyama 2018).

    Args:
        inputs: length of the sound's vector. width: channels of the first of four levels.
    """

    def __init__(self, inputs: int, width: int = 24):
        super().__init__()
        norm = parametrizations.spectral_norm
        sizes = [3, width, 2 * width, 4 * width, 4 * width]
        self.levels = nn.Sequential(*(
            layer for a, b in zip(sizes, sizes[1:], strict=False)
            for layer in (norm(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(SLOPE))))
        self.real = norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))
        self.normalise = nn.BatchNorm1d(inputs, affine=False)
        self.sound = nn.Linear(inputs, sizes[-1])

    def forward(self, picture: Tensor, features: Tensor) -> Tensor:
        """(B, 3, 256, 256), (B, inputs) → (B, 1 + 16 · 16) scores: 1 is real, 0 is made."""
        seen = self.levels(picture)
        told = self.sound(self.normalise(features)) * seen.mean((2, 3))
        return torch.cat([told.mean(1, keepdim=True), self.real(seen).flatten(1)], 1)
