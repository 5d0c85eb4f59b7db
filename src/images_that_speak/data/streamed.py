"""A speech corpus of any size: fixed-size records on the disk, and a memory that does not grow with them.

    python -m images_that_speak.data.streamed data/pocket_speech data/streamed/train --split train \\
        --autoencoder weights/pocket/vae

`SpeechClips` holds what every clip says in memory, which is right for the pocket family and not for a million
clips. Here a clip is one record of a shard: its latent (or its picture), its phones with their times, its
voice, and on demand its pitch. Records are read one by one at their place in the file; nothing is mapped or
kept, and the order of an epoch is computed, not stored. So a worker needs what one batch needs, whatever the
corpus.

A folder: `index.json` (written last), `shard-00000.bin` … with the records one after the other; while it is
written, `unfinished.json` says how far it is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..packages import exit_without, need

if __name__ == "__main__":
    exit_without("lightning", "torchdata", "pyarrow")

from ..audio.mel import MEL
from ..audio.wave import read_wave
from ..errors import UserError
from ..files import atomic_path, content_hash, read_json, write_json
from ..networks.autoencoder import load_autoencoder
from ..networks.codec import encode
from ..speech.alignment import frame_phones
from ..speech.phonemes import PAUSE, PHONE_IDS, PHONES, UNKNOWN
from ..speech.pitch import pitch_contour
from ..speech.tts import Phone
from ..terminal import lenient
from .datamodule import BatchDataset, rolled, shifts
from .latents import autoencoder_hash
from .manifest import build_command

SHARD = 4096  # records of a file; 140 MB of pocket latents
OPEN = 64  # shards open at once
LONGEST = 255  # phones of a record; ten seconds hold about 120
UNFINISHED = "unfinished.json"


def record_type(image: str, shape: Sequence[int], phones: int, pitch: bool = False) -> np.dtype:
    """The record of a clip: `image` is "latent" (float16) or "picture" (uint8) of this shape; pitch in Hz."""
    hertz = [("pitch", "<f2", (MEL.frames,))] if pitch else []
    return np.dtype([(image, "<f2" if image == "latent" else "u1", tuple(shape)), ("phones", "u1", (phones,)),
                     ("times", "<f4", (phones, 2)), ("length", "u1"), ("voice", "<u2"), *hertz])


class Records:
    """The records of a folder. `index` is its index.json, `dtype` the records' type.

    Raises UserError when the folder is unfinished, of another mel spec, or a shard is not as long as it says.
    """

    def __init__(self, folder: str | Path):
        self._open: OrderedDict[int, int] = OrderedDict()
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise UserError(f"{path}: no such file (expected a folder of records; `python -m "
                            "images_that_speak.data.streamed CORPUS FOLDER` writes one)")
        self.index = read_json(path)
        MEL.check(self.index.get("mel_spec"), path)
        self.dtype = record_type(self.index["image"], self.index["shape"], self.index["phones"],
                                 self.index.get("pitch", False))
        size = self.index["shard"]
        for number, first in enumerate(range(0, len(self), size)):
            shard, expected = self._path(number), min(size, len(self) - first) * self.dtype.itemsize
            found = shard.stat().st_size if shard.exists() else 0
            if found != expected:
                raise UserError(f"{shard}: {found} bytes (expected {expected}); write the folder again")

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
        for file in self._open.values():
            os.close(file)


class StreamedClips(BatchDataset):
    """The clips of a folder of records, as `SpeechClips` gives those of a corpus.

    folder: of records. voices: names in the order of their numbers from 1 on; None takes the folder's.
    roll: shift each clip in time, as SpeechClips does. mean, std: of the latents; None is the folder's.
    """

    flat_order = True  # an epoch's order is computed
    streamed = True

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

    def gives(self) -> set[str]:
        self.open()
        pitch = {"frame_pitch"} if self.records.index.get("pitch") else set()
        return {"phones", "phone_mask", "frame_phones", "frame_position", "voice", *pitch}

    def advice(self, key: str) -> str | None:
        return (f"folder={self.folder}: records hold phones, their times, and with --pitch the pitch "
                "(expected adapter=aligned or pitched, or data=pocket_speech_latents)")

    def numbered(self) -> list[str]:
        self.open()
        return self.voices or []

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
        if self.records.index.get("pitch"):
            batch["frame_pitch"] = rolled(found["pitch"].astype(np.float32), shift)
        return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()
                if key == name or self.wanted is None or key in self.wanted}


@dataclass(frozen=True)
class Packer:
    """What makes records of a manifest's rows: of which corpus, and what a record holds.

    vae: None keeps pictures. voices: the names, in the order of their numbers from 1 on. longest: phones of a
    record. pitch: whether it is tracked.
    """

    corpus: Path
    vae: Any
    voices: Sequence[str]
    longest: int
    pitch: bool

    @torch.no_grad()
    def __call__(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """(n,) rows → (n,) records."""
        image, values = "picture", np.stack([np.load(self.corpus / row["spectrogram"], allow_pickle=False)
                                             for row in rows])
        if self.vae is not None:
            image, values = "latent", encode(self.vae, torch.from_numpy(values)[:, None] / 255).mean.numpy()
        found = np.zeros(len(rows), record_type(image, values.shape[1:], self.longest, self.pitch))
        found[image] = values
        for record, row in zip(found, rows, strict=True):
            phones = [Phone(*phone) for phone in zip(row["symbols"], row["starts"], row["ends"], strict=True)]
            record["phones"][: len(phones)] = [PHONE_IDS.get(p.symbol, PHONE_IDS[UNKNOWN]) for p in phones]
            record["times"][: len(phones)] = [(p.start, p.end) for p in phones]
            record["length"], record["voice"] = len(phones), 1 + self.voices.index(row["voice"])
            if self.pitch:
                record["pitch"] = pitch_contour(read_wave(self.corpus / row["wave"]), phones)
        return found


def write_records(corpus: str | Path, folder: str | Path, split: str = "train",
                  autoencoder: str | Path | None = None, shard: int = SHARD, batch: int = 16,
                  pitch: bool = False) -> Records:
    """Pack a split of a built corpus. With an autoencoder's folder its latents, else its pictures.

    pitch: track it, for adapters that are told it (a tenth of a second a clip).

    The manifest is read piece by piece, so memory stays flat here too. Stopped, it goes on after the last
    whole shard. Raises UserError when there is no such corpus, split or autoencoder.
    """
    corpus, folder = Path(corpus), Path(folder)
    path = corpus / "manifest.parquet"
    if not path.exists():
        raise UserError(f"{path}: no such manifest (expected a corpus; build it with "
                        f"`{build_command(corpus)}`)")
    need("pyarrow", where="reading a corpus")
    from pyarrow import parquet

    table = parquet.ParquetFile(path)
    columns = ["id", "voice", "split", "mel_spec", "symbols", "starts", "ends", "spectrogram", "wave"]

    def rows() -> Iterator[dict[str, Any]]:
        for piece in table.iter_batches(1024, columns=columns):
            yield from (row for row in piece.to_pylist() if row["split"] == split)

    # Of every split: a voice has the same number in each.
    voices = sorted({voice for piece in table.iter_batches(1 << 16, columns=["voice"])
                     for voice in piece.column("voice").unique().to_pylist()})
    count, longest, digest = 0, 1, hashlib.sha256()
    for row in rows():
        if row["mel_spec"] != MEL.hash:
            raise UserError(f"{path}: made for mel spec {row['mel_spec']} (expected {MEL.hash})")
        count, longest = count + 1, max(longest, len(row["symbols"]))
        digest.update(row["id"].encode())
    if not count or longest > LONGEST:
        raise UserError(f"{path}: {count} clips in split {split!r}, at most {longest} phones (expected some, "
                        f"of at most {LONGEST})")
    if autoencoder is not None and not (Path(autoencoder) / "config.json").exists():
        raise UserError(f"{autoencoder}: no such folder (expected an autoencoder's)")
    vae = None if autoencoder is None else load_autoencoder(autoencoder).eval()
    pack = Packer(corpus, vae, voices, longest, pitch)
    index = {"clips": count, "shard": shard, "phones": longest, "pitch": pitch, "voices": voices,
             "mel_spec": MEL.to_dict(), "split": split, "identity": digest.hexdigest()[:12]}
    moments = write_shards(pack, index, rows(), folder, batch)
    # An autoencoder that knows how its latents lie was told by all branches' pictures, not by these alone.
    known: Any = {} if vae is None else vae.config
    mean, std = known.get("latents_mean"), known.get("latents_std")
    if mean is None or std is None:
        mean = moments[0].tolist()
        std = np.sqrt(np.maximum(moments[1] - moments[0]**2, 1e-12)).tolist()
    write_json(folder / "index.json", {**index, "image": "picture" if vae is None else "latent",
                                       "mean": list(mean), "std": list(std)})
    (folder / UNFINISHED).unlink()
    return Records(folder)


def write_shards(pack: Packer, index: dict[str, Any], rows: Iterator[dict[str, Any]], folder: Path,
                 batch: int) -> np.ndarray:
    """Write what `folder` lacks of the shards, and into `index` the images' shape.

    (2, C) the mean of the latents and of their squares; of pictures zeros.
    """
    state = folder / UNFINISHED
    made_of = content_hash([index, pack.vae and autoencoder_hash(pack.vae)])
    done = read_json(state) if state.exists() else {}
    if done.get("made_of") != made_of:
        done = {"made_of": made_of, "moments": []}
        (folder / "index.json").unlink(missing_ok=True)  # of records that are written over
    count, shard = index["clips"], index["shard"]
    with tqdm(total=count, unit="clip", desc=f"Records of {pack.corpus.name}") as bar:
        for number, first in enumerate(range(0, count, shard)):
            left = iter([next(rows) for _ in range(min(shard, count - first))])
            if number < len(done["moments"]):
                bar.update(len(list(left)))
                continue
            moments = np.zeros((2, 1))
            with atomic_path(folder / f"shard-{number:05d}.bin") as temporary, open(temporary, "wb") as file:
                while chosen := list(islice(left, batch)):
                    records = pack(chosen)
                    if pack.vae is not None:
                        values = records["latent"].astype(np.float64)
                        means = np.stack([values.mean((0, 2, 3)), np.square(values).mean((0, 2, 3))])
                        moments = moments + means * len(chosen) / count
                    file.write(records.tobytes())
                    bar.update(len(chosen))
            done["moments"].append(moments.tolist())
            done["shape"] = list(records.dtype[0].shape)
            write_json(state, done)
    index["shape"] = done["shape"]
    return np.sum(done["moments"], axis=0)


def main() -> None:
    lenient()
    parser = argparse.ArgumentParser(description="Pack a split of a built corpus into records.")
    parser.add_argument("corpus", type=Path, help="folder of a corpus")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--split", default="train", choices=("train", "valid", "test"))
    parser.add_argument("--autoencoder", type=Path, help="folder of the autoencoder; without one, pictures")
    parser.add_argument("--pitch", action="store_true", help="track it, for adapter=pitched")
    options = parser.parse_args()
    try:
        records = write_records(options.corpus, options.folder, options.split, options.autoencoder,
                                pitch=options.pitch)
    except UserError as error:
        raise SystemExit(str(error)) from error
    print(f"{options.folder}: {len(records)} records of {records.dtype.itemsize} bytes")


if __name__ == "__main__":
    main()
