"""Windows of coloured drawings with speech over them, drawn in batches while training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .captions import Caption
from .corpus import Corpus
from .emoji import FONT, concepts, drawing
from .pictures import PictureSampler, scaled
from .steps import StepData


@dataclass
class ColouredBatch:
    """gray (B, 1, S, S) in [0, 1], its chroma (B, 2, S, S) as `Drawing` has it, and B captions."""

    gray: Tensor
    chroma: Tensor
    captions: list[str]


@dataclass(frozen=True)
class ColouredWindows:
    """Squares of a picture, each batch a function of (seed, index) alone: one drawing, perhaps speech.

    The drawing has the chroma of the font; speech, a silhouette and its ground have none.

    corpus: folder of a speech corpus. pixels: the side S of a window, which stands for 256 pixels of a
    picture. silhouettes, speaking: shares of windows. split: of the captions.
    """

    corpus: str
    seed: int = 0
    batch_size: int = 16
    pixels: int = 32
    silhouettes: float = 0.05
    speaking: float = 0.4
    split: str = "train"
    font: str = FONT

    @cached_property
    def textures(self) -> Tensor:
        """(concepts, 4, 2S, 2S): gray, alpha and chroma of each drawing, all but alpha multiplied by it."""
        side = 2 * self.pixels
        planes = np.zeros((len(concepts()), 4, side, side), np.float32)
        for index, concept in enumerate(concepts()):
            figure = drawing(concept.char, self.font)
            rows, columns = (max(1, round(n * side / max(figure.gray.shape))) for n in figure.gray.shape)
            top, left = (side - rows) // 2, (side - columns) // 2
            box = planes[index, :, top: top + rows, left: left + columns]
            box[1] = scaled(figure.alpha, rows, columns)
            box[0] = scaled(figure.gray, rows, columns) * box[1]
            # `scaled` keeps to [0, 1].
            low, high = figure.chroma.min(), figure.chroma.max()
            for plane, source in zip(box[2:], figure.chroma, strict=True):
                plane[:] = (scaled((source - low) / (high - low + 1e-6), rows, columns) * (high - low) + low)
            box[2:] *= box[1]
        return torch.from_numpy(planes)

    @cached_property
    def speech(self) -> Tensor:
        """(N, S, 4S) of pictures of speech, of at most 500 clips."""
        corpus = Corpus.open(self.corpus, "train")
        rows = np.random.default_rng(self.seed).permutation(len(corpus))[:500]
        pictures = np.stack([corpus.picture(int(row)) for row in rows])
        n, height, width = pictures.shape
        zoom = height // self.pixels
        blocks = pictures.reshape(n, self.pixels, zoom, width // zoom, zoom)
        return torch.from_numpy(blocks.mean((2, 4), dtype=np.float32) / 255)

    def batch(self, index: int) -> ColouredBatch:
        """Batch `index`."""
        rng = np.random.default_rng([self.seed, index])
        sampler = PictureSampler(silhouettes=self.silhouettes, split=self.split, font=self.font)
        captions = [sampler.choose(rng) for _ in range(self.batch_size)]
        placed = self._placed(rng, captions)
        n = len(captions)
        peak = torch.from_numpy(rng.uniform(0.15, 0.9, (n, 1, 1)).astype(np.float32))
        dark = torch.tensor([caption.ground == "silhouette" for caption in captions])[:, None, None]
        gray = peak * torch.where(dark, 1 - placed[:, 1], placed[:, 0])
        chroma = placed[:, 2:] * ~dark[:, None]
        spoken = self._spoken(rng, n)
        chroma = chroma * (gray >= spoken)[:, None]
        gray = gray.maximum(spoken)
        # What is denoised is softer than the font, and not as clean.
        soft = torch.from_numpy(rng.random((n, 1, 1)).astype(np.float32)) * 0.8
        gray = gray + soft * (F.avg_pool2d(gray[:, None], 3, 1, 1, count_include_pad=False)[:, 0] - gray)
        grain = torch.from_numpy(rng.normal(size=gray.shape).astype(np.float32))
        gray = (gray * (1 + 0.1 * grain)).clamp(0, 1)
        return ColouredBatch(gray[:, None], chroma, [caption.text for caption in captions])

    def _placed(self, rng: np.random.Generator, captions: list[Caption]) -> Tensor:
        """(B, 4, S, S): the drawings, each somewhere, of some size, perhaps mirrored and cut by the edge."""
        n = len(captions)
        zoom = torch.from_numpy(rng.uniform(0.45, 1.05, n).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.6, 0.6, (n, 2)).astype(np.float32)) * (1.3 - zoom)[:, None]
        mirror = torch.from_numpy(np.where(rng.random(n) < 0.5, -1.0, 1.0).astype(np.float32))
        zero = torch.zeros(n)
        theta = torch.stack([torch.stack([mirror / zoom, zero, -mirror * shift[:, 0] / zoom], 1),
                             torch.stack([zero, 1 / zoom, -shift[:, 1] / zoom], 1)], 1)
        grid = F.affine_grid(theta, [n, 4, self.pixels, self.pixels], align_corners=False)
        textures = self.textures[[caption.concept for caption in captions]]
        return F.grid_sample(textures, grid, align_corners=False)

    def _spoken(self, rng: np.random.Generator, n: int) -> Tensor:
        """(B, S, S): windows of speech, at some loudness; black where none is spoken."""
        pictures = self.speech
        at = rng.integers(0, pictures.shape[2] - self.pixels + 1, n)
        windows = torch.stack([pictures[row, :, a: a + self.pixels]
                               for row, a in zip(rng.integers(0, len(pictures), n), at, strict=True)])
        loud = rng.uniform(0.5, 1.0, n) * (rng.random(n) < self.speaking)
        return windows * torch.from_numpy(loud.astype(np.float32))[:, None, None]


class ColouredData(StepData):
    """Batches for `ColourTraining`: {"gray": (B, 1, S, S), "chroma": (B, 2, S, S), "captions": B texts}.

    Validates on captions that no training sees.

    Args:
        corpus: folder of the speech corpus whose pictures lie over the drawings.
    """

    def __init__(self, corpus: str | Path, batch_size: int = 16, workers: int = 0, seed: int = 0):
        super().__init__(batch_size, workers)
        self.train = ColouredWindows(str(corpus), seed=seed, batch_size=batch_size)
        self.valid = replace(self.train, seed=seed + 1, split="test")

    @property
    def valid_batches(self) -> int:
        return 8

    def train_batch(self, number: int) -> dict[str, Any]:
        return vars(self.train.batch(number))

    def valid_batch(self, number: int) -> dict[str, Any]:
        return vars(self.valid.batch(number))
