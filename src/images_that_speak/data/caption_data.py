"""Captions with what they name, for the training of the image branch's text encoder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .captions import COUNTS, GROUNDS, Caption, captions
from .datamodule import token_ids
from .steps import Drawn, StepData

VALID = 512  # captions of a batch of the validation


class CaptionData(StepData):
    """Captions drawn with replacement; the held-out ones for validation.

    A batch is {"input_ids": (B, T) int64, "labels": (B, 3) int64 of concept, count and ground}.

    Args:
        tokenizer: folder of the captions' CLIPTokenizer.
    """

    def __init__(self, tokenizer: str | Path, batch_size: int = 256, workers: int = 0, seed: int = 0):
        super().__init__(batch_size, workers)
        self.tokenizer, self.seed = tokenizer, seed

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """(N, T) ids and (N, 3) labels."""
        return self._read("train")

    @cached_property
    def valid(self) -> tuple[Tensor, Tensor]:
        """The same of the held-out captions."""
        return self._read("test")

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        found = captions(split)
        ids = token_ids(self.tokenizer, [caption.text for caption in found])
        assert ids is not None
        return torch.from_numpy(ids), torch.tensor([labels(caption) for caption in found])

    @cached_property
    def rows(self) -> Drawn:
        return Drawn(lambda rng: rng.integers(0, len(self.train[0]), self.batch_size), self.seed)

    @property
    def valid_batches(self) -> int:
        return -(-len(self.valid[0]) // VALID)

    def train_batch(self, number: int) -> dict[str, Tensor]:
        return self._batch(self.train, self.rows[number])

    def valid_batch(self, number: int) -> dict[str, Tensor]:
        end = min((number + 1) * VALID, len(self.valid[0]))
        return self._batch(self.valid, np.arange(number * VALID, end))

    @staticmethod
    def _batch(source: tuple[Tensor, Tensor], rows: np.ndarray) -> dict[str, Tensor]:
        ids, told = source
        return {"input_ids": ids[rows], "labels": told[rows]}


def labels(caption: Caption) -> tuple[int, int, int]:
    """The numbers of a caption's concept, count and ground."""
    return caption.concept, COUNTS.index(caption.count), GROUNDS.index(caption.ground)
