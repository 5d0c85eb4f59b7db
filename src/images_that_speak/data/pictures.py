"""Pictures to learn from: emoji drawings on the 256x1024 canvas that is also a log-mel picture.

A tenth of brightness is 15 dB of sound (mel spec), so the ground of a drawing is exactly black, and silence;
the brightness of the drawing bounds how loud it sounds over the speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError, nearest
from ..networks.squares import COPIES, FIELDS
from .captions import Caption, captions
from .emoji import FONT, Concept, concepts, drawing

__all__ = ["HEIGHT", "WIDTH", "Concept", "PictureSampler", "concepts", "place", "scaled"]

HEIGHT, WIDTH = 256, 1024
_SPLITS = ("train", "test")


def scaled(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a float plane (H, W) to (`height`, `width`) with Lanczos, kept within [0, 1]."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)), 0.0, 1.0)


def place(rng: np.random.Generator, sizes: list[tuple[int, int]], margin: int = 4) -> list[tuple[int, int]]:
    """Random top-left corners (row, column) for boxes (height, width) that do not overlap.

    The boxes stand in the order given from left to right; the free width is shared at random.
    """
    free = WIDTH - sum(width for _, width in sizes) - margin * (len(sizes) + 1)
    gaps = np.sort(rng.integers(0, free + 1, len(sizes)))
    corners, column = [], margin
    for (height, width), gap in zip(sizes, gaps, strict=True):
        corners.append((int(rng.integers(0, HEIGHT - height + 1)), int(column + gap)))
        column += width + margin
    return corners


@dataclass(frozen=True)
class Arrangement:
    """Where a picture's copies lie: boxes (top, left, height, width) in pixels, from left to right."""

    boxes: tuple[tuple[int, int, int, int], ...]
    mirrored: bool
    peak: float


@dataclass(frozen=True)
class PictureSampler:
    """Pictures with captions, each determined by (seed, index) alone.

    brightness: the range of the brightest part of a drawing (on black) or of the ground (silhouettes).
    size: the range of a copy's longer side as a fraction of the height, where the copies leave room for it.
    silhouettes: the share of silhouettes on light ground. split: "train" leaves the held-out captions out,
    "test" has no others. font: the emoji font.
    """

    seed: int = 0
    brightness: tuple[float, float] = (0.45, 0.7)
    size: tuple[float, float] = (0.6, 1.0)
    silhouettes: float = 0.15
    split: str = "train"
    font: str = FONT

    def __post_init__(self) -> None:
        for name in ("brightness", "size"):
            low, high = vars(self)[name]
            if not 0 < low <= high <= 1:
                raise UserError(f"{name}={[low, high]}: expected two numbers, 0 < least <= greatest <= 1")
        if not 0 <= self.silhouettes <= 1:
            raise UserError(f"silhouettes={self.silhouettes}: expected a share, 0 to 1")
        if self.split not in _SPLITS:
            raise UserError(f"split={self.split!r}: expected train or test.{nearest(self.split, _SPLITS)}")

    def sample(self, index: int) -> tuple[np.ndarray, str, int]:
        """Picture `index`: uint8 (256, 1024), its caption, the index of its concept."""
        rng = np.random.default_rng([self.seed, index])
        caption = self.choose(rng)
        return self.draw(rng, caption), caption.text, caption.concept

    def choose(self, rng: np.random.Generator) -> Caption:
        """A caption of the split: concepts alike often, half of them one copy or the bare plural."""
        pools = _pools(self.split)
        ground = "silhouette" if rng.random() < self.silhouettes else "black"
        members = [i for (i, g) in pools if g == ground]
        pool = pools[members[rng.integers(len(members))], ground]
        weights = np.array([_COUNT_WEIGHTS[caption.count] for caption in pool])
        return pool[rng.choice(len(pool), p=weights / weights.sum())]

    def draw(self, rng: np.random.Generator, caption: Caption) -> np.ndarray:
        """A picture that `caption` is true of, uint8 (256, 1024)."""
        return self.paint(caption, self.arrange(rng, caption))

    def scene(self, index: int) -> np.ndarray:
        """The squares in which the copies of picture `index` lie, (COPIES, 5) as networks.squares.FIELDS."""
        rng = np.random.default_rng([self.seed, index])
        arranged = self.arrange(rng, self.choose(rng))
        squares = np.zeros((COPIES, len(FIELDS)), np.float32)
        for row, (top, left, rows, columns) in zip(squares, arranged.boxes, strict=False):
            row[:] = ((left + columns / 2) / HEIGHT, (top + rows / 2) / HEIGHT, max(rows, columns) / HEIGHT,
                      arranged.mirrored, arranged.peak)
        return squares

    def arrange(self, rng: np.random.Generator, caption: Caption) -> Arrangement:
        """How many copies, where, how large and how bright."""
        figure = drawing(concepts()[caption.concept].char, self.font)
        low, high = caption.copies
        copies = int(rng.integers(low, high + 1))
        height, width = figure.gray.shape
        side = rng.uniform(*self.size) * (HEIGHT - 4) / max(height, width)
        # Five wide copies have to fit side by side with 4 px between them.
        side = min(side, (WIDTH - 4 * (copies + 1)) / (copies * width * 1.1))
        sizes = []
        for zoom in rng.uniform(0.9, 1.0, copies):
            sizes.append((max(8, round(height * side * zoom)), max(8, round(width * side * zoom))))
        peak = rng.uniform(*self.brightness)
        mirrored = bool(rng.random() < 0.5)
        boxes = [(top, left, *size) for (top, left), size in zip(place(rng, sizes), sizes, strict=True)]
        return Arrangement(tuple(boxes), mirrored, float(peak))

    def paint(self, caption: Caption, arranged: Arrangement) -> np.ndarray:
        """The arrangement of the caption's concept on its ground, uint8 (256, 1024)."""
        figure = drawing(concepts()[caption.concept].char, self.font)
        peak = arranged.peak
        canvas = np.zeros((HEIGHT, WIDTH), np.float32)
        if caption.ground == "silhouette":
            canvas += peak
        for top, left, rows, columns in arranged.boxes:
            alpha = scaled(figure.alpha, rows, columns)
            gray = scaled(figure.gray, rows, columns)
            if arranged.mirrored:
                alpha, gray = alpha[:, ::-1], gray[:, ::-1]
            box = canvas[top : top + rows, left : left + columns]
            if caption.ground == "silhouette":
                box *= 1 - alpha
            else:
                box += alpha * gray * peak
        return np.round(canvas * 255).astype(np.uint8)


_COUNT_WEIGHTS = {"one": 6, "many": 6, "two": 3, "three": 3, "four": 2, "five": 2}


def _pools(split: str) -> dict[tuple[int, str], list[Caption]]:
    """The captions of a split by (concept, ground)."""
    if split not in _POOLS:
        pools: dict[tuple[int, str], list[Caption]] = {}
        for caption in captions(split):
            pools.setdefault((caption.concept, caption.ground), []).append(caption)
        _POOLS[split] = pools
    return _POOLS[split]


_POOLS: dict[str, dict[tuple[int, str], list[Caption]]] = {}
