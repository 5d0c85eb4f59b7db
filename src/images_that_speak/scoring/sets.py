"""A set of samples beside another set: FID and KID of pictures, FAD and KAD of sounds.

Sets need not share prompts. What vectors a picture or a sound becomes is a `features` object's choice; its
name is part of the figure's, for distances of different features say nothing about one another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..audio.mel import MEL, LogMel
from ..audio.picture import SHAPE, is_copy, quantise, read_picture
from ..audio.wave import read_wave
from ..config import locate
from ..errors import UserError, nearest
from ..figures import FIGURES, Figure
from ..packages import need
from ..weights import check_finite
from .clap import Clap
from .distances import frechet_distance, kernel_audio_distance, kernel_inception_distance
from .metric import Clip, Metric, Scores, Unfit
from .seen import CROP, as_batch, crops, load_picture_reader

CHUNK = 8  # files read at once


class Features(ABC):
    """What a distance is of: a vector, or several, of every picture or sound.

    name: the ending of the figures' names, empty for what a metric was published with.
    """

    name: str = ""
    weights: str = "none"
    protocol: str = ""

    @classmethod
    def ending(cls, section: Mapping[str, Any]) -> str:
        """The name of those that are built from this section of a configuration; without building them."""
        return cls.name

    def load(self) -> None:  # noqa: B027  # nothing to load is possible
        """Load weights. Raises UserError when they cannot be had."""

    @abstractmethod
    def embed(self, items: Sequence[np.ndarray]) -> Tensor:
        """Pictures (256, 1024) uint8 or waves (T,) float32 → (N, D), one or several vectors for each."""


class ClipSquares(Features):
    """Embeddings of a CLIP model's image tower; by default of the one that ships."""

    def __init__(self, model: str = "pocket", pretrained: str | None = None, device: str = "cpu"):
        self.arguments = (model, pretrained, device)
        self.name = self.ending({"model": model})
        self.weights = f"CLIP {model}" + (f", {pretrained}" if pretrained else "")
        self.protocol = "four 256×256 squares of a picture, each one vector of norm 1"

    @classmethod
    def ending(cls, section: Mapping[str, Any]) -> str:
        return "pocket" if section.get("model", "pocket") == "pocket" else "clip"

    def load(self) -> None:
        self.reader = load_picture_reader(*self.arguments)

    def embed(self, items: Sequence[np.ndarray]) -> Tensor:
        return self.reader.embed_crops(items, stride=CROP).flatten(0, 1)


class InceptionSquares(Features):
    """The 2048 features of the Inception v3 that FID was published with, by torch-fidelity.

    weights: the file weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases, or a folder
    that holds it.
    """

    protocol = "four 256×256 squares of a picture, scaled to 299×299 as TensorFlow 1 does, 2048 features"

    def __init__(self, weights: str | None, device: str = "cpu"):
        _need_fidelity()
        hint = ("give the file weights-inception-2015-12-05-6726825d.pth (95 MB, of torch-fidelity's release "
                "v0.2.0)")
        if weights is None:
            raise UserError(f"metrics.fid.features.weights: no value; {hint}, or a folder that holds it")
        path = Path(weights)
        files = sorted([*path.glob("*.pth"), *path.glob("*.pt")]) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise UserError(f"metrics.fid.features.weights={weights}: no weights there; {hint}")
        self.path, self.device = files[0], device
        self.weights = files[0].name

    def load(self) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        data = self.path.read_bytes()
        try:
            # torch-fidelity would unpickle anything; these bytes are only taken when they hold tensors.
            check_finite(torch.load(BytesIO(data), weights_only=True), self.path)
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], BytesIO(data)).to(self.device)
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.path}: not the weights of FID's Inception v3 ({reason})") from error

    @torch.inference_mode()
    def embed(self, items: Sequence[np.ndarray]) -> Tensor:
        squares = crops(as_batch(items), CROP).flatten(0, 1)[:, None].expand(-1, 3, -1, -1)
        return self.network((squares * 255).round().byte().to(self.device))[0].cpu()


class MelStatistics(Features):
    """No network: what a log-mel spectrogram's bands hold on the average, and how they vary."""

    name = "mel"
    protocol = "windows of 1.28 s, mean and deviation of 32 log-mel bands in each"
    BANDS, FRAMES = 32, 128

    def load(self) -> None:
        self.log_mel = LogMel()

    def embed(self, items: Sequence[np.ndarray]) -> Tensor:
        found = []
        for wave in items:
            if len(wave) < self.FRAMES * MEL.hop:
                raise Unfit("its sound is shorter than a window of "
                            f"{self.FRAMES * MEL.hop / MEL.sample_rate} s")
            nats = self.log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None])[0]
            bands = nats.unflatten(0, (self.BANDS, -1)).mean(1)
            windows = bands.unfold(1, self.FRAMES, self.FRAMES)  # (bands, windows, frames)
            found.append(torch.cat([windows.mean(2), windows.std(2)]).T)
        return torch.cat(found)


