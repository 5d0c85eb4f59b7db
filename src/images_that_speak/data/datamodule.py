"""Pictures with their conditions, in batches, for every training.

Three sources: `SpeechClips` (a speech corpus), `CaptionedPictures` (drawings made on the fly) and
`PublishedClips` (published.py); the first two give cached latents in place of pictures when they are told
where these lie. `PictureData` feeds any of them to Lightning.

A batch is a dict. B samples, L the longest phrase of the dataset, F = 1024 frames:
    "picture" (B, 1, 256, 1024) float32 in [0, 1], or "latent" (B, C, H, W) float32, normalised;
    speech: "phones" (B, L) int64 padded with 0, "phone_mask" (B, L) bool, "frame_phones" (B, F) int64,
        "frame_position" (B, F) float32 in [0, 1), "voice" (B,) int64 from 1 on; with a cache of embeddings
        also "phone_embedding" (B, L, D) float32 and "frame_index" (B, F) int64 into it, -1 for none; with a
        tokenizer "input_ids" (B, T) of what is said; with a file of pitches "frame_pitch" (B, F) float32 Hz;
    captions: "input_ids" (B, T) int64, "concept" (B,) int64.

Datasets take whole batches of keys. A key is epoch · len + index, so everything random about a sample is a
function of the seed and its key, whichever worker makes it and however often the run was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..audio.mel import MEL
from ..errors import UserError, gathered
from ..files import content_hash
from ..ranges import check_ranges
from ..speech.alignment import frame_index, frame_phones
from ..speech.phonemes import PAUSE, PHONE_IDS, UNKNOWN
from ..speech.tts import Phone
from .embeddings import EmbeddingCache
from .latents import LatentCache
from .loader import Loader
from .pitches import read_pitch

COLUMN = 16  # frames by which pictures are rolled; latents are rolled by one of their own columns


class EpochBatches(Sampler[list[int]]):
    """Batches of keys; every epoch is a permutation of its own, drawn from (seed, epoch).

    Of `world` processes that train one model, the one of number `rank` gets its share of each batch of
    world · batch_size keys: together they see what one process with the larger batch would.

    An epoch ends when it is exhausted or left for a new one. Its iterator carries its state, so that
    `Loader` goes on with exactly the batches that are left.

    flat: compute the order place by place (`permuted`) and keep none of it in memory.
    """

    def __init__(self, length: int, batch_size: int, seed: int = 0, shuffle: bool = True,
                 drop_last: bool = True, flat: bool = False, rank: int = 0, world: int = 1):
        if length < 1 or batch_size < 1:
            raise UserError(f"batch_size={batch_size}, {length} samples: expected at least one of each")
        if drop_last and batch_size * world > length:
            processes = f" in each of {world} processes" if world > 1 else ""
            raise UserError(f"batch_size={batch_size}{processes}: expected at most the {length} samples "
                            "there are")
        self.rank, self.together = rank, batch_size * world
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.drop_last, self.flat = shuffle, drop_last, flat
        self.epoch, self.begun = 0, False

    def __len__(self) -> int:
        return self.length // self.together if self.drop_last else -(-self.length // self.together)

    def __iter__(self) -> EpochIterator:
        if self.begun and self.shuffle:
            self.epoch += 1
        self.begun = False
        return EpochIterator(self)


class EpochIterator(Iterator[list[int]]):
    """One epoch of EpochBatches."""

    def __init__(self, batches: EpochBatches):
        self.batches, self.at = batches, 0
        self._begin(batches.epoch)

    def _begin(self, epoch: int) -> None:
        batches = self.batches
        self.epoch = epoch
        self.order: np.ndarray | None = None
        if not batches.flat:
            self.order = (np.random.default_rng([batches.seed, epoch]).permutation(batches.length)
                          if batches.shuffle else np.arange(batches.length))

    def keys(self, start: int, stop: int) -> np.ndarray:
        """The keys at these places of the epoch."""
        batches = self.batches
        stop = min(stop, batches.length)
        if self.order is not None:
            order = self.order[start:stop]
        else:
            order = np.arange(start, stop)
            if batches.shuffle:
                order = permuted(order, batches.length, (batches.seed, self.epoch))
        return self.epoch * batches.length + order

    def __next__(self) -> list[int]:
        if self.at >= len(self.batches):
            raise StopIteration
        self.batches.begun = True
        start = self.at * self.batches.together + self.batches.rank * self.batches.batch_size
        self.at += 1
        return self.keys(start, start + self.batches.batch_size).tolist()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "at": self.at, "together": self.batches.together}

    def load_state_dict(self, state: dict[str, int]) -> None:
        # With batches of another size: where the first begins that is not wholly seen.
        self.at = state["at"] * state.get("together", self.batches.together) // self.batches.together
        self._begin(state["epoch"])
        self.batches.epoch, self.batches.begun = self.epoch, self.at > 0


def permuted(places: np.ndarray, length: int, key: tuple[int, int]) -> np.ndarray:
    """Where a permutation of 0 … length − 1, drawn by `key`, sends `places`; nothing else of it is computed.

    A Feistel network of six rounds on the least even number of bits that holds `length` (Luby and Rackoff
    1988), applied again where it leaves the range (cycle walking: Black and Rogaway 2002).
    """
    half = np.uint64(max(1, -(-max(length - 1, 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    rounds = np.random.default_rng(key).integers(2**63, size=6, dtype=np.uint64)
    found = places.astype(np.uint64)
    todo = np.arange(len(found))
    while len(todo):
        left, right = found[todo] >> half, found[todo] & mask
        for secret in rounds:
            # The finaliser of splitmix64: overflow is wanted.
            mixed = (right + secret) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(27))) & mask)
        found[todo] = (left << half) | right
        todo = todo[found[todo] >= length]
    return found.astype(np.int64)


class BatchDataset(Dataset):
    """A dataset of keys, asked for whole batches.

    latents: folder of a cache made by `cache_latents` of this very dataset, or None for pictures.
    autoencoder: the autoencoder, or its hash, that the cache must come from; None accepts any.
    mean, std: (C,) normalisation of the latents; None is the cache's own.
    """

    flat_order = False  # whether an epoch's order is computed place by place
    streamed = False  # whether latents come with the data, and not from a cache
    tokenizer: Any = None  # a CLIPTokenizer or its folder, where there are texts that a conditioner may read
    wanted: Collection[str] | None = None  # what a batch holds beside pictures; None: all there is

    def __init__(self, latents: str | Path | None = None, autoencoder: Any = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, seed: int = 0):
        self.latents, self.autoencoder, self.seed = latents, autoencoder, seed
        self.mean, self.std = mean, std
        self.cache: LatentCache | None = None
        self.opened = self.ready = False

    def open(self) -> None:
        """Open and check the source, once; the latents may be missing."""
        if not self.opened:
            self.prepare()
            self.opened = True

    def setup(self) -> None:
        """Open and check everything, once. Raises one UserError that names all that is wrong."""
        if self.ready:
            return
        self.open()
        if self.latents is not None:
            self.cache = LatentCache(self.latents, self.autoencoder, self.identity())
            mean, std = (np.asarray(own if given is None else given, np.float32).reshape(-1, 1, 1)
                         for own, given in ((self.cache.mean, self.mean), (self.cache.std, self.std)))
            if len(mean) not in (1, self.cache.shape[0]) or len(std) != len(mean) or not (std > 0).all():
                raise UserError(f"latent mean and std: expected {self.cache.shape[0]} numbers each, and "
                                "no deviation of 0")
            self._mean, self._std = mean, std
        self.ready = True

    def prepare(self) -> None:
        """What `open` does; raises one UserError."""

    def identity(self) -> str:
        """What is in it, hashed: a latent cache belongs to one identity."""
        raise TypeError(f"{type(self).__name__} does not say what it holds")

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        """(n,) indices → (n, 1, 256, 1024) float32 in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how to read a picture")

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        """What goes with the pictures of these keys."""
        raise TypeError(f"{type(self).__name__} does not say what its pictures are conditioned on")

    def gives(self) -> set[str]:
        """The keys of `conditions`. By default those of the first sample."""
        self.open()
        return set(self.conditions(np.arange(1)))

    def advice(self, key: str) -> str | None:
        """What to set that batches hold `key` too, as an error says it; None where nothing would do."""
        return None

    def want(self, keys: Collection[str]) -> None:
        """Prepare no more than `keys` of what goes with the pictures."""
        self.wanted = keys

    def numbered(self) -> list[str]:
        """Its voices in the order of their numbers, from 1 on; none where it numbers none."""
        return []

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} does not say how long it is")

    def images(self, keys: np.ndarray) -> tuple[str, np.ndarray]:
        """The batch's key and values: normalised latents, or pictures."""
        if self.cache is None:
            return "picture", self.pictures(keys % len(self))
        latent = self.cache[keys % len(self)].astype(np.float32)
        latent -= self._mean
        latent /= self._std
        return "latent", latent

    def __getitems__(self, keys: Sequence[int]) -> dict[str, Tensor]:
        self.setup()
        numbers = np.asarray(keys, np.int64)
        name, values = self.images(numbers)
        return {name: torch.from_numpy(values),
                **{key: torch.from_numpy(value) for key, value in self.conditions(numbers).items()
                   if self.wanted is None or key in self.wanted}}

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        """One sample, without the batch dimension."""
        return {name: value[0] for name, value in self.__getitems__([int(key)]).items()}


