"""What the picture reader learns from: distorted square windows that the painter never sees.

The painter (pictures.py) sees whole canvases of upright, clean drawings. The reader sees windows as its
sliding crops will cut them: drawings at any size, turned, sheared, bent, cut by the border, with neighbours,
over a raised ground, blurred, noisy, hidden in part under synthetic columns that imitate speech, and windows
with no drawing at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..ranges import check_ranges
from .captions import TEMPLATES, Caption, phrase
from .emoji import FONT, concepts, drawing
from .pictures import scaled
from .steps import StepData

NOTHING = (
    "nothing",
    "nothing, grayscale",
    "an empty picture",
    "an empty picture, grayscale",
    "a black background",
    "speech without a picture",
)
# A drawing names the window from SEEN of its area on; up to UNSEEN the window is called empty; between the
# two it is not scored.
UNSEEN, SEEN = 0.1, 0.3


@dataclass(frozen=True)
class WindowBatch:
    """pictures (B, S, S) in [0, 1]; labels (B,) concept index, `len(concepts())` for nothing, −1 unscored;
    silhouettes (B,) bool."""

    pictures: Tensor
    labels: Tensor
    silhouettes: Tensor


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers in [`low`, `high`) from a generator."""
    return low + (high - low) * torch.rand(shape, generator=generator)


