"""Letters to sounds: a joint n-gram over (letter, phones) pairs, for words no dictionary has.

Every dictionary word is cut into pairs of one letter and zero to two phones ("ph" → p:f h:, "x" → x:k-s) by
hard expectation-maximisation, and the pairs are modelled by an interpolated n-gram with modified Kneser-Ney
smoothing (Chen & Goodman 1999; Bisani & Ney 2008 for the joint model). Pronouncing a word is a beam search
for its most likely sequence of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import atomic_path, read_json, write_json
from ..resources import weights_dir
from ..weights import check_finite
from .dictionary import ARPABET

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BITS = 9  # of a pair in a packed n-gram; 7 × 9 fit an int64
BEAM = 24
START, END = 1, 2  # 0 is no pair at all: contexts shorter than the order are padded with it
CODES = {phone: i for i, phone in enumerate((*ARPABET, "ax"))}


class LetterToSound:
    """Pronounces any run of English letters.

    pairs: (letter, phones) of each pair id; ids below 3 are no pair, start and end.
    tables: per order n ≥ 1, sorted packed n-grams (K,) int64 with the interpolated log probability of the
    last pair given the others (K,), and as a context its log backoff weight (K,), in nats.
    """

    def __init__(self, pairs: Sequence[tuple[str, tuple[str, ...]]],
                 tables: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]):
        self.pairs = list(pairs)
        self.tables = list(tables)
        self.order = len(tables)

    @cached_property
    def candidates(self) -> dict[str, np.ndarray]:
        """Ids of the pairs each letter may take."""
        return {letter: np.array([i for i, pair in enumerate(self.pairs) if pair[0] == letter], np.int64)
                for letter in LETTERS}

    def _score(self, context: np.ndarray, pair: np.ndarray) -> np.ndarray:
        """ln P(pair | context) for packed contexts (Q,) of the last order − 1 pairs and pairs (Q,)."""
        score = np.zeros(len(pair))
        done = np.zeros(len(pair), bool)
        for n in range(self.order, 0, -1):
            history = context & ((1 << BITS * (n - 1)) - 1)
            keys, logp, _ = self.tables[n - 1]
            at = np.minimum(np.searchsorted(keys, (history << BITS) | pair), len(keys) - 1)
            found = ~done & (keys[at] == ((history << BITS) | pair))
            score += np.where(found, logp[at], 0)
            done |= found
            if n == 1:
                break
            keys, _, backoff = self.tables[n - 2]
            at = np.minimum(np.searchsorted(keys, history), len(keys) - 1)
            score += np.where(~done & (keys[at] == history), backoff[at], 0)
        return np.where(done, score, score - 20)  # a pair never seen at all

    def pronounce(self, word: str) -> list[str]:
        """Phones of a word of letters a–z and apostrophes. Raises UserError on anything else."""
        if not word or not set(word) <= set(LETTERS):
            raise UserError(f"word {word!r}: expected the letters a to z and apostrophes")
        mask = (1 << BITS * (self.order - 1)) - 1
        contexts = np.array([START], np.int64)
        scores = np.zeros(1)
        paths = np.zeros((1, 0), np.int64)
        for letter in word:
            pair = np.tile(self.candidates[letter], len(contexts))
            origin = np.repeat(np.arange(len(contexts)), len(self.candidates[letter]))
            scores = scores[origin] + self._score(contexts[origin], pair)
            best = np.argsort(-scores, kind="stable")[:BEAM]
            origin, pair, scores = origin[best], pair[best], scores[best]
            contexts = ((contexts[origin] << BITS) | pair) & mask
            paths = np.concatenate([paths[origin], pair[:, None]], 1)
        scores = scores + self._score(contexts, np.full(len(contexts), END))
        return [phone for pair in paths[int(np.argmax(scores))] for phone in self.pairs[pair][1]]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {}
        for n, (keys, logp, backoff) in enumerate(self.tables, 1):
            # Sorted keys are close together, so their differences need fewer bytes than they do.
            gaps = np.diff(keys, prepend=0)
            narrow = np.uint16 if gaps.max() < 2**16 else np.uint32 if gaps.max() < 2**32 else np.int64
            arrays |= {f"keys.{n}": gaps.astype(narrow), f"logp.{n}": logp.astype(np.float16)}
            if n < self.order:
                arrays[f"backoff.{n}"] = backoff.astype(np.float16)
        with atomic_path(Path(folder) / "model.safetensors") as path:
            save_file(arrays, path)
        pairs = [f"{letter}:{'-'.join(phones)}" for letter, phones in self.pairs]
        write_json(Path(folder) / "config.json", {"order": self.order, "pairs": pairs})

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> LetterToSound:
        """Load from `folder`, by default the model that ships with the project."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder or weights_dir() / "speech" / "letters")
        config = read_json(folder / "config.json")
        try:
            arrays = load_file(folder / "model.safetensors")
            pairs = [(pair.split(":")[0], tuple(filter(None, pair.split(":")[1].split("-"))))
                     for pair in config["pairs"]]
            tables = []
            for n in range(1, config["order"] + 1):
                logp = arrays[f"logp.{n}"].astype(np.float64)
                backoff = arrays.get(f"backoff.{n}", np.zeros_like(logp)).astype(np.float64)
                tables.append((np.cumsum(arrays[f"keys.{n}"], dtype=np.int64), logp, backoff))
        except (SafetensorError, OSError, KeyError, IndexError) as error:
            raise UserError(f"{folder}: not a letter-to-sound model ({error})") from error
        check_finite(arrays, folder / "model.safetensors")
        return cls(pairs, tables)


if __name__ == "__main__":  # it trained here before
    raise SystemExit("trained by: python train.py experiment=pocket/letters")
