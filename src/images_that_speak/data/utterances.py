"""Windows of spoken pictures with their phones, drawn over, played and made noisy, for a recogniser.

Nothing here was made by a generating model: the speech is a synthesiser's, the drawings are renderings of a
font, and what a picture sounds like is found by Griffin-Lim.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..audio.griffin_lim import FastGriffinLim
from ..audio.mel import MEL, LogMel
from ..errors import UserError
from ..speech.phonemes import PAUSE, PHONES
from .loader import Loader
from .manifest import Corpus, build_command
from .pictures import PictureSampler

# CTC's blank, which is also silence and whatever is no speech, and then the phones.
SYMBOLS = ["<blank>", *PHONES[PHONES.index(PAUSE) + 1:]]
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
RATE = MEL.sample_rate / MEL.hop  # mel frames a second
NOISE_FRAMES = 2048


class Join(Protocol):
    """(generator, speech (256, F) in nats, drawing (256, F) in [0, 1]) → the log-mel (256, F) of both."""

    @property
    def share(self) -> float: ...

    def __call__(self, rng: np.random.Generator, logmel: np.ndarray, drawing: np.ndarray) -> np.ndarray: ...


class SpokenWindows(Dataset):
    """Windows of clips, each a function of (seed, index) alone, every voice as often as the others.

    A window of speech is changed by chance, in this order: rate, pitch of the bands, loudness; a drawing laid
    over it or beside it; a blur, as autoencoders blur; the trip through Griffin-Lim and back; noise of any
    colour, 5 to 45 dB below the speech; bands and frames blotted out (SpecAugment, Park et al. 2019). Some
    windows hold no speech at all. In place of drawing and blur, `join` has a share of them in the same cells
    with a drawing.

    Args:
        corpora: folders of speech corpora. length: number of windows, which is what a run sees.
        frames: mel frames of a window. stride: mel frames a label stands for.
        distort: whether windows are changed at all.
        played: share of windows that go through Griffin-Lim, the dearest of the changes.
        join: what joins speech and drawing in the same cells, and the share of windows it is for; or None.

    An item is {"logmel": (256, frames) in nats; "labels": (⌈frames/stride⌉,) the symbol sounding in the
    middle of each step; "targets": the symbols of the phones whose middle lies in the window}.
    """

    def __init__(self, corpora: Sequence[str | Path], length: int, frames: int = 400, stride: int = 2,
                 seed: int = 0, split: str = "train", distort: bool = True, played: float = 0.15,
                 join: Join | None = None):
        if frames < stride or stride < 1:
            raise UserError(f"data.frames={frames}, data.stride={stride}: expected at least one frame a "
                            "stride, "
                            "and at least one stride")
        self.length, self.frames, self.stride, self.seed = length, frames, stride, seed
        self.distort, self.played, self.join = distort, played, join
        self.drawings = PictureSampler(seed=seed, brightness=(0.4, 0.85), size=(0.3, 1.0))
        self.corpora = [Corpus.open(root, split) for root in corpora]
        by_voice: dict[str, list[tuple[int, int]]] = {}
        self.phones: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = []
        for number, corpus in enumerate(self.corpora):
            table = corpus.table
            for row, voice in enumerate(table["voice"].tolist()):
                by_voice.setdefault(voice, []).append((number, row))
            self.phones.append([
                (np.array([NUMBERS.get(symbol, 0) for symbol in symbols]), np.asarray(starts, float) * RATE,
                 np.asarray(ends, float) * RATE)
                for symbols, starts, ends in zip(table["symbols"], table["starts"], table["ends"],
                                                 strict=True)])
        if not by_voice:
            raise UserError(f"data.corpora={[str(root) for root in corpora]}: no clips in split {split}")
        self.voices = list(by_voice.values())

    def __len__(self) -> int:
        return self.length

    @cached_property
    def noise(self) -> np.ndarray:
        """Mel magnitudes of white noise, (256, NOISE_FRAMES)."""
        wave = np.random.default_rng(self.seed).standard_normal(NOISE_FRAMES * MEL.hop).astype(np.float32)
        return LogMel()(torch.from_numpy(wave)[None])[0].exp().numpy()

    @cached_property
    def player(self) -> FastGriffinLim:
        return FastGriffinLim(iterations=4)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        voice = self.voices[rng.integers(len(self.voices))]
        corpus, row = voice[rng.integers(len(voice))]
        symbols, starts, ends = self.phones[corpus][row]
        rate = rng.uniform(0.85, 1.25) if self.distort else 1.0
        span = self.frames * rate
        # At least half of a window lies on the speech where there is so much of it.
        low = starts[0] - span / 2
        at = rng.uniform(low, max(ends[-1] - span / 2, low + 1))
        columns = np.floor(at + np.arange(self.frames) * rate).astype(int)
        logmel = np.full((MEL.n_mels, self.frames), MEL.log_floor, np.float32)
        inside = (columns >= 0) & (columns < MEL.frames)
        picture = self.corpora[corpus].picture(row)[::-1, columns[inside]]
        logmel[:, inside] += picture * np.float32(MEL.log_range / 255)
        times = at + (np.arange(0, self.frames, self.stride) + self.stride / 2) * rate
        phone = np.maximum(np.searchsorted(starts, times, "right") - 1, 0)
        labels = np.where((starts[phone] <= times) & (times < ends[phone]), symbols[phone], 0)
        middles = (starts + ends) / 2
        targets = symbols[(middles >= at) & (middles < at + span) & (symbols > 0)]
        if self.distort:
            if rng.random() < 0.06:
                logmel[:], labels, targets = MEL.log_floor, np.zeros_like(labels), targets[:0]
            logmel = self.changed(rng, logmel, np.repeat(labels > 0, self.stride)[:self.frames])
        return {"logmel": torch.from_numpy(logmel), "labels": torch.from_numpy(labels),
                "targets": torch.from_numpy(targets)}

    def changed(self, rng: np.random.Generator, logmel: np.ndarray, speech: np.ndarray) -> np.ndarray:
        """A log-mel (256, frames) changed by chance; `speech` (frames,) says where phones sound."""
        floor = np.float32(MEL.log_floor)
        bands = np.arange(MEL.n_mels)
        if rng.random() < 0.7:  # as a longer or a shorter throat would
            place = np.clip(bands * rng.uniform(0.92, 1.08), 0, MEL.n_mels - 1)
            below, share = place.astype(int), (place % 1).astype(np.float32)[:, None]
            logmel = logmel[below] * (1 - share) + logmel[np.minimum(below + 1, MEL.n_mels - 1)] * share
        if rng.random() < 0.5:
            logmel = np.maximum(logmel - np.float32(rng.uniform(0, 4)), floor)
        loudness = float(np.exp(2 * logmel[:, speech]).mean()) if speech.any() else 1.0
        join = self.join if self.join is not None and rng.random() < self.join.share else None
        if join is not None:
            logmel = join(rng, logmel, self.piece(rng))
        elif rng.random() < 0.6:
            logmel = np.maximum(logmel, self.drawing(rng, speech))
        if join is None and rng.random() < 0.3:
            logmel = blurred(blurred(logmel).T).T
        if rng.random() < self.played:
            with torch.inference_mode():
                wave = self.player(torch.from_numpy(np.ascontiguousarray(logmel))[None])
                logmel = LogMel()(wave)[0].numpy()
        if rng.random() < 0.5:
            first = rng.integers(NOISE_FRAMES - self.frames + 1)
            colour = np.exp(rng.uniform(-3, 1) * bands / MEL.n_mels)[:, None]
            power = (self.noise[:, first:first + self.frames] * colour) ** 2
            power *= loudness / power.mean() * 10 ** (-rng.uniform(5, 45) / 10)
            logmel = 0.5 * np.log(np.exp(2 * logmel) + power)
        if rng.random() < 0.8:
            logmel = logmel.copy()
            for _ in range(2):
                band, frame = rng.integers(MEL.n_mels), rng.integers(self.frames)
                logmel[band:band + rng.integers(30)] = floor
                logmel[:, frame:frame + rng.integers(12)] = floor
        return np.ascontiguousarray(logmel, np.float32)

    def drawing(self, rng: np.random.Generator, speech: np.ndarray) -> np.ndarray:
        """The log-mel (256, frames) of a piece of a drawing: over the speech, beside it, or above a band."""
        logmel = MEL.log_floor + self.piece(rng)[::-1] * np.float32(MEL.log_range)
        kind = rng.random()
        if kind < 0.4:
            logmel[:, speech] = MEL.log_floor
        elif kind < 0.6:
            logmel[:rng.integers(MEL.n_mels)] = MEL.log_floor
        return logmel

    def piece(self, rng: np.random.Generator) -> np.ndarray:
        """As many columns of a drawing as a window has, (256, frames) float32 in [0, 1], black beside it."""
        picture = self.drawings.sample(int(rng.integers(2**31)))[0]
        at = rng.integers(MEL.frames - self.frames + 1) if self.frames < MEL.frames else 0
        found = np.zeros((MEL.n_mels, self.frames), np.float32)
        part = picture[:, at:at + self.frames]
        found[:, :part.shape[1]] = part / np.float32(255)
        return found


def blurred(x: np.ndarray) -> np.ndarray:
    """(A, B) smoothed along B with the weights ¼, ½, ¼."""
    wide = np.pad(x, ((0, 0), (1, 1)), mode="edge")
    return (wide[:, :-2] + 2 * x + wide[:, 2:]) / 4


def collate(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Items in a batch; targets of unlike length are one row, with `lengths` (B,)."""
    return {"logmel": torch.stack([item["logmel"] for item in items]),
            "labels": torch.stack([item["labels"] for item in items]),
            "targets": torch.cat([item["targets"] for item in items]),
            "lengths": torch.tensor([len(item["targets"]) for item in items])}


