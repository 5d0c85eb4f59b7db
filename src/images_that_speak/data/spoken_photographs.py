"""Photographs with people's spoken captions, read from the folders they are published in.

spoken_coco: SpokenCOCO_train.json and SpokenCOCO_val.json ("data" of "image" and "captions", each with "wav",
    "text", "speaker"), wavs/…; COCO's train2014/ and val2014/ beside them, or in `images`.
flickr8k: flickr_audio/ with wav2capt.txt, wav2spk.txt and wavs/, Karpathy's dataset_flickr8k.json, and
    Flicker8k_Dataset/ (spelt so), or the photographs in `images`.
emotions: metadata.csv with the columns image, audio, caption, emotion and split, files beside it; as VoxEmo-
    set pairs them, captions that name no emotion, spoken in one of five, and a photograph of the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.mel import MEL
from ..errors import UserError, nearest
from ..files import content_hash, read_json
from ..networks.speech_encoder import load_speech_encoder
from ..prompts import read_table
from .datamodule import BatchDataset
from .phrases import split_of
from .recordings import _lines
from .spoken import FeatureCache

EMOTIONS = ("enjoyment", "anger", "disgust", "fear", "sadness")
SPLITS = {"train": "train", "restval": "train", "val": "valid", "valid": "valid",
          "dev": "valid", "test": "test"}
GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class SpokenPhotograph:
    """One spoken caption of one photograph; paths within the folder, or whole."""

    image: str
    sound: str
    text: str
    split: str
    speaker: str = ""
    emotion: str | None = None


def spoken_coco(root: Path, images: Path) -> Iterator[SpokenPhotograph]:
    """What was published as val is parted in two, as nothing else is told: valid and test."""
    for part in ("train", "val"):
        path = root / f"SpokenCOCO_{part}.json"
        try:
            for entry in read_json(path)["data"]:
                split = "train" if part == "train" else split_of(str(entry["image"]), {"test": 0.5})
                split = "valid" if part == "val" and split == "train" else split
                for said in entry["captions"]:
                    yield SpokenPhotograph(str(images / entry["image"]), str(root / said["wav"]),
                                           str(said["text"]), split, str(said.get("speaker", "")))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not SpokenCOCO's ({error!r}; expected data: image, captions: wav, "
                            "text)") from error


def flickr8k(root: Path, images: Path) -> Iterator[SpokenPhotograph]:
    path = root / "dataset_flickr8k.json"
    try:
        about = {image["filename"]: (SPLITS[image["split"]], [said["raw"] for said in image["sentences"]])
                 for image in read_json(path)["images"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not Karpathy's division ({error!r}; expected images: filename, split, "
                        "sentences: raw)") from error
    audio = root / "flickr_audio"
    speakers = dict(line.split()[:2] for line in _lines(audio / "wav2spk.txt"))
    for number, line in enumerate(_lines(audio / "wav2capt.txt"), 1):
        try:
            sound, image, place = line.split()
            split, texts = about[image]
            text = texts[int(place.removeprefix("#"))]
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"{audio / 'wav2capt.txt'}: line {number} ({line[:60]!r}): expected SOUND IMAGE "
                            f"#NUMBER, of images in {path.name} ({error!r})") from error
        folder = images if images != root else root / "Flicker8k_Dataset"
        yield SpokenPhotograph(str(folder / image), str(audio / "wavs" / sound), text, split,
                               speakers.get(sound, ""))


def emotions(root: Path, images: Path) -> Iterator[SpokenPhotograph]:
    path = root / "metadata.csv"
    for number, row in read_table(path, ("image", "audio", "caption", "emotion", "split")):
        for key, known in (("emotion", EMOTIONS), ("split", tuple(SPLITS))):
            if row[key] not in known:
                raise UserError(f"{path}: line {number}: {key} {row[key]!r} (expected one of "
                                f"{', '.join(known)}).{nearest(row[key], known)}")
        yield SpokenPhotograph(str(images / row["image"]), str(root / row["audio"]), row["caption"],
                               SPLITS[row["split"]], emotion=row["emotion"])


READERS: dict[str, Callable[[Path, Path], Iterator[SpokenPhotograph]]] = {
    "spoken_coco": spoken_coco, "flickr8k": flickr8k, "emotions": emotions}


def read_photographs(name: str, folder: str | Path, split: str, images: str | Path | None = None
                     ) -> list[SpokenPhotograph]:
    """The spoken captions of a split. Raises UserError on another layout, an empty split, and naming the
    first of the files that are not there."""
    if name not in READERS:
        raise UserError(f"layout={name}: expected one of {', '.join(READERS)}.{nearest(name, READERS)}")
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"folder={folder}: no such folder (expected {name} as it is published)")
    found = [one for one in READERS[name](root, Path(images or root)) if one.split == split]
    if not found:
        raise UserError(f"folder={folder}: no spoken caption of split {split!r}")
    missing = [path for one in found for path in (one.image, one.sound) if not Path(path).is_file()]
    if missing:
        raise UserError(f"folder={folder}: {len(missing)} files are not there, {missing[0]} first"
                        + ("" if images else " (photographs that lie elsewhere: images=DIR)"))
    return found


class SpokenPhotographs(BatchDataset):
    """Photographs, gray and fitted to 256 × 1024, with what a speech encoder hears in their captions.

    layout, folder, images, split: as `read_photographs` takes them. encoder: as `load_speech_encoder` does.
    features: folder that they are kept in.
    """

    def __init__(self, layout: str, folder: str | Path, encoder: str, features: str | Path,
                 split: str = "train", images: str | Path | None = None, **options: Any):
        super().__init__(**options)
        self.layout, self.folder, self.images_folder = layout, folder, images
        self.encoder, self.features, self.split = encoder, Path(features), split

    def prepare(self) -> None:
        self.table = read_photographs(self.layout, self.folder, self.split, self.images_folder)
        name = f"{Path(self.encoder).name}-{load_speech_encoder(self.encoder).identity}"
        self.heard = FeatureCache(self.features / name / self.split, [Path(one.sound) for one in self.table],
                                  self.encoder)

    def __len__(self) -> int:
        self.open()
        return len(self.table)

    def gives(self) -> set[str]:
        return {"speech", "speech_length"}

    def identity(self) -> str:
        return content_hash([MEL.hash, self.layout, *(Path(one.image).name for one in self.table)])

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        from PIL import Image, ImageOps

        size = (MEL.frames, MEL.n_mels)
        found = []
        for index in indices:
            try:
                with Image.open(self.table[int(index)].image) as image:
                    # All of it, on black: the painter's ground.
                    rgb = np.asarray(ImageOps.pad(image.convert("RGB"), size), np.float32)
            except OSError as error:
                raise UserError(f"{self.table[int(index)].image}: not a readable picture "
                                f"({error})") from error
            found.append(rgb @ GRAY / 255)
        return np.stack(found)[:, None]

    def conditions(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        return self.heard[keys % len(self)]