class ClapSounds(Features):
    """Embeddings of CLAP's audio tower. model: a folder that transformers loads, or a hub id."""

    name = "clap"

    def __init__(self, model: str = "laion/clap-htsat-unfused", device: str = "cpu"):
        self.clap = Clap(model, device)
        self.weights, self.protocol = f"CLAP {model}", self.clap.protocol

    def load(self) -> None:
        self.clap.load()

    def embed(self, items: Sequence[np.ndarray]) -> Tensor:
        return self.clap.embed_waves(items)


class _Distances(Metric):
    """The Fréchet and a kernel distance of samples and reference.

    reference: a folder with pictures or sounds, subfolders included: a run of generate.py, anchors, a corpus.
    """

    names: tuple[str, str]
    kernel: Callable[[Tensor, Tensor], float]

    def __init__(self, features: Features, reference: str | None):
        self.features = features
        self.weights, self.protocol = features.weights, features.protocol
        if reference is None:
            raise UserError(f"reference: no value; {self.names[0]} compares with a folder, reference=DIR")
        folder = Path(reference)
        if not folder.is_dir():
            siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise UserError(f"reference={reference}: no such folder.{nearest(folder.name, siblings)}")
        self.files = self.find(folder)
        if len(self.files) < 2:
            raise UserError(f"reference={reference}: {len(self.files)} files for {self.names[0]} "
                            "(expected at least two)")
        self.reference = str(reference)
        self.mine: list[Tensor] = []
        self.figures = self.distances(features.name)

    @classmethod
    def declared(cls, section: Mapping[str, Any]) -> tuple[Figure, ...]:
        features = section["features"]
        return cls.distances(locate(features["_target_"], "features").ending(features))

    @classmethod
    def distances(cls, ending: str) -> tuple[Figure, ...]:
        """Both distances of features whose name this is."""
        keys = [f"{name}_{ending}" if ending else name for name in cls.names]
        return tuple(FIGURES.get(key) or Figure(key, f"{name.upper()} ({ending})", of="set")
                     for name, key in zip(cls.names, keys, strict=True))

    @abstractmethod
    def find(self, folder: Path) -> list[Path]:
        ...

    @abstractmethod
    def read(self, path: Path) -> np.ndarray:
        ...

    @abstractmethod
    def part(self, clip: Clip) -> np.ndarray:
        ...

    def load(self) -> None:
        self.features.load()
        parts = [self.files[first:first + CHUNK] for first in range(0, len(self.files), CHUNK)]
        # Now, so that a file that cannot be read is told before the samples are.
        self.theirs = torch.cat([self._embedded(part)
                                 for part in tqdm(parts, desc=f"{self.names[0]}: reference", leave=False)])

    def _embedded(self, files: Sequence[Path]) -> Tensor:
        try:
            return self.features.embed([self.read(path) for path in files])
        except Unfit as error:
            if len(files) == 1:
                raise UserError(f"{files[0]}: {error}") from error
        return torch.cat([self._embedded([path]) for path in files])

    def add(self, clips: Sequence[Clip]) -> list[Scores]:
        self.mine.append(self.features.embed([self.part(clip) for clip in clips]))
        return [{} for _ in clips]

    def total(self) -> dict[str, float]:
        mine = torch.cat(self.mine) if self.mine else torch.empty(0)
        if len(mine) < 2:
            return {}
        frechet, kernel = (figure.key for figure in self.figures)
        return {frechet: frechet_distance(mine, self.theirs),
                kernel: self.kernel(mine, self.theirs)}

    def counted(self) -> int:
        return len(self.files)


class PictureDistances(_Distances):
    """`fid` and `kid`, to which the features' name is added."""

    names = ("fid", "kid")
    kernel = staticmethod(kernel_inception_distance)

    def find(self, folder: Path) -> list[Path]:
        samples = sorted(folder.rglob("image.png"))
        return samples or sorted(path for path in folder.rglob("*.png") if not is_copy(path))

    def read(self, path: Path) -> np.ndarray:
        picture = quantise(read_picture(path))
        if picture.shape != SHAPE:
            raise UserError(f"{path}: plays as {picture.shape[1]} columns (fid and kid compare pictures of "
                            f"{SHAPE[0]}×{SHAPE[1]})")
        return picture

    def part(self, clip: Clip) -> np.ndarray:
        if clip.picture.shape != SHAPE:
            raise Unfit(f"pictures of {SHAPE[0]}×{SHAPE[1]} are compared, and it plays as another width")
        return clip.picture


class SoundDistances(_Distances):
    """`fad` and `kad`, to which the features' name is added."""

    names = ("fad", "kad")
    kernel = staticmethod(kernel_audio_distance)

    def find(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))

    def read(self, path: Path) -> np.ndarray:
        return read_wave(path)

    def part(self, clip: Clip) -> np.ndarray:
        return clip.wave


def _need_fidelity() -> None:
    need("torch_fidelity", where="metrics=fid")
