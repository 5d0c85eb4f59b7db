"""Readers of pictures: their contract, and what a CLIP model sees.

CLIP's protocol is that of Images that Sound: 256x256 crops slid by 32 over the picture (25 of them where it
is 1024 columns wide), and the mean of their cosines with the text. A plain CLIP preprocess would cut out the
middle quarter. A picture narrower than a crop is made a square by its own ground, the columns at its edges.
Scores of different models are not comparable, so each result names its model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.nearest import canonical, drawing_sentences
from ..errors import UserError, nearest
from ..figures import declares
from ..resources import weights_dir
from ..weights import finite

CROP, STRIDE = 256, 32


@dataclass(frozen=True)
class Shown:
    """One picture as readers see it.

    luminance: (256, F) float32 in [0, 1], what is played. colour: (H, W, 3) uint8, the picture as it is;
    unmixed: the photograph that it was made from, where it is at hand. Both are None for readers that do not
    ask for them.
    """

    luminance: np.ndarray
    colour: np.ndarray | None = None
    unmixed: np.ndarray | None = None


class PictureJudge(ABC):
    """A reader of pictures.

    name: as results tell it. needs_caption: whether it has nothing to say without captions. needs_colour:
    whether it sees pictures as they are, and not their luminance alone.
    """

    name: str
    needs_caption: bool = False
    needs_colour: bool = False

    @abstractmethod
    def look(self, pictures: Sequence[Shown]) -> list[Any]:
        """A few pictures → what `judge` needs to know of each."""

    @abstractmethod
    def judge(self, looks: Sequence[Any], captions: Sequence[str | None]) -> list[dict[str, Any]]:
        """The figures of each picture, from what `look` said of all.

        "clip", "top1", "rank" and "taken_for" mean the same for every reader. captions: what each picture
        shows, None where nobody says.
        """


def as_batch(pictures: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Pictures (256, F) of one width, uint8 or floats in [0, 1] → (N, 256, max(F, 256)) float32 in [0, 1].

    Raises UserError on no picture, another shape or type, several widths, NaN, or values out of range.
    """
    if len(pictures) == 0:
        raise UserError("no picture to read (expected at least one)")
    batch = []
    for index, picture in enumerate(pictures):
        picture = np.asarray(picture)
        where = f"picture {index}"
        if picture.ndim != 2 or picture.shape[0] != CROP or not picture.shape[1]:
            raise UserError(f"{where}: shape {picture.shape} (expected ({CROP}, frames))")
        if picture.shape != np.shape(pictures[0]):
            raise UserError(f"{where}: shape {picture.shape} (expected {np.shape(pictures[0])}, that of the "
                            "first)")
        if picture.dtype == np.uint8:
            picture = picture.astype(np.float32) / 255
        elif not np.issubdtype(picture.dtype, np.floating):
            raise UserError(f"{where}: holds {picture.dtype} (expected uint8, or floats in [0, 1])")
        elif not np.isfinite(picture).all():
            raise UserError(f"{where}: holds NaN or infinity (expected values in [0, 1])")
        elif picture.min() < -1e-3 or picture.max() > 1 + 1e-3:
            raise UserError(
                f"{where}: values in [{picture.min():.3g}, {picture.max():.3g}] (expected [0, 1])"
            )
        batch.append(squared(np.clip(picture, 0, 1).astype(np.float32)))
    return torch.from_numpy(np.stack(batch))


