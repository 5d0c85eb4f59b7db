"""HiFi-GAN's discriminators (Kong et al. 2020). Parameter names and order are the published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils import parametrizations

SLOPE = 0.1


@dataclass
class Judged:
    """What a set of discriminators makes of a batch of waves.

    Attributes:
        scores: one (B, N) tensor for each discriminator; 1 is real, 0 is made.
        features: for each discriminator the outputs of its layers.
    """

    scores: list[Tensor]
    features: list[list[Tensor]]

    def __add__(self, other: Judged) -> Judged:
        return Judged(self.scores + other.scores, self.features + other.features)


def _layers(x: Tensor, convs: nn.ModuleList, last: nn.Module) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in convs:
        x = leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = last(x)
    return x.flatten(1), [*features, x]


class PeriodDiscriminator(nn.Module):
    """Sees the wave folded into rows of `period` samples, and convolves along each column."""

    def __init__(self, period: int, width: float = 1.0):
        super().__init__()
        self.period = period
        channels = [1, *(max(1, round(c * width)) for c in (32, 128, 512, 1024, 1024))]
        norm = parametrizations.weight_norm
        self.convs = nn.ModuleList(
            norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(zip(channels, channels[1:], strict=False)))
        self.conv_post = norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, T) → scores (B, N), features."""
        wave = pad(wave, (0, -wave.shape[2] % self.period), mode="reflect")
        return _layers(wave.unflatten(2, (-1, self.period)), self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions along the wave."""

    def __init__(self, spectral: bool = False, width: float = 1.0):
        super().__init__()
        # Multiples of 16, the number of groups.
        channels = [max(16, round(c * width / 16) * 16) for c in (128, 128, 256, 512, 1024, 1024, 1024)]
        norm: Callable[[nn.Module], nn.Module] = (parametrizations.spectral_norm if spectral
                                                  else parametrizations.weight_norm)
        shapes = [(15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16), (41, 1, 16), (5, 1, 1)]
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, padding=kernel // 2, groups=groups))
            for a, b, (kernel, stride, groups) in zip([1, *channels], channels, shapes, strict=False))
        self.conv_post = norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, T) → scores (B, N), features."""
        return _layers(wave, self.convs, self.conv_post)


class MultiPeriodDiscriminator(nn.Module):
    """A `PeriodDiscriminator` for each prime period. `width` multiplies the channels."""

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), width: float = 1.0):
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, width) for period in periods)

    def forward(self, wave: Tensor) -> Judged:
        """Judge waves (B, T)."""
        judged = [discriminator(wave[:, None]) for discriminator in self.discriminators]
        return Judged([scores for scores, _ in judged], [features for _, features in judged])


class MultiScaleDiscriminator(nn.Module):
    """A `ScaleDiscriminator` on the wave (spectral norm) and on the wave at every further half rate."""

    def __init__(self, scales: int = 3, width: float = 1.0):
        super().__init__()
        self.discriminators = nn.ModuleList(ScaleDiscriminator(i == 0, width) for i in range(scales))
        self.meanpools = nn.ModuleList(nn.AvgPool1d(4, 2, padding=2) for _ in range(scales - 1))

    def forward(self, wave: Tensor) -> Judged:
        """Judge waves (B, T)."""
        x, scores, features = wave[:, None], [], []
        for i, discriminator in enumerate(self.discriminators):
            x = self.meanpools[i - 1](x) if i else x
            score, feature = discriminator(x)
            scores.append(score)
            features.append(feature)
        return Judged(scores, features)


def discriminator_loss(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """Least squares (Mao et al. 2017), summed over discriminators: E(1 − D(x))² + E D(G(m))²."""
    return torch.stack([((1 - r.float()) ** 2).mean() + (m.float() ** 2).mean()
                        for r, m in zip(real, made, strict=True)]).sum()


def generator_loss(made: Sequence[Tensor]) -> Tensor:
    """Least squares, summed over discriminators: E(1 − D(G(m)))²."""
    return torch.stack([((1 - m.float()) ** 2).mean() for m in made]).sum()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], made: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum over discriminators and layers of the mean absolute difference of their features."""
    pairs = ((r, m) for rs, ms in zip(real, made, strict=True) for r, m in zip(rs, ms, strict=True))
    return torch.stack([(r.detach().float() - m.float()).abs().mean() for r, m in pairs]).sum()
