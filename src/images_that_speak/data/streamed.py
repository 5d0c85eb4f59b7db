"""A speech corpus of any size: fixed-size records on the disk, and a memory that does not grow with them.

    python -m images_that_speak.data.streamed data/pocket_speech data/streamed/train --split train \\
        --autoencoder weights/pocket/vae

`SpeechClips` holds what every clip says in memory, which is right for the pocket family and not for a million
clips. Here a clip is one record of a shard: its latent (or its picture), its phones with their times and its
voice. Records are read one by one at their place in the file; nothing is mapped or kept, and the order of an
epoch is computed, not stored. So a worker needs what one batch needs, whatever the corpus.

A folder: `index.json` (written last), `shard-00000.bin` … with the records one after the other.
"""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.mel import MEL
from ..errors import UserError
from ..files import atomic_path, read_json, write_json
from ..speech.alignment import frame_phones
from ..speech.phonemes import PAUSE, PHONE_IDS, PHONES, UNKNOWN
from ..speech.tts import Phone
from .datamodule import BatchDataset, rolled, shifts

SHARD = 4096  # records of a file; 140 MB of pocket latents
OPEN = 64  # shards open at once
LONGEST = 255  # phones of a record; ten seconds hold about 120


def record_type(image: str, shape: Sequence[int], phones: int) -> np.dtype:
    """The record of a clip: `image` is "latent" (float16) or "picture" (uint8) of this shape."""
    return np.dtype([(image, "<f2" if image == "latent" else "u1", tuple(shape)), ("phones", "u1", (phones,)),
                     ("times", "<f4", (phones, 2)), ("length", "u1"), ("voice", "<u2")])


