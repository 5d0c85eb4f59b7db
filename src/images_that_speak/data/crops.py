"""Crops for the autoencoder: of speech, of drawings, and of both laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..audio.mel import MEL
from .corpus import Corpus
from .loader import Loader
from .pictures import PictureSampler


class PictureCrops(Dataset):
    """Square crops of 256 × `width` pictures, each a function of (seed, index) alone.

    Args:
        corpus: folder of a speech corpus; its `split` rows are used.
        length: number of crops, which is what a run sees: nothing repeats by epochs.
        width: frames a crop is wide.
        mix: shares of speech, drawings, and the brighter of both at every pixel (what a speaking picture
            is made of). They need not sum to 1.
    """

    def __init__(self, corpus: str | Path, length: int, width: int = 256, seed: int = 0,
                 mix: tuple[float, float, float] = (0.55, 0.2, 0.25), split: str = "train"):
        self.corpus = Corpus.open(corpus)
        self.rows = np.flatnonzero((self.corpus.table["split"] == split).to_numpy())
        self.starts = self.corpus.table["start"].to_numpy()
        self.seconds = self.corpus.table["seconds"].to_numpy()
        self.drawings = PictureSampler(seed=seed, split="train")
        self.length, self.width, self.seed = length, width, seed
        self.mix = np.cumsum(np.asarray(mix) / np.sum(mix))

    def __len__(self) -> int:
        return self.length

    def speech(self, rng: np.random.Generator) -> np.ndarray:
        row = int(rng.choice(self.rows))
        begin = self.starts[row] * MEL.sample_rate / MEL.hop
        length = self.seconds[row] * MEL.sample_rate / MEL.hop
        # At least half of the crop lies on the speech: silence is learnt from its edges.
        low, high = begin - self.width / 2, begin + max(length - self.width / 2, 1)
        at = int(np.clip(rng.uniform(low, high), 0, MEL.frames - self.width))
        return np.asarray(self.corpus.picture(row)[:, at:at + self.width])

    def drawing(self, rng: np.random.Generator) -> np.ndarray:
        picture = self.drawings.sample(int(rng.integers(2**31)))[0]
        columns = np.flatnonzero(picture.std(axis=0) > 0)
        centre = int(rng.choice(columns)) if len(columns) else MEL.frames // 2
        at = int(np.clip(centre - rng.integers(self.width), 0, MEL.frames - self.width))
        return picture[:, at:at + self.width]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        kinds = ((self.speech,), (self.drawing,), (self.speech, self.drawing))
        kind = kinds[int(np.searchsorted(self.mix[:-1], rng.random()))]
        crop = np.maximum.reduce([draw(rng) for draw in kind])
        return {"picture": torch.from_numpy(crop.astype(np.float32) / 255)[None]}


def crop_loader(corpus: str | Path, steps: int, batch_size: int, workers: int = 1,
                **crops: Any) -> Loader:
    """Batches of `PictureCrops` for `steps` steps."""
    dataset = PictureCrops(corpus, length=steps * batch_size, **crops)
    return Loader(dataset, batch_size=batch_size, num_workers=workers, prefetch_factor=4 if workers else None)
