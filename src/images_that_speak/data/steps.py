"""Data that is made up as a training goes: every batch is a function of its number alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..ranges import check_ranges
from .loader import Loader

ENDLESS = 10**6  # batches: more than any training takes, so that all of them are one epoch to Lightning

Batch = dict[str, Any]


class Numbered(Dataset[Batch]):
    """`batch(number)` for every number below `length`, as a dataset whose items are whole batches."""

    def __init__(self, batch: Callable[[int], Batch], length: int = ENDLESS):
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Batch:
        return self.batch(number)


class StepData(L.LightningDataModule, ABC):
    """One batch a step; a resumed run goes on with the one after its checkpoint, with any number of workers.

    Subclasses write what is abstract here.
    """

    def __init__(self, batch_size: int, workers: int = 0):
        super().__init__()
        check_ranges({"data.batch_size": batch_size, "data.workers": workers})
        self.batch_size, self.workers = batch_size, workers

    @property
    @abstractmethod
    def valid_batches(self) -> int:
        """How many batches a validation takes."""

    @abstractmethod
    def train_batch(self, number: int) -> Batch:
        """Batch `number` of training, counted from 0: the same whenever it is asked for."""

    @abstractmethod
    def valid_batch(self, number: int) -> Batch:
        """Batch `number` of validation, below `valid_batches`."""

    def train_dataloader(self) -> Loader:
        return Loader(Numbered(self.train_batch), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Numbered(self.valid_batch, self.valid_batches), batch_size=None)


class Drawn:
    """What one generator of `seed` draws, call after call: `drawn[number]` is the result of call `number`.

    Asked for in order it draws once each; asked for an earlier one it begins again.
    """

    def __init__(self, draw: Callable[[np.random.Generator], np.ndarray], seed: int):
        self.draw, self.seed = draw, seed
        self._restart()

    def _restart(self) -> None:
        self._generator = np.random.default_rng(self.seed)
        self._number = -1

    def __getitem__(self, number: int) -> np.ndarray:
        if number < self._number:
            self._restart()
        while self._number < number:
            self._last = self.draw(self._generator)
            self._number += 1
        return self._last