class Records:
    """The records of a folder. `index` is its index.json, `dtype` the records' type.

    Raises UserError when the folder is unfinished, of another mel spec, or a shard is not as long as it says.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise UserError(f"{path}: no such file (expected a folder of records; `python -m "
                            "images_that_speak.data.streamed CORPUS FOLDER` writes one)")
        self.index = read_json(path)
        MEL.check(self.index.get("mel_spec"), path)
        self.dtype = record_type(self.index["image"], self.index["shape"], self.index["phones"])
        size = self.index["shard"]
        for number, first in enumerate(range(0, len(self), size)):
            shard, expected = self._path(number), min(size, len(self) - first) * self.dtype.itemsize
            found = shard.stat().st_size if shard.exists() else 0
            if found != expected:
                raise UserError(f"{shard}: {found} bytes (expected {expected}); write the folder again")
        self._open: OrderedDict[int, int] = OrderedDict()

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.bin"

    def __len__(self) -> int:
        return int(self.index["clips"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # another process opens its own files

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) indices → (n,) records."""
        size, width = self.index["shard"], self.dtype.itemsize
        found = np.empty(len(rows), self.dtype)
        for place, row in enumerate(rows):
            data = os.pread(self._file(int(row) // size), width, int(row) % size * width)
            found[place] = np.frombuffer(data, self.dtype)[0]
        return found

    def _file(self, number: int) -> int:
        if number not in self._open:
            self._open[number] = os.open(self._path(number), os.O_RDONLY)
            if len(self._open) > OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(number)
        return self._open[number]

    def __del__(self) -> None:
        for file in getattr(self, "_open", {}).values():
            os.close(file)


class StreamedClips(BatchDataset):
    """The clips of a folder of records, as `SpeechClips` gives those of a corpus.

    folder: of records. voices: names in the order of their numbers from 1 on; None takes the folder's.
    roll: shift each clip in time, as SpeechClips does. mean, std: of the latents; None is the folder's.
    """

    flat_order = True  # an epoch's order is computed

    def __init__(self, folder: str | Path, voices: Sequence[str] | None = None, roll: bool = False,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, seed: int = 0):
        super().__init__(None, None, mean, std, seed)
        self.folder, self.roll = Path(folder), roll
        self.voices = list(voices) if voices is not None else None

    def prepare(self) -> None:
        self.records = Records(self.folder)
        index = self.records.index
        names = index["voices"] if self.voices is None else self.voices
        unknown = sorted(set(index["voices"]) - set(names))
        if unknown:
            raise UserError(f"{self.folder}: clips of voice {', '.join(unknown)} "
                            f"(expected {', '.join(names)})")
        self._numbers = np.array([0, *(names.index(name) + 1 for name in index["voices"])], np.int64)
        self.voices = list(names)
        if index["image"] == "latent":
            mean, std = (np.asarray(own if given is None else given, np.float32).reshape(-1, 1, 1)
                         for own, given in ((index["mean"], self.mean), (index["std"], self.std)))
            if {len(mean), len(std)} - {1, index["shape"][0]} or not (std > 0).all():
                raise UserError(f"latent mean and std: expected {index['shape'][0]} numbers each, and no "
                                "deviation of 0")
            self._mean, self._std = mean, std

    def __len__(self) -> int:
        self.open()
        return len(self.records)

    def identity(self) -> str:
        return str(self.records.index["identity"])

    def __getitems__(self, keys: Sequence[int]) -> dict[str, Tensor]:
        self.setup()
        numbers = np.asarray(keys, np.int64)
        found = self.records[numbers % len(self)]
        name = self.records.index["image"]
        if name == "latent":
            image = (found[name].astype(np.float32) - self._mean) / self._std
        else:
            image = found[name][:, None] / np.float32(255)
        frames = np.empty((len(found), MEL.frames), np.int64)
        position = np.empty((len(found), MEL.frames), np.float32)
        spoken = np.empty((len(found), 2))
        for i, record in enumerate(found):
            phones = [Phone(PHONES[symbol], float(start), float(end)) for symbol, (start, end)
                      in zip(record["phones"], record["times"], strict=True)][: int(record["length"])]
            frames[i], position[i] = frame_phones(phones, MEL.frames)
            sounding = [phone for phone in phones if phone.symbol != PAUSE]
            spoken[i] = sounding[0].start, sounding[-1].end
        shift = np.zeros(len(found), np.int64)
        if self.roll:
            shift = shifts(numbers, spoken, image.shape[-1] if name == "latent" else None, self.seed)
        batch = {name: rolled(image, shift * image.shape[-1] // MEL.frames),
                 "phones": found["phones"].astype(np.int64),
                 "phone_mask": np.arange(found["phones"].shape[1]) < found["length"][:, None],
                 "frame_phones": rolled(frames, shift), "frame_position": rolled(position, shift),
                 "voice": self._numbers[found["voice"]]}
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()}


def write_records(corpus: str | Path, folder: str | Path, split: str = "train",
                  autoencoder: str | Path | None = None, shard: int = SHARD, batch: int = 16) -> Records:
    """Pack a split of a built corpus. With an autoencoder's folder its latents, else its pictures.

    The manifest is read piece by piece, so memory stays flat here too. Raises UserError when there is no such
    corpus, split or autoencoder.
    """
    import hashlib

    from pyarrow import parquet

    from ..networks.autoencoder import encode, load_autoencoder

    corpus, folder = Path(corpus), Path(folder)
    path = corpus / "manifest.parquet"
    if not path.exists():
        raise UserError(f"{path}: no such manifest (expected a corpus; build one with "
                        f"`python -m images_that_speak.data data.root={corpus}`)")
    table = parquet.ParquetFile(path)
    columns = ["id", "voice", "split", "mel_spec", "symbols", "starts", "ends", "spectrogram"]

    def rows() -> Iterator[dict[str, Any]]:
        for piece in table.iter_batches(1024, columns=columns):
            yield from (row for row in piece.to_pylist() if row["split"] == split)

    # Of every split: a voice has the same number in each.
    voices = {voice for piece in table.iter_batches(1 << 16, columns=["voice"])
              for voice in piece.column("voice").unique().to_pylist()}
    count, longest, digest = 0, 1, hashlib.sha256()
    for row in rows():
        if row["mel_spec"] != MEL.hash:
            raise UserError(f"{path}: made for mel spec {row['mel_spec']} (expected {MEL.hash})")
        count, longest = count + 1, max(longest, len(row["symbols"]))
        digest.update(row["id"].encode())
    if not count or longest > LONGEST:
        raise UserError(f"{path}: {count} clips in split {split!r}, at most {longest} phones (expected some, "
                        f"of at most {LONGEST})")
    vae = None
    if autoencoder is not None:
        if not (Path(autoencoder) / "config.json").exists():
            raise UserError(f"{autoencoder}: no such folder (expected an autoencoder's)")
        vae = load_autoencoder(autoencoder).eval()
    names = sorted(voices)
    number = {name: i + 1 for i, name in enumerate(names)}
    pictures = np.empty((batch, MEL.n_mels, MEL.frames), np.uint8)
    moments = np.zeros((2, 1))
    dtype = record_type("picture", pictures.shape[1:], longest)
    source, written = rows(), 0
    while written < count:
        size = min(shard, count - written)
        with atomic_path(folder / f"shard-{written // shard:05d}.bin") as temporary:
            with open(temporary, "wb") as file:
                for first in range(0, size, batch):
                    chosen = [next(source) for _ in range(min(batch, size - first))]
                    for i, row in enumerate(chosen):
                        pictures[i] = np.load(corpus / row["spectrogram"], allow_pickle=False)
                    values = pictures[: len(chosen)]
                    if vae is not None:
                        with torch.no_grad():
                            values = encode(vae, torch.from_numpy(values)[:, None].float() / 255).mean.numpy()
                        share = len(chosen) / count
                        moments = moments + share * np.stack([values.mean((0, 2, 3)),
                                                              np.square(values).mean((0, 2, 3))])
                        dtype = record_type("latent", values.shape[1:], longest)
                    file.write(_records(chosen, values, number, dtype).tobytes())
        written += size
    # An autoencoder that knows how its latents lie was told by all branches' pictures, not by these alone.
    known: Any = getattr(vae, "config", {})
    mean, std = known.get("latents_mean"), known.get("latents_std")
    if mean is None or std is None:
        mean = moments[0].tolist()
        std = np.sqrt(np.maximum(moments[1] - moments[0]**2, 1e-12)).tolist()
    image, *_ = dtype.names or ()
    write_json(folder / "index.json", {
        "clips": count, "shard": shard, "image": image, "phones": longest,
        "shape": list(dtype[0].shape), "voices": names, "mel_spec": MEL.to_dict(), "split": split,
        "identity": digest.hexdigest()[:12], "mean": list(mean), "std": list(std)})
    return Records(folder)


def _records(rows: Sequence[dict[str, Any]], values: np.ndarray, number: dict[str, int],
             dtype: np.dtype) -> np.ndarray:
    found = np.zeros(len(rows), dtype)
    image, *_ = dtype.names or ()
    found[image] = values
    for record, row in zip(found, rows, strict=True):
        length = len(row["symbols"])
        record["phones"][:length] = [PHONE_IDS.get(s, PHONE_IDS[UNKNOWN]) for s in row["symbols"]]
        record["times"][:length] = np.stack([row["starts"], row["ends"]], 1)
        record["length"], record["voice"] = length, number[row["voice"]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack a split of a built corpus into records.")
    parser.add_argument("corpus", type=Path, help="folder of a corpus")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--split", default="train", choices=("train", "valid", "test"))
    parser.add_argument("--autoencoder", type=Path, help="folder of the autoencoder; without one, pictures")
    options = parser.parse_args()
    try:
        records = write_records(options.corpus, options.folder, options.split, options.autoencoder)
    except UserError as error:
        raise SystemExit(str(error)) from error
    print(f"{options.folder}: {len(records)} records of {records.dtype.itemsize} bytes")


if __name__ == "__main__":
    main()