@dataclass(frozen=True)
class Windows:
    """Batches of distorted windows and their captions, each determined by (seed, index) alone.

    pixels: the side S of a window, which stands for 256 pixels of a canvas. silhouettes: share of silhouettes
    among concepts that have one. empty: share of windows without a drawing.
    """

    seed: int = 0
    pixels: int = 64
    batch_size: int = 128
    silhouettes: float = 0.2
    empty: float = 0.08
    font: str = FONT

    @cached_property
    def textures(self) -> Tensor:
        """(concepts, 2, S, S): each drawing's gray·alpha and alpha, its longer side filling the square."""
        planes = np.zeros((len(concepts()), 2, self.pixels, self.pixels), np.float32)
        for index, concept in enumerate(concepts()):
            figure = drawing(concept.char, self.font)
            zoom = (self.pixels - 2) / max(figure.gray.shape)
            rows, columns = (max(1, round(side * zoom)) for side in figure.gray.shape)
            top, left = (self.pixels - rows) // 2, (self.pixels - columns) // 2
            for plane, source in enumerate((figure.gray * figure.alpha, figure.alpha)):
                planes[index, plane, top : top + rows, left : left + columns] = scaled(source, rows, columns)
        return torch.from_numpy(planes)

    def batch(self, index: int, distort: float = 1.0) -> WindowBatch:
        """Batch `index`.

        distort: share of windows with another light, noise and speech; bends and turns scale with it, so that
        0 gives clean, upright windows.
        """
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        n, s = self.batch_size, self.pixels
        kinds = torch.randint(len(concepts()), (n,), generator=g)
        outline = torch.tensor([concept.outline for concept in concepts()])[kinds]
        silhouettes = (torch.rand(n, generator=g) < self.silhouettes) & outline
        empty = torch.rand(n, generator=g) < self.empty
        texture = self.textures[kinds]

        # Size: the longer side as a fraction of the window; place: the centre, up to well over the border.
        size = uniform(g, 0.45, 1.05, n)
        reach = (0.5 + 0.25 * size)[:, None]
        centre = uniform(g, -1, 1, n, 2) * torch.cat([2 * reach, (1.1 - size)[:, None].clamp(min=0.1)], 1)
        inside = torch.rand(n, generator=g) < 0.5
        centre[inside, 0] *= 0.35
        theta = [self._affine(g, size, centre, distort)]
        # The neighbour: another copy beside the first, as the sampler sets them.
        side = torch.where(centre[:, 0] > 0, -1.0, 1.0) * (2 * size * uniform(g, 0.85, 1.3, n) + 0.1)
        beside = centre + torch.stack([side, uniform(g, -0.3, 0.3, n)], 1)
        beside[torch.rand(n, generator=g) < 0.5] = 9.0
        theta.append(self._affine(g, size, beside, distort))
        bend = F.interpolate(
            uniform(g, -1, 1, n, 2, 4, 4), size=(s, s), mode="bicubic", align_corners=False
        ).permute(0, 2, 3, 1) * (0.1 * distort * uniform(g, 0, 1, n, 1, 1, 1))
        copies = []
        for matrix in theta:
            grid = F.affine_grid(matrix, [n, 2, s, s], align_corners=False) + bend
            copies.append(F.grid_sample(texture, grid, mode="bilinear", align_corners=False))
        figure, visible = self._union(copies, size, texture)
        figure[empty] = 0
        visible[empty] = 0

        labels = torch.where(visible >= SEEN, kinds, torch.full_like(kinds, -1))
        labels[visible <= UNSEEN] = len(concepts())
        gray, alpha = figure[:, 0], figure[:, 1]
        peak = uniform(g, 0.3, 0.85, n, 1, 1)
        ground = uniform(g, 0, 0.2, n, 1, 1) * (torch.rand(n, 1, 1, generator=g) < 0.3 * distort)
        dark = (peak * (1 - alpha)).maximum(ground)
        pictures = torch.where(silhouettes[:, None, None], dark, gray * peak + ground * (1 - alpha))
        if distort:
            chosen = torch.rand(n, 1, 1, generator=g) < distort
            pictures = torch.where(chosen, self._distort(g, pictures), pictures)
        return WindowBatch(pictures.clamp(0, 1), labels, silhouettes)

    @staticmethod
    def _affine(g: torch.Generator, size: Tensor, centre: Tensor, distort: float) -> Tensor:
        """(B, 2, 3) from window to texture coordinates: turned ±20°, stretched, sheared, mirrored."""
        n = len(size)
        angle = uniform(g, -1, 1, n) * math.radians(20) * distort
        stretch = torch.exp(uniform(g, -0.3, 0.3, n) * distort)
        shear = uniform(g, -0.2, 0.2, n) * distort
        mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
        cosine, sine = angle.cos(), angle.sin()
        rows = torch.stack(
            [
                torch.stack([cosine * mirror / stretch, (sine + shear) * mirror / stretch], 1),
                torch.stack([-sine, cosine], 1),
            ],
            1,
        ) / size[:, None, None]
        return torch.cat([rows, -(rows @ centre[..., None])], 2)

    @staticmethod
    def _union(copies: list[Tensor], size: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
        """Both copies in one (B, 2, S, S), and the fraction of one drawing's area that is seen, at most 1."""
        whole = texture[:, 1].mean((1, 2)) * size.square()
        shares = torch.stack([copy[:, 1].mean((1, 2)) for copy in copies])
        return copies[0].maximum(copies[1]), (shares.amax(0) / whole).clamp(max=1)

    def _distort(self, g: torch.Generator, pictures: Tensor) -> Tensor:
        n, s = len(pictures), self.pixels
        columns = torch.linspace(0, 1, s)[None, None, :]
        rows = torch.linspace(1, 0, s)[None, :, None]  # 0 at the bottom, as frequency runs

        def some(share: float) -> Tensor:
            return (torch.rand(n, 1, 1, generator=g) < share).float()

        pictures = pictures.clamp(min=1e-4).pow(torch.exp(uniform(g, -0.5, 0.5, n, 1, 1)))
        # Columns of speech: soft bars in time, formants over frequency, harmonics that rise or fall.
        speech = torch.zeros_like(pictures)
        for _ in range(3):
            start, width = uniform(g, -0.1, 1, n, 1, 1), uniform(g, 0.02, 0.3, n, 1, 1)
            edge = uniform(g, 30, 150, n, 1, 1)
            bar = torch.sigmoid((columns - start) * edge) * torch.sigmoid((start + width - columns) * edge)
            formants = F.interpolate(
                uniform(g, 0, 1, n, 1, 6), size=s, mode="linear", align_corners=True
            ).transpose(1, 2)
            tilt = (1 - rows * uniform(g, -0.5, 1, n, 1, 1)).clamp(0, 1)
            cycles, slope = uniform(g, 5, 16, n, 1, 1), uniform(g, -4, 4, n, 1, 1)
            comb = 0.5 + 0.5 * torch.cos(2 * math.pi * (rows * cycles + slope * columns))
            texture = 1 - some(0.6) * (1 - comb) * uniform(g, 0.3, 1, n, 1, 1)
            loud = uniform(g, 0.2, 0.9, n, 1, 1) * some(0.6)
            speech = speech.maximum(bar * formants * tilt * texture * loud)
        speech = speech * some(0.65)
        blend = uniform(g, 0.3, 0.6, n, 1, 1)
        averaged = some(0.3)
        mixed = (1 - blend) * pictures + blend * speech
        pictures = averaged * mixed + (1 - averaged) * pictures.maximum(speech)
        # Darker columns, as where silence is wanted between words.
        dim = F.interpolate(uniform(g, 0, 1, n, 1, 8), size=s, mode="linear", align_corners=True)
        pictures = pictures * (1 - some(0.3) * dim * 0.8)
        noise = torch.randn(n, s, s, generator=g)
        soft = F.avg_pool2d(noise[:, None], 3, 1, 1)[:, 0] * 2.2
        coarse = some(0.5)
        noise = coarse * soft + (1 - coarse) * noise
        pictures = pictures * (1 + noise * uniform(g, 0, 0.4, n, 1, 1) * some(0.4))
        pictures = pictures + noise * uniform(g, 0, 0.1, n, 1, 1) * some(0.4)
        blurred = F.avg_pool2d(pictures[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        amount = uniform(g, 0, 1, n, 1, 1) * some(0.6)
        pictures = pictures + amount * (blurred - pictures)
        more = F.avg_pool2d(blurred[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        return pictures + some(0.15) * (more - pictures)

    def texts(self, index: int) -> list[str]:
        """A caption for every concept, and last one for nothing, drawn anew for every batch."""
        rng = np.random.default_rng([self.seed, index, 7])
        found = []
        for number, concept in enumerate(concepts()):
            ground = "silhouette" if concept.outline and rng.random() < self.silhouettes else "black"
            template = TEMPLATES[ground][rng.integers(len(TEMPLATES[ground]))]
            count = ("one", "many", "many", "two", "three", "four", "five")[rng.integers(7)]
            caption = Caption(number, ground, template, count)
            # A held-out sentence is left to the test; its noun phrase alone is said instead.
            found.append(phrase(concept, "many") if caption.held_out else caption.text)
        return [*found, NOTHING[rng.integers(len(NOTHING))]]


class WindowData(StepData):
    """Batches for `ClipTraining`: {"pictures": (B, S, S), "labels": (B,), "texts": a caption of each label}.

    Validates on distorted windows that are not trained on.

    Args:
        pixels: side S of a window. ramp: steps until all windows are distorted.
    """

    def __init__(self, batch_size: int = 128, pixels: int = 64, ramp: int = 350, font: str = FONT,
                 workers: int = 0, seed: int = 0):
        super().__init__(batch_size, workers)
        check_ranges({"data.ramp": ramp})
        self.train = Windows(seed, pixels, batch_size, font=font)
        self.valid = replace(self.train, seed=seed + 1)
        self.ramp = ramp

    @property
    def valid_batches(self) -> int:
        return 4

    def train_batch(self, number: int) -> dict[str, Any]:
        return self._batch(self.train, number, min(1.0, number / self.ramp))

    def valid_batch(self, number: int) -> dict[str, Any]:
        return self._batch(self.valid, number, 1.0)

    @staticmethod
    def _batch(windows: Windows, number: int, distort: float) -> dict[str, Any]:
        batch = windows.batch(number, distort)
        return {"pictures": batch.pictures, "labels": batch.labels, "texts": windows.texts(number)}