def squared(picture: np.ndarray) -> np.ndarray:
    """(256, F) → (256, max(F, 256)): what is narrower than a crop stands in the middle of its own ground."""
    room = max(0, CROP - picture.shape[1])
    return np.pad(picture, ((0, 0), (room // 2, room - room // 2)), mode="edge")


def crops(pictures: Tensor, stride: int = STRIDE) -> Tensor:
    """(N, 256, F) → (N, C, 256, 256), from left to right.

    Of 1024 columns there are 25, and four with a stride of 256; C = (F − 256) // stride + 1.
    """
    return pictures.unfold(2, CROP, stride).permute(0, 2, 1, 3)


class PictureReader(PictureJudge):
    """A CLIP model that looks at squares slid over a picture.

    model, tokenizer: as open_clip builds them. name: which model it is, for results. pictures_per_batch: how
    many pictures' crops go through the model at once. drawings: whether it was taught the sentences of
    data/captions.py alone, and gives what it was not taught high scores for nothing.
    """

    needs_caption = True

    def __init__(
        self, model: Any, tokenizer: Any, name: str, device: str = "cpu", pictures_per_batch: int = 4,
        drawings: bool = False,
    ):
        self.drawings = drawings
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.device = device
        self.pictures_per_batch = pictures_per_batch
        preprocess = model.visual.preprocess_cfg
        size = preprocess["size"]
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mean = torch.tensor(preprocess["mean"], device=device)[:, None, None]
        self.std = torch.tensor(preprocess["std"], device=device)[:, None, None]

    def caption(self, text: str) -> str | None:
        """`text` as the model was taught it, or None where it was taught nothing that says so."""
        return canonical(text) if self.drawings else text

    @torch.inference_mode()
    def embed_crops(self, pictures: Sequence[np.ndarray] | np.ndarray, stride: int = STRIDE) -> Tensor:
        """Pictures of one width → (N, C, D): an embedding of norm 1 for each of their `crops`."""
        found = []
        for part in as_batch(pictures).split(self.pictures_per_batch):
            squares = crops(part, stride).flatten(0, 1)[:, None].to(self.device)
            if self.size != (CROP, CROP):
                squares = F.interpolate(
                    squares, self.size, mode="bicubic", antialias=True, align_corners=False
                ).clamp(0, 1)
            embedded = self.model.encode_image((squares - self.mean) / self.std, normalize=True)
            found.append(embedded.float().cpu().unflatten(0, (len(part), -1)))
        return torch.cat(found)

    def embed_pictures(self, pictures: Sequence[np.ndarray] | np.ndarray) -> Tensor:
        """Pictures of any widths → (N, D): the mean of the crops' embeddings.

        Its product with a text is the mean of the cosines.
        """
        found: dict[int, Tensor] = {}
        for shape in dict.fromkeys(np.shape(picture) for picture in pictures):
            alike = [index for index, picture in enumerate(pictures) if np.shape(picture) == shape]
            found |= dict(zip(alike, self.embed_crops([pictures[index] for index in alike]).mean(1),
                              strict=True))
        if not found:
            raise UserError("no picture to read (expected at least one)")
        return torch.stack([found[index] for index in range(len(pictures))])

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(M, D), norm 1. Raises UserError on no text or an empty one."""
        texts = list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"texts={texts!r:.80}: expected at least one, none of them empty")
        ids = self.tokenizer(texts).to(self.device)
        return self.model.encode_text(ids, normalize=True).float().cpu()

    def look(self, pictures: Sequence[Shown]) -> list[Tensor]:
        """The embedding (D,) of each picture."""
        return list(self.embed_pictures([picture.luminance for picture in pictures]))

    def judge(self, looks: Sequence[Tensor], captions: Sequence[str | None]) -> list[dict[str, Any]]:
        """`caption_figures` of the pictures whose caption the model was taught.

        Of another caption there is but "no_clip", the reason. A picture without a caption is named: "seen_as"
        is the nearest of the things that the painter knows, "seen_clip" its score.
        """
        known = [self.caption(caption) if caption else None for caption in captions]
        choices = list(dict.fromkeys(caption for caption in known if caption))
        pictures = torch.stack(list(looks))
        found: list[dict[str, Any]] = [{} for _ in captions]
        if choices:
            found = caption_figures(100 * pictures @ self.embed_texts(choices).T, known, choices)
        if not all(captions):
            names = drawing_sentences()
            best = (100 * pictures @ self.embed_texts(names).T).max(1)
        for place, (caption, taught) in enumerate(zip(captions, known, strict=True)):
            if not caption:
                found[place] = {"seen_as": names[int(best.indices[place])],
                                "seen_clip": round(float(best.values[place]), 4)}
            elif taught is None:
                found[place] = {"no_clip": f"{caption!r}, which the {self.name} CLIP was not taught"}
        return found

    def similarities(self, pictures: Sequence[np.ndarray] | np.ndarray, texts: Sequence[str]) -> Tensor:
        """(N, M): 100 · mean over crops of the cosine, of every picture with every text."""
        return 100 * self.embed_pictures(pictures) @ self.embed_texts(texts).T

    def score(self, pictures: Sequence[np.ndarray] | np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """(N,): the CLIP score of each picture with its own text."""
        if len(pictures) != len(texts):
            raise UserError(f"{len(pictures)} pictures but {len(texts)} texts (expected one text a picture)")
        embedded, own = self.embed_pictures(pictures), self.embed_texts(texts)
        return (100 * (embedded * own).sum(1)).numpy()


def caption_figures(table: Tensor, captions: Sequence[str | None],
                    choices: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of each picture's own caption: its score, and its rank among all different ones.

    table: (N, M), the score of every picture with each of M `choices`. With a single choice there is nothing
    to confuse it with, so only the score is given; to a picture without a caption nothing.
    """
    found: list[dict[str, Any]] = []
    for caption, scores in zip(captions, table, strict=True):
        if not caption:
            found.append({})
            continue
        own = scores[choices.index(caption)]
        row: dict[str, Any] = {"clip": round(float(own), 4)}
        if len(choices) > 1:
            rank = int((scores >= own).sum())  # a tie counts against it
            row |= {"rank": rank, "top1": rank == 1, "taken_for": choices[int(scores.argmax())]}
        found.append(row)
    return found


@declares("clip", "top1", "joint")
def load_picture_reader(
    model: str = "pocket",
    pretrained: str | None = None,
    device: str = "cpu",
    pictures_per_batch: int = 4,
) -> PictureReader:
    """A reader from the pocket family ("pocket"), a folder that open_clip can load, or an open_clip model.

    model: "pocket", a folder with `open_clip_config.json`, or a name such as "ViT-B-16". pretrained: with a
    name, a tag ("laion2b_s34b_b88k"), a weights file, or a folder that holds one. Raises UserError when
    nothing can be loaded from there.
    """
    import open_clip
    from safetensors import SafetensorError

    folder = weights_dir() / "clip" if model == "pocket" else Path(model)
    if (folder / "open_clip_config.json").exists():
        if not list(folder.glob("*.safetensors")):
            raise UserError(f"{folder}: holds no weights (expected open_clip_model.safetensors)")
        name, source, pretrained = folder.name if model != "pocket" else model, f"local-dir:{folder}", None
    elif model == "pocket" or folder.is_dir():
        raise UserError(f"{folder}: no CLIP model here (expected open_clip_config.json and its weights)")
    elif model not in open_clip.list_models():
        raise UserError(
            f"reader.picture.model={model!r}: neither a folder nor a model of open_clip."
            f"{nearest(model, ['pocket', *open_clip.list_models()])}"
        )
    else:
        tags = open_clip.list_pretrained_tags_by_model(model)
        if pretrained and Path(pretrained).is_dir():
            files = sorted(file for kind in ("*.safetensors", "*.bin", "*.pt")
                           for file in Path(pretrained).glob(kind))
            if not files:
                raise UserError(f"{pretrained}: holds no weights (expected a safetensors, bin or pt file)")
            pretrained = str(files[0])
        elif not pretrained or (pretrained not in tags and not Path(pretrained).exists()):
            known = nearest(str(pretrained), tags) or f" Its tags: {', '.join(tags)}."
            raise UserError(
                f"reader.picture.pretrained={pretrained!r}: expected a tag of {model}, a weights file or a "
                f"folder.{known}"
            )
        name, source = f"{model}/{Path(pretrained).stem}", model
    try:
        network = finite(open_clip.create_model(source, pretrained), pretrained or folder)
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source.removeprefix('local-dir:')}: cannot be loaded ({reason})") from error
    return PictureReader(network, tokenizer, name, device, pictures_per_batch, drawings=model == "pocket")
