"""Short segments of a speech corpus, for training a vocoder: the 8-bit picture's log-mel and its wave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..audio.mel import MEL, picture_to_logmel
from ..errors import UserError
from .loader import Loader
from .manifest import Corpus
from .renditions import Renditions, check_source


class SpeechSegments(Dataset):
    """One segment of clip `key % clips`, its place a function of (seed, key) alone.

    At least half of a segment lies on the speech where the clip allows it: silence is learnt from the edges.

    Args:
        frames: mel frames of a segment; its wave has `frames` · 160 samples.
        pictures: other pictures of the same clips, prepared; None takes the corpus' own.

    An item is {"logmel": (256, frames) in nats, from the 8-bit picture; "wave": (frames · 160,) in [-1, 1]}.
    """

    def __init__(self, corpus: str | Path, frames: int = 51, seed: int = 0, split: str = "train",
                 pictures: Renditions | None = None):
        if not 1 <= frames <= MEL.frames:
            raise UserError(f"frames={frames}: expected a number in [1, {MEL.frames}]")
        self.corpus = Corpus.open(corpus, split) if pictures is None else pictures.corpus
        if not len(self.corpus):
            raise UserError(f"{corpus}: no clips in split {split}")
        self.pictures = pictures or self.corpus
        self.frames, self.seed = frames, seed
        table, rate = self.corpus.table, MEL.sample_rate / MEL.hop
        self.starts, self.lengths = (table["start"] * rate).tolist(), (table["seconds"] * rate).tolist()
        self.waves = table["wave"].tolist()

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        row = key % len(self)
        low = self.starts[row] - self.frames / 2
        place = np.random.default_rng([self.seed, key]).uniform(low, max(low + self.lengths[row], low + 1))
        at = int(np.clip(place, 0, MEL.frames - self.frames))
        picture = self.pictures.picture(row)[:, at: at + self.frames].astype(np.float32) / 255
        wave, _ = soundfile.read(self.corpus.root / self.waves[row], frames=self.frames * MEL.hop,
                                 start=at * MEL.hop, dtype="float32")
        return {"logmel": picture_to_logmel(torch.from_numpy(picture)), "wave": torch.from_numpy(wave)}


class EpochOrder(Sampler[int]):
    """Every clip once an epoch, epoch after epoch, each in an order drawn from (seed, epoch).

    Yields `length` keys epoch · clips + clip, so that a clip's segment differs between epochs. It is all one
    epoch to Lightning: resumed from a checkpoint of an epoch's last batch, it leaves the next one out. And it
    has a length: without one Lightning fetches a batch ahead, which a resumed run would then miss.
    """

    def __init__(self, clips: int, length: int, seed: int = 0):
        self.clips, self.length, self.seed = clips, length, seed

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        for first in range(0, self.length, self.clips):
            order = np.random.default_rng([self.seed, first // self.clips]).permutation(self.clips)
            yield from (first + order[: self.length - first]).tolist()


class VocoderData(L.LightningDataModule):
    """Batches for `VocoderTraining`; a resumed run goes on with the batch after its checkpoint.

    Args:
        root: folder of a speech corpus.
        segment: samples of a training segment, rounded down to whole frames (8192 → 51 frames, 8160 samples).
        steps: batches there are in all; at least the trainer's `max_steps`.
        valid_seconds: of a validation segment; the same segments every time.
        mel_source: the pictures to play, in training and validation: ground_truth, autoencoder or joint.
        rendered, autoencoder, over, brightness: see `Renditions`; the pictures of a split are made when the
            training begins.
    """

    def __init__(self, root: str | Path, batch_size: int = 16, segment: int = 8192,
                 steps: int = 1_000_000, valid_seconds: float = 2.0, valid_clips: int = 32,
                 mel_source: str = "ground_truth", rendered: str | Path | None = None,
                 autoencoder: str | Path | None = None, over: float = 0.5,
                 brightness: tuple[float, float] = (0.3, 0.7), workers: int = 0, seed: int = 0):
        super().__init__()
        check_source(mel_source, autoencoder, over)
        self.root, self.batch_size, self.workers, self.seed = Path(root), batch_size, workers, seed
        self.frames = segment // MEL.hop
        self.valid_frames = round(valid_seconds * MEL.sample_rate / MEL.hop)
        self.valid_clips, self.steps = valid_clips, steps
        self.rendered = None if rendered is None else Path(rendered)
        self.options: dict[str, Any] = {"source": mel_source, "autoencoder": autoencoder, "over": over,
                                        "brightness": brightness, "seed": seed}

    def pictures(self, split: str) -> Renditions:
        """The pictures of a split, as `mel_source` says."""
        folder = None if self.rendered is None else self.rendered / split
        return Renditions(Corpus.open(self.root, split), folder=folder, **self.options)

    def prepare_data(self) -> None:
        for split in ("train", "valid"):
            self.pictures(split).prepare()

    def train_dataloader(self) -> DataLoader:
        # Lightning restarts a plain DataLoader at its first batch; this one keeps its place.
        segments = SpeechSegments(self.root, self.frames, self.seed, pictures=self.pictures("train"))
        if len(segments) < self.batch_size:
            raise UserError(f"batch_size={self.batch_size}: more than the {len(segments)} training clips of "
                            f"{self.root}")
        order = EpochOrder(len(segments), self.steps * self.batch_size, self.seed)
        return Loader(segments, self.batch_size, sampler=order, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        segments = SpeechSegments(self.root, self.valid_frames, self.seed, "valid", self.pictures("valid"))
        return DataLoader(torch.utils.data.Subset(segments, range(min(self.valid_clips, len(segments)))),
                          self.batch_size, num_workers=self.workers)

    def phrases(self, clips: int) -> tuple[list[str], list[np.ndarray]]:
        """What is said in the first so many clips of the validation, and their whole pictures."""
        pictures = self.pictures("valid")
        count = min(clips, len(pictures.corpus))
        return (pictures.corpus.table["text"].tolist()[:count],
                [np.asarray(pictures.picture(row)) for row in range(count)])