class SpeechClips(BatchDataset):
    """The clips of a speech corpus with their phonemes, frame by frame.

    root: the corpus. split: "train", "valid" or "test". voices: names in the order of their numbers from 1
    on; None takes the corpus's, sorted. roll: shift each clip in time by whole latent columns, a random
    number at every draw, never so far that speech would leave one end and come in at the other.
    embeddings: a file of data.embeddings, made from the PL-BERT in `phoneme_bert` before a training begins;
    None for adapters with a table of their own. tokenizer: a CLIPTokenizer or its folder, for adapters that
    read texts. pitch: a file of data.pitches, made before a training begins, for adapters that are told it.
    """

    def __init__(self, root: str | Path, split: str = "train", voices: Sequence[str] | None = None,
                 roll: bool = False, latents: str | Path | None = None, autoencoder: Any = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, seed: int = 0,
                 embeddings: str | Path | None = None, phoneme_bert: str | Path | None = None,
                 tokenizer: Any = None, pitch: str | Path | None = None):
        super().__init__(latents, autoencoder, mean, std, seed)
        self.root, self.split, self.roll = Path(root), split, roll
        self.voices = list(voices) if voices is not None else None
        self.embeddings, self.phoneme_bert, self.tokenizer = embeddings, phoneme_bert, tokenizer
        self.pitch = pitch
        self.embedded: EmbeddingCache | None = None

    def prepare(self) -> None:
        from .manifest import Corpus

        self.corpus = Corpus.open(self.root, self.split)
        if not len(self.corpus):
            raise UserError(f"{self.root}: no clips in split {self.split!r}")
        if self.voices is None:
            self.voices = Corpus.open(self.root).voices()
        table = self.corpus.table
        unknown = sorted(set(table["voice"]) - set(self.voices))
        if unknown:
            raise UserError(f"{self.root}: clips of voice {', '.join(unknown)} "
                            f"(expected {', '.join(self.voices)})")
        errors = []
        count, longest = len(table), int(table["symbols"].map(len).max())
        self._phones = np.zeros((count, longest), np.uint8)
        self._lengths = table["symbols"].map(len).to_numpy(np.int64)
        self._frames = np.empty((count, MEL.frames), np.uint8)
        self._position = np.empty((count, MEL.frames), np.float16)
        self._voice = table["voice"].map(self.voices.index).to_numpy(np.int64) + 1
        self._spoken = np.empty((count, 2))  # seconds
        self._index = np.empty((count if self.embeddings else 0, MEL.frames), np.int16)
        times = (table[column].tolist() for column in ("symbols", "starts", "ends", "spectrogram"))
        for i, (symbols, starts, ends, name) in enumerate(zip(*times, strict=True)):
            phones = [Phone(*phone) for phone in zip(symbols, starts, ends, strict=True)]
            ids = [PHONE_IDS.get(phone.symbol, PHONE_IDS[UNKNOWN]) for phone in phones]
            self._phones[i, :len(ids)] = ids
            spoken = [phone for phone in phones if phone.symbol != PAUSE]
            try:
                self._frames[i], self._position[i] = frame_phones(phones, MEL.frames)
                if self.embeddings:
                    self._index[i] = frame_index(phones, MEL.frames)
                if not spoken or spoken[-1].end > MEL.seconds + 1e-3:
                    raise UserError(f"expected speech that ends within {MEL.seconds} s")
                self._spoken[i] = spoken[0].start, spoken[-1].end
                if self.latents is None:
                    picture = self.corpus.picture(i)
                    if picture.shape != (MEL.n_mels, MEL.frames) or picture.dtype != np.uint8:
                        raise UserError(f"{picture.dtype} {picture.shape} (expected uint8 (256, 1024))")
            except (OSError, ValueError, EOFError) as error:  # a UserError is a ValueError
                errors.append(f"{self.root / name}: {error}")
        if errors:
            more = f"\n… and {len(errors) - 10} more" if len(errors) > 10 else ""
            raise UserError(f"{len(errors)} bad clips:\n" + "\n".join(errors[:10]) + more)
        # float16 rounds the end of a long phone up to 1.
        np.minimum(self._position, np.float16(0.9995), out=self._position)
        self._ids = token_ids(self.tokenizer, table["text"].tolist())

    def gives(self) -> set[str]:
        more = {"input_ids": self.tokenizer, "phone_embedding": self.embeddings,
                "frame_index": self.embeddings, "frame_pitch": self.pitch}
        return {"phones", "phone_mask", "frame_phones", "frame_position", "voice",
                *(key for key, source in more.items() if source is not None)}

    def advice(self, key: str) -> str | None:
        return {"phone_embedding": "embeddings=null: expected a file, which a training that names "
                                   "phoneme_bert makes",
                "frame_pitch": "pitch=null: expected a file, which is made when it is not there"}.get(key)

    def want(self, keys: Collection[str]) -> None:
        super().want(keys)
        if "frame_pitch" not in keys:
            self.pitch = None

    def numbered(self) -> list[str]:
        from .manifest import Corpus

        return self.voices or Corpus.open(self.root).voices()

    def setup(self) -> None:
        super().setup()
        if self.embeddings and self.embedded is None:
            self.embedded = EmbeddingCache(self.embeddings, self.identity())

    @cached_property
    def hertz(self) -> np.ndarray:
        """(N, F) the clips' pitch, read when the first batch wants it: pictures and latents do without."""
        assert self.pitch is not None
        return read_pitch(self.pitch, self.identity(), len(self))

    def __len__(self) -> int:
        self.open()
        return len(self._lengths)

    def identity(self) -> str:
        return content_hash(["speech", MEL.hash, *self.corpus.table["id"]])

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        pictures = np.stack([self.corpus.picture(int(i)) for i in indices])
        return (pictures[:, None] / np.float32(255)).astype(np.float32, copy=False)

    def shifts(self, keys: np.ndarray) -> np.ndarray:
        """(n,) frames by which each draw is shifted to the right, whole columns of them; 0 without `roll`."""
        if not self.roll:
            return np.zeros(len(keys), np.int64)
        return shifts(keys, self._spoken[keys % len(self)], self.cache.shape[-1] if self.cache else None,
                      self.seed)

    def images(self, keys: np.ndarray) -> tuple[str, np.ndarray]:
        name, values = super().images(keys)
        return name, rolled(values, self.shifts(keys) * values.shape[-1] // MEL.frames)

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        rows, shift = keys % len(self), self.shifts(keys)
        return {"phones": self._phones[rows].astype(np.int64),
                "phone_mask": np.arange(self._phones.shape[1]) < self._lengths[rows, None],
                "frame_phones": rolled(self._frames[rows], shift).astype(np.int64),
                "frame_position": rolled(self._position[rows], shift).astype(np.float32),
                "voice": self._voice[rows], **self._more(rows, shift)}

    def _more(self, rows: np.ndarray, shift: np.ndarray) -> dict[str, np.ndarray]:
        """What only some adapters read: texts, embeddings of the phones, and the pitch."""
        found = {} if self._ids is None else {"input_ids": self._ids[rows]}
        if self.embedded is not None:
            values = np.zeros((len(rows), self._phones.shape[1], self.embedded.width), np.float32)
            for value, one in zip(values, self.embedded[rows], strict=True):
                value[: len(one)] = one
            found |= {"phone_embedding": values,
                      "frame_index": rolled(self._index[rows], shift).astype(np.int64)}
        if self.pitch:
            found["frame_pitch"] = rolled(self.hertz[rows], shift).astype(np.float32)
        return found


def token_ids(tokenizer: Any, texts: Sequence[str]) -> np.ndarray | None:
    """(N, T) ids of texts; None without a tokenizer, which is one or its folder."""
    if tokenizer is None:
        return None
    if isinstance(tokenizer, (str, Path)):
        from transformers import CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
    return np.array(tokenizer(list(texts), padding="max_length", truncation=True,
                              max_length=min(tokenizer.model_max_length, 77)).input_ids, np.int64)


def shifts(keys: np.ndarray, spoken: np.ndarray, columns: int | None, seed: int) -> np.ndarray:
    """(n,) frames by which draws are shifted to the right, so that no speech leaves the picture.

    spoken: (n, 2) seconds in which each speaks. columns: of a latent, whole ones of which are shifted; None
    for pictures.
    """
    column = MEL.frames // columns if columns else COLUMN
    seconds = column * MEL.hop / MEL.sample_rate
    low = -np.floor(np.maximum(spoken[:, 0], 0) / seconds)
    high = np.floor(np.maximum(MEL.seconds - spoken[:, 1], 0) / seconds)
    uniform = np.array([np.random.default_rng([seed, int(key)]).random() for key in keys])
    return column * (low + np.floor(uniform * (high - low + 1))).astype(np.int64)


def rolled(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift each of (n, …, W) to the right by its own `shift` (n,), round the end."""
    if not shift.any():
        return values
    columns = (np.arange(values.shape[-1]) - shift[:, None]) % values.shape[-1]
    return np.take_along_axis(values, columns.reshape(len(values), *[1] * (values.ndim - 2), -1), -1)


class CaptionedPictures(BatchDataset):
    """Drawings with their captions, each a function of the sampler's seed and an index.

    length: samples of an epoch. Without latents every epoch draws new pictures; a cache holds the first
    `length`. tokenizer: folder of a CLIPTokenizer, or the tokenizer; without one there are no "input_ids".
    first: index of the first picture; a validation takes others than the training. tokens: ids a caption is
    padded to; None is the tokenizer's own number. sampler: options of PictureSampler.
    """

    def __init__(self, length: int, tokenizer: Any = None, first: int = 0, tokens: int | None = None,
                 latents: str | Path | None = None, autoencoder: Any = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **sampler: Any):
        super().__init__(latents, autoencoder, mean, std)
        self.length, self.first, self.tokenizer, self.tokens = length, first, tokenizer, tokens
        self.options = sampler

    def prepare(self) -> None:
        from .pictures import PictureSampler

        if self.length < 1:
            raise UserError(f"length={self.length}: expected at least one picture")
        self.sampler = PictureSampler(**self.options)
        if isinstance(self.tokenizer, (str, Path)):
            from transformers import CLIPTokenizer

            self.tokenizer = CLIPTokenizer.from_pretrained(self.tokenizer)

    def __len__(self) -> int:
        return self.length

    def gives(self) -> set[str]:
        return {"concept", "scene", *(["input_ids"] if self.tokenizer is not None else [])}

    def identity(self) -> str:
        # The drawing code may change under the same options: two of the pictures themselves speak for it.
        ends = [hashlib.sha256(self._draw(i).tobytes()).hexdigest() for i in (0, self.length - 1)]
        options = sorted((key, value) for key, value in self.options.items() if key != "font")
        return content_hash(["pictures", MEL.hash, repr(options), self.first, self.length, *ends])

    def _draw(self, index: int) -> np.ndarray:
        return self.sampler.sample(self.first + index)[0]

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        drawn = np.stack([self._draw(int(i)) for i in indices])
        return drawn[:, None] / np.float32(255)

    @cached_property
    def _known(self) -> dict[str, np.ndarray]:
        # Captions are cheap without their drawings, but not free at every draw.
        return self._captions(range(self.length))

    def _captions(self, indices: Iterable[int]) -> dict[str, np.ndarray]:
        # The sampler draws the caption first, so it can be had without the picture.
        drawn = [self.sampler.choose(np.random.default_rng([self.sampler.seed, self.first + int(i)]))
                 for i in indices]
        found = {"concept": np.array([caption.concept for caption in drawn], np.int64),
                 "scene": np.stack([self.sampler.scene(self.first + int(i)) for i in indices])}
        if self.tokenizer is not None:
            length = self.tokens or min(self.tokenizer.model_max_length, 77)
            found["input_ids"] = np.array(self.tokenizer(
                [caption.text for caption in drawn], padding="max_length", truncation=True,
                max_length=length).input_ids, np.int64)
        return found

    def images(self, keys: np.ndarray) -> tuple[str, np.ndarray]:
        return ("picture", self.pictures(keys)) if self.cache is None else super().images(keys)

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        if self.latents is None:
            return self._captions(keys)
        return {name: values[keys % len(self)] for name, values in self._known.items()}


def _as_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def batch_loader(dataset: BatchDataset, batch_size: int, *, seed: int = 0, shuffle: bool = True,
                 drop_last: bool = True, workers: int = 0, pin_memory: bool = False, rank: int = 0,
                 world: int = 1) -> Loader:
    """A loader whose state, saved anywhere in an epoch, gives exactly the batches that were left."""
    dataset.setup()
    batches = EpochBatches(len(dataset), batch_size, seed, shuffle, drop_last, dataset.flat_order, rank,
                           world)
    return Loader(dataset, batch_sampler=batches, collate_fn=_as_is, num_workers=workers,
                  pin_memory=pin_memory, persistent_workers=workers > 0)


class PictureData(L.LightningDataModule):
    """Feeds a training from one dataset and, if there is one, a validation from another.

    All datasets are checked at setup, and every error is told at once. A resumed run sees exactly the batches
    of the epoch that it had not seen, with any number of workers.

    train, valid: datasets of this module. batch_size: samples, of both, in each of the processes that train
    one model together; every one of them validates on everything. workers: processes of the training
    loader; latents in memory are faster without. seed: of the order.
    """

    def __init__(self, train: BatchDataset, valid: BatchDataset | None = None, batch_size: int = 32,
                 workers: int = 0, seed: int = 0, pin_memory: bool = False):
        super().__init__()
        check_ranges({"data.batch_size": batch_size, "data.workers": workers})
        self.train, self.valid = train, valid
        self.batch_size, self.workers, self.seed, self.pin_memory = batch_size, workers, seed, pin_memory

    @property
    def sets(self) -> dict[str, BatchDataset]:
        """The data sets by name."""
        return {"train": self.train, **({} if self.valid is None else {"valid": self.valid})}

    @property
    def clips(self) -> list[SpeechClips]:
        """Those that are speech corpora."""
        return [dataset for dataset in self.sets.values() if isinstance(dataset, SpeechClips)]

    def setup(self, stage: str | None = None) -> None:
        with gathered() as step:
            for dataset in self.sets.values():
                with step():
                    dataset.setup()

    def train_dataloader(self) -> Loader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return batch_loader(self.train, self.batch_size, seed=self.seed, workers=self.workers,
                            pin_memory=self.pin_memory, rank=rank, world=world)

    def val_dataloader(self) -> Loader | list[Any]:
        if self.valid is None:
            return []
        size = min(self.batch_size, len(self.valid))
        return batch_loader(self.valid, size, shuffle=False, drop_last=False, pin_memory=self.pin_memory)
