"""Utterances as a frozen speech encoder hears them, computed once, and the pictures that belong to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from ..errors import UserError
from ..files import atomic_path, content_hash, read_json, write_json
from ..networks.speech_encoder import STEP, load_speech_encoder
from ..speech.tts import SAMPLE_RATE, resample
from .datamodule import CaptionedPictures
from .emoji import concepts
from .steps import Batch, StepData
from .utter import Spoken, read_utterances


class FeatureCache:
    """Features of sound files in the order given, each of its own length.

    A folder of `values.npy` (frames, F) float16, memory-mapped, and `index.json`. Made where it is not there;
    refused where it is of other files or another encoder.

    files: of any rate, at most 30 s. encoder: as `load_speech_encoder` takes it.
    """

    def __init__(self, folder: str | Path, files: Sequence[Path], encoder: str):
        self.folder = Path(folder)
        made = load_speech_encoder(encoder)
        self.width, path = made.width, self.folder / "index.json"
        lengths = [length_of(file) for file in files]
        claim = {"encoder": made.identity, "files": content_hash([file.name for file in files]),
                 "frames": sum(lengths)}
        shape = (sum(lengths), self.width)
        self.starts = np.cumsum([0, *lengths])
        if path.exists() and {key: read_json(path).get(key) for key in claim} != claim:
            raise UserError(f"{path}: features of other utterances or of another speech encoder; delete the "
                            "folder or choose another")
        if not path.exists():
            with atomic_path(self.folder / "values.npy") as temporary:
                values = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                for file, start, length in zip(tqdm(files, "Listening"), self.starts, lengths, strict=False):
                    wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
                    values[start: start + length] = made.features(resample(wave.mean(1), rate))
                values.flush()
            write_json(path, claim)
        self.values = np.load(self.folder / "values.npy", mmap_mode="r", allow_pickle=False)

    def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """"speech" (B, T, F) float32, filled up with 0, and "speech_length" (B,) int64."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        speech = np.zeros((len(rows), int(lengths.max()), self.width), np.float32)
        for row, values, length in zip(rows, speech, lengths, strict=True):
            values[:length] = self.values[self.starts[row]: self.starts[row] + length]
        return {"speech": speech, "speech_length": lengths.astype(np.int64)}


def length_of(file: Path) -> int:
    """Features of a sound file. Raises UserError on what is none."""
    try:
        found = soundfile.info(file)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{file}: not a readable sound ({error})") from error
    return math.ceil(math.ceil(found.frames * SAMPLE_RATE / found.samplerate) / STEP)


class _Heard:
    """Utterances of a split with their features, by the number of the concept that they name."""

    def __init__(self, root: str | Path, split: str, encoder: str):
        self.utterances: list[Spoken] = read_utterances(root, split)
        numbers = {thing.name: number for number, thing in enumerate(concepts())}
        if unknown := [one.noun for one in self.utterances if one.noun not in numbers]:
            raise UserError(f"{root}: {unknown[0]!r} is no noun of the painter's")
        self.concept = np.array([numbers[one.noun] for one in self.utterances])
        self.nouns = np.unique(self.concept)
        name = f"{Path(encoder).name}-{load_speech_encoder(encoder).identity}"
        self.features = FeatureCache(Path(root) / "features" / name / split,
                                     [Path(root) / one.file for one in self.utterances], encoder)

    def of(self, concept: int, rng: np.random.Generator) -> int:
        """The row of one utterance that names it."""
        return int(rng.choice(np.flatnonzero(self.concept == concept)))


class SpokenPictures(CaptionedPictures):
    """Drawings, each with an utterance that names what is drawn, another one at every draw.

    spoken: folder of the utterances. utterances: their split. encoder: what hears them, as
    `load_speech_encoder` takes it. All else as CaptionedPictures has it. The caption that chose a drawing is
    not told. Raises UserError, before anything is opened, where there are no such utterances.
    """

    def __init__(self, length: int, spoken: str | Path, encoder: str, utterances: str = "train",
                 **options: Any):
        super().__init__(length, **options)
        self.spoken, self.encoder, self.split = spoken, encoder, utterances
        read_utterances(spoken, utterances)

    def prepare(self) -> None:
        super().prepare()
        self.heard = _Heard(self.spoken, self.split, self.encoder)
        if missing := sorted(set(range(len(concepts()))) - set(self.heard.nouns.tolist())):
            raise UserError(f"{self.spoken}: no utterance of split {self.split!r} names "
                            f"{concepts()[missing[0]].name!r} (expected all of the painter's nouns)")

    def gives(self) -> set[str]:
        return {"concept", "scene", "speech", "speech_length"}

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        found = super().conditions(keys)
        rows = [self.heard.of(concept, np.random.default_rng([self.seed, int(key)]))
                for concept, key in zip(found["concept"], keys, strict=True)]
        return {**found, **self.heard.features[np.array(rows)]}


class SpokenNouns(StepData):
    """Utterances of different nouns with the caption that names the same: "speech", "speech_length",
    "concept" (B,), and "input_ids" (B, L) of "an owl".

    spoken, encoder: as for SpokenPictures. tokenizer: folder of the image branch's. batch_size: at most as
    many as there are nouns.
    """

    def __init__(self, spoken: str | Path, encoder: str, tokenizer: str | Path, batch_size: int = 64,
                 seed: int = 0, workers: int = 0, valid: str = "sentences"):
        super().__init__(batch_size, workers)
        self.spoken, self.encoder, self.tokenizer = spoken, encoder, tokenizer
        self.seed, self.valid = seed, valid
        for split in ("train", valid):
            read_utterances(spoken, split)
        self.splits: dict[str, _Heard] = {}

    def setup(self, stage: str | None = None) -> None:
        from transformers import CLIPTokenizer

        words = CLIPTokenizer.from_pretrained(self.tokenizer)
        self.ids = np.array(words([thing.singular for thing in concepts()], padding="max_length",
                                  truncation=True, max_length=min(words.model_max_length, 77)).input_ids)
        self.splits = {split: _Heard(self.spoken, split, self.encoder) for split in ("train", self.valid)}
        if self.batch_size > (there := len(self.splits["train"].nouns)):
            raise UserError(f"data.batch_size={self.batch_size}: expected at most {there}, one of each noun")

    @property
    def valid_batches(self) -> int:
        if not self.splits:
            self.setup()
        return max(1, len(self.splits[self.valid].utterances) // self.batch_size)

    def train_batch(self, number: int) -> Batch:
        return self._batch("train", [self.seed, number])

    def valid_batch(self, number: int) -> Batch:
        return self._batch(self.valid, [self.seed, 1, number])

    def _batch(self, split: str, key: list[int]) -> Batch:
        import torch

        heard, rng = self.splits[split], np.random.default_rng(key)
        chosen = rng.choice(heard.nouns, self.batch_size, replace=False)
        rows = np.array([heard.of(concept, rng) for concept in chosen])
        found = {**heard.features[rows], "concept": chosen, "input_ids": self.ids[chosen]}
        return {name: torch.from_numpy(values) for name, values in found.items()}
