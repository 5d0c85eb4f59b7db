"""How long each phone of a corpus lasts, in batches for the training of the duration model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..errors import UserError
from ..speech.phonemes import PHONE_IDS, PHONES, UNKNOWN
from .manifest import Corpus
from .steps import Drawn, StepData

UNHEARD = 0.08  # seconds expected of a phone that is not in the train split


class DurationData(StepData):
    """Clips of the train split, and of the others for validation; those of like length are trained on
    together, for padding costs time.

    A batch is {"phones": (B, L) int64 ids padded with 0, "seconds": (B, L) natural logarithms of how long
    they last, "expected": (B, L) seconds that each lasts on average in training, "voice": (B,) from 1}.

    Args:
        corpus: a speech corpus or its folder.
        voices: names in the order of their numbers.
    """

    def __init__(self, corpus: str | Path | Corpus, voices: Sequence[str], batch_size: int = 64,
                 workers: int = 0, seed: int = 0):
        super().__init__(batch_size, workers)
        self.source, self.voices, self.seed = corpus, list(voices), seed

    @cached_property
    def corpus(self) -> Corpus:
        return self.source if isinstance(self.source, Corpus) else Corpus.open(self.source)

    def setup(self, stage: str | None = None) -> None:
        """Raises UserError on voices that are not among `voices`, and where a split has no clip."""
        unknown = sorted(set(self.corpus.table["voice"]) - set(self.voices))
        if unknown:
            raise UserError(f"{self.corpus.root}: clips of voice {', '.join(unknown)} "
                            f"(expected {', '.join(self.voices)})")
        if not len(self.train) or not len(self.valid):
            raise UserError(f"{self.corpus.root}: {len(self.train)} clips to train on and {len(self.valid)} "
                            "to measure (expected some of each)")

    @cached_property
    def phones(self) -> list[np.ndarray]:
        """The ids of each clip's phones."""
        return [np.array([PHONE_IDS.get(symbol, PHONE_IDS[UNKNOWN]) for symbol in symbols])
                for symbols in self.corpus.table["symbols"].tolist()]

    @cached_property
    def seconds(self) -> list[np.ndarray]:
        """Natural logarithms of how many seconds each clip's phones last."""
        starts, ends = (self.corpus.table[name].tolist() for name in ("starts", "ends"))
        return [np.log(np.clip(np.subtract(end, start), 1e-3, None))
                for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def voice(self) -> np.ndarray:
        """Each clip's voice, from 1."""
        return np.array([self.voices.index(name) + 1 for name in self.corpus.table["voice"]])

    @cached_property
    def train(self) -> np.ndarray:
        """The rows of the train split, by length."""
        rows = np.flatnonzero((self.corpus.table["split"] == "train").to_numpy())
        return rows[np.argsort([len(self.phones[row]) for row in rows], kind="stable")]

    @cached_property
    def valid(self) -> np.ndarray:
        """The rows of the other splits."""
        return np.flatnonzero((self.corpus.table["split"] != "train").to_numpy())

    @cached_property
    def spoken(self) -> dict[int, np.ndarray]:
        """{phone: natural logarithms of how many seconds each of those in the train split lasts}."""
        rows = np.sort(self.train)
        phones, seconds = (np.concatenate([of[row] for row in rows]) for of in (self.phones, self.seconds))
        return {int(phone): seconds[phones == phone] for phone in np.unique(phones)}

    @cached_property
    def expected(self) -> Tensor:
        """(PHONES,) seconds that each phone lasts on average in training."""
        found = torch.full((len(PHONES),), UNHEARD)
        for phone, seconds in self.spoken.items():
            found[phone] = float(np.exp(seconds).mean())
        return found

    @cached_property
    def first(self) -> Drawn:
        """Where each batch begins among the rows by length."""
        places = max(len(self.train) - self.batch_size, 0) + 1
        return Drawn(lambda rng: rng.integers(places, size=1), self.seed)

    @property
    def valid_batches(self) -> int:
        return -(-len(self.valid) // self.batch_size)

    def train_batch(self, number: int) -> dict[str, Tensor]:
        first = int(self.first[number][0])
        return self._batch(self.train[first:first + self.batch_size])

    def valid_batch(self, number: int) -> dict[str, Tensor]:
        first = number * self.batch_size
        return self._batch(self.valid[first:first + self.batch_size])

    def _batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        def padded(of: list[np.ndarray], dtype: torch.dtype) -> Tensor:
            return pad_sequence([torch.as_tensor(of[row], dtype=dtype) for row in rows], batch_first=True)

        phones = padded(self.phones, torch.long)
        return {"phones": phones, "seconds": padded(self.seconds, torch.float),
                "expected": self.expected[phones], "voice": torch.as_tensor(self.voice[rows])}