class UtteranceData(L.LightningDataModule):
    """Batches for `RecogniserTraining`; a resumed run goes on with the batch after its checkpoint.

    Args:
        corpora: folders of speech corpora; the more voices, the less a recogniser is fitted to one.
        steps: batches there are in all. valid_windows: windows of unheard phrases, the same every time.
    """

    def __init__(self, corpora: Sequence[str], batch_size: int = 16, steps: int = 1000, frames: int = 400,
                 stride: int = 2, played: float = 0.15, distort: bool = True, valid_windows: int = 128,
                 workers: int = 0, seed: int = 0, join: Join | None = None):
        super().__init__()
        missing = [root for root in corpora if not (Path(root) / "manifest.parquet").exists()]
        if missing:
            commands = " and ".join(f"`{build_command(root)}`" for root in missing)
            raise UserError(f"data.corpora: no corpus in {', '.join(map(str, missing))} (build it with "
                            f"{commands})")
        self.batch_size, self.workers = batch_size, workers
        def windows(length: int, seed: int, split: str) -> SpokenWindows:
            return SpokenWindows(corpora, length, frames, stride, seed, split, distort, played, join)

        self.train = windows(steps * batch_size, seed, "train")
        self.valid = windows(valid_windows, seed + 1, "valid")

    def train_dataloader(self) -> DataLoader:
        # Lightning restarts a plain DataLoader at its first batch; this one keeps its place.
        return Loader(self.train, self.batch_size, num_workers=self.workers, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.valid, self.batch_size, collate_fn=collate)
