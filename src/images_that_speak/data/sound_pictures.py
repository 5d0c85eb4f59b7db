"""Pairs of a sound and a picture: a folder with a csv and images, as the published data set has them.

The csv has a column `image` (a path within the folder, or within its folder `images`), and either `sound`, a
path too, or 104 columns of numbers, the features. `label` says what it is of; `source` where a recording
comes from; `clip` the sequence that a row is the next frame of.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from tqdm import tqdm

from ..audio.augment import augmented
from ..audio.picture import read_pixels
from ..audio.sound_features import MeanMFCC, SoundFeatures, sound_checked
from ..errors import UserError, nearest
from ..files import atomic_path, read_text
from ..ranges import check_ranges
from ..speech.tts import resample
from .steps import StepData

SIDE = 256
GROUND = (128, 128, 128)  # that cut-outs lie on
SHOWN = 5  # faults that are told
TOLD = ("image", "sound", "label", "source", "clip")


@dataclass(frozen=True)
class SoundPair:
    """A row of the csv. features: where there is no sound."""

    image: Path
    sound: Path | None
    features: tuple[float, ...]
    label: str
    source: str
    clip: str


def read_sound_pairs(root: str | Path) -> list[SoundPair]:
    """The pairs of a folder. Raises one UserError on a missing csv or column, and on all wrong rows."""
    root = Path(root)
    tables = sorted(root.glob("*.csv")) if root.is_dir() else []
    if len(tables) != 1:
        found = f"{len(tables)} csv files" if root.is_dir() else "no such folder"
        raise UserError(f"{root}: {found} (expected one csv with a column image, and sound or 104 features; "
                        f"`python -m images_that_speak.data.sound_corpus {root}` builds one)")
    lines = list(csv.DictReader(read_text(tables[0]).splitlines()))
    columns = list(lines[0]) if lines else []
    numbers = [name for name in columns if name not in TOLD]
    if "image" not in columns:
        raise UserError(f"{tables[0]}: no column image.{nearest('image', columns)}")
    if "sound" not in columns and len(numbers) != MeanMFCC.size:
        raise UserError(f"{tables[0]}: no column sound, and {len(numbers)} columns of features (expected "
                        f"{MeanMFCC.size})")
    pairs, wrong = [], []
    for number, row in enumerate(lines, 2):
        try:
            pairs.append(_pair(root, row, () if "sound" in columns else numbers))
        except UserError as error:
            wrong.append(f"{tables[0]}: line {number}: {error}")
    if wrong or not pairs:
        more = [f"… and {len(wrong) - SHOWN} lines more"] if len(wrong) > SHOWN else []
        raise UserError("\n".join([*wrong[:SHOWN], *more]) or f"{tables[0]}: holds no pairs")
    return pairs


def _pair(root: Path, row: dict[str, str], numbers: Sequence[str]) -> SoundPair:
    def file(name: str) -> Path:
        given = (row[name] or "").strip()
        path = next((path for path in (root / given, root / f"{name}s" / given) if path.is_file()), None)
        if path is None:
            raise UserError(f"{name}={given}: no such file")
        return path

    values = []
    for name in numbers:
        try:
            values.append(float(row[name] or ""))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise UserError(f"{name}={row[name]}: expected a number")
    image = file("image")
    sound = None if numbers else file("sound")
    said = {name: (row.get(name) or "").strip() for name in ("label", "source", "clip")}
    # Without a word of where it comes from each row is a source of its own.
    return SoundPair(image, sound, tuple(values), said["label"], said["source"] or str(sound or image),
                     said["clip"])


def read_sound(path: Path) -> np.ndarray:
    """(T,) float32 at 16 kHz of a file of any rate and channels, its peak 0.9. Raises UserError naming it."""
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: not a readable sound ({error})") from error
    return sound_checked(resample(wave.mean(1), rate), path)


def read_square(path: Path) -> np.ndarray:
    """(256, 256, 3) uint8: all of a picture on gray, as large as fits. Raises UserError naming the file."""
    image = Image.fromarray(read_pixels(path, GROUND))
    scale = SIDE / max(image.size)
    small = image.resize(tuple(max(1, round(side * scale)) for side in image.size),  # type: ignore[arg-type]
                         Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), GROUND)
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return np.asarray(square)


class SoundPictures(StepData):
    """Batches for `SoundToImageTraining`: {"features": (B, F), "picture": (B, 3, 256, 256) in [-1, 1],
    "follows": (B,) whether a row is the frame after the row before it}.

    Args:
        root: folder of the pairs.
        features: what is heard of a sound; None takes the csv's own numbers, or MFCC.
        held_out: sources that are validated on, and not trained with; None: a share of all rows, drawn.
        share: of the rows that train, where no sources are held out.
        shared_labels: only rows whose label several sources have; of the others nothing could be asked.
        variants: of each sound, beside the sound itself: mixed, shifted in pitch, with noise and reverb.
        balanced: whether every label is drawn equally often; else every row is.
        sequences: whether rows are drawn in pairs of neighbouring frames where they have some.
    """

    def __init__(self, root: str | Path, features: SoundFeatures | None = None, batch_size: int = 64,
                 held_out: Sequence[str] | None = None, share: float = 0.75, shared_labels: bool = False,
                 variants: int = 0, balanced: bool = False, sequences: bool = False, workers: int = 0,
                 seed: int = 0):
        super().__init__(batch_size, workers)
        check_ranges({"data.share": share, "data.variants": variants})
        self.root, self.listen, self.variants = Path(root), features or MeanMFCC(), variants
        self.balanced, self.sequences, self.seed = balanced, sequences, seed
        pairs = read_sound_pairs(root)
        if shared_labels:
            by_label: dict[str, set[str]] = {}
            for pair in pairs:
                by_label.setdefault(pair.label, set()).add(pair.source)
            pairs = [pair for pair in pairs if len(by_label[pair.label]) > 1]
        self.pairs = pairs
        if pairs and pairs[0].sound is None and (variants or features is not None):
            raise UserError(f"{root}: its csv has features and no sounds; expected data.variants=0 and "
                            "data.features=null")
        self.train, self.valid = split_pairs(pairs, held_out, share, seed)
        if not self.train or not self.valid:
            raise UserError(f"{root}: {len(self.train)} pairs to train on and {len(self.valid)} to validate "
                            f"on (expected some of each; data.held_out={held_out}, data.share={share})")

    def prepare_data(self) -> None:
        """Listen to every sound that was not listened to before: a file each, so that it can be stopped."""
        sounds = sorted({pair.sound for pair in self.pairs if pair.sound is not None})
        missing = [path for path in sounds if not self._kept(path).exists()]
        for path in tqdm(missing, unit="sound", desc=f"listening ({self.listen.name})", disable=not missing):
            with atomic_path(self._kept(path)) as temporary, open(temporary, "wb") as file:
                np.save(file, self._vectors(path))

    def _kept(self, path: Path) -> Path:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return self.root / "features" / f"{self.listen.name}-{self.variants}" / f"{digest}.npy"

    def _vectors(self, path: Path) -> np.ndarray:
        wave = read_sound(path)
        digest = int(hashlib.sha256(path.read_bytes()).hexdigest()[:8], 16)
        others = (augmented(wave, np.random.default_rng([digest, i])) for i in range(self.variants))
        return np.stack([self.listen(sound) for sound in (wave, *others)])

    @cached_property
    def vectors(self) -> list[np.ndarray]:
        """(1 + variants, F) of each pair, the sound itself first."""
        self.prepare_data()
        found = {path: np.load(self._kept(path)) for path in {pair.sound for pair in self.pairs} if path}
        return [np.array([pair.features], np.float32) if pair.sound is None else found[pair.sound]
                for pair in self.pairs]

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """(3, 256, 256) uint8 of each pair."""
        found = {path: read_square(path).transpose(2, 0, 1) for path in {pair.image for pair in self.pairs}}
        return [found[pair.image] for pair in self.pairs]

    @property
    def valid_batches(self) -> int:
        return math.ceil(len(self.valid) / self.batch_size)

    def train_batch(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        rows = self._drawn(number * self.batch_size, self.batch_size)
        if self.sequences:  # every row brings the frame after it
            rows = [row for first in rows for row in (first, self.followers.get(first)) if row is not None]
            rows = rows[: self.batch_size]
        return self._batch(rows, [int(rng.integers(len(self.vectors[row]))) for row in rows])

    def _drawn(self, start: int, count: int) -> list[int]:
        """Rows `start` to `start + count` of all epochs one after another, each in an order of its own."""
        epochs = range(start // len(self.train), (start + count - 1) // len(self.train) + 1)
        orders = [self._order(np.random.default_rng([self.seed, 1, epoch])) for epoch in epochs]
        place = start - epochs[0] * len(self.train)
        return np.concatenate(orders)[place: place + count].tolist()

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of an epoch."""
        if not self.balanced:
            return rng.permutation(self.train)
        labels = [self.pairs[row].label for row in self.train]
        odds = np.array([1 / labels.count(label) for label in labels])
        return rng.choice(self.train, len(self.train), p=odds / odds.sum())

    @cached_property
    def followers(self) -> dict[int, int]:
        """{row: the row of the next frame of its clip} among those that train."""
        return {a: b for a, b in zip(self.train, self.train[1:], strict=False)
                if b == a + 1 and self.pairs[a].clip and self.pairs[a].clip == self.pairs[b].clip}

    def valid_batch(self, number: int) -> dict[str, torch.Tensor]:
        rows = self.valid[number * self.batch_size: (number + 1) * self.batch_size]
        return self._batch(rows, [0] * len(rows))

    def _batch(self, rows: Sequence[int], which: Sequence[int]) -> dict[str, torch.Tensor]:
        follows = [False, *(self.followers.get(a) == b for a, b in zip(rows, rows[1:], strict=False))]
        pictures = np.stack([self.pictures[row] for row in rows]).astype(np.float32) / 127.5 - 1
        heard = np.stack([self.vectors[row][i] for row, i in zip(rows, which, strict=True)])
        return {"features": torch.from_numpy(heard.astype(np.float32)),
                "picture": torch.from_numpy(pictures), "follows": torch.tensor(follows)}


def split_pairs(pairs: Sequence[SoundPair], held_out: Sequence[str] | None, share: float,
                seed: int) -> tuple[list[int], list[int]]:
    """The rows that train and those that are held out. Raises UserError on a source that there is not."""
    if held_out is None:
        order = np.random.default_rng(seed).permutation(len(pairs))
        first = round(share * len(pairs))
        return sorted(order[:first].tolist()), sorted(order[first:].tolist())
    known = sorted({pair.source for pair in pairs})
    if unknown := [name for name in held_out if name not in known]:
        raise UserError(f"data.held_out={unknown[0]}: expected some of {', '.join(known[:20])}."
                        f"{nearest(unknown[0], known)}")
    apart = {name for name in held_out}
    # What is asked of a sound that no training heard makes sense of things that it drew.
    labels = {pair.label for pair in pairs if pair.source not in apart}
    return ([i for i, pair in enumerate(pairs) if pair.source not in apart],
            [i for i, pair in enumerate(pairs) if pair.source in apart and pair.label in labels])
