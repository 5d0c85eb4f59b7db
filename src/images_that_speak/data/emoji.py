"""What can be drawn: concepts of an emoji font, as gray drawings with their outlines.

Noto Color Emoji holds bitmaps of one size (109 px). A drawing is the glyph's luminance (Rec. 601), stretched
concept by concept so that dark emoji (a bat, a camera) are seen on black as well as light ones.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import read_text
from ..resources import ROOT

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109

# One concept a line; `outline` where the bare outline still tells what it is.
CONCEPTS = ROOT / "words" / "emoji.csv"


@dataclass(frozen=True)
class Concept:
    """One thing that the font draws; `outline` says that its silhouette can be told from the others."""

    name: str
    plural: str
    char: str
    group: str
    outline: bool

    @property
    def singular(self) -> str:
        """The name with its article ("an owl")."""
        vowel = self.name[0] in "aeiou" and not self.name.startswith(("unicorn", "one"))
        return f"{'an' if vowel else 'a'} {self.name}"


@lru_cache(maxsize=1)
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the fixed order that their indices mean."""
    rows = csv.DictReader(read_text(CONCEPTS).splitlines())
    return tuple(Concept(row["name"], row["plural"], row["emoji"], row["group"], row["outline"] == "yes")
                 for row in rows)


@dataclass(frozen=True)
class Drawing:
    """A glyph cut to its bounding box (H, W): `gray` with its brightest part 1, `alpha`, both in [0, 1].

    chroma: (2, H, W), the font's (R − Y)/Y and (B − Y)/Y.
    """

    gray: np.ndarray
    alpha: np.ndarray
    chroma: np.ndarray


def _stretch(gray: np.ndarray, alpha: np.ndarray, floor: float = 0.3, gain: float = 2.5) -> np.ndarray:
    """Stretch the gray inside the outline to [`floor`, 1]; a nearly flat drawing by at most `gain`.

    The floor keeps dark parts visible on black, the bounded gain keeps a flat drawing (a heart) flat.
    """
    inside = gray[alpha > 0.5]
    low, high = np.percentile(inside, [2, 98])
    scale = min((1 - floor) / max(high - low, 1e-3), gain)
    return np.clip(1 - (high - gray) * scale, floor, 1.0).astype(np.float32)


@lru_cache(maxsize=512)
def drawing(char: str, font: str = FONT) -> Drawing:
    """Draw `char` with the emoji `font` (cached). Raises UserError where the font or the glyph is missing."""
    from PIL import Image, ImageDraw, ImageFont

    if not Path(font).exists():
        raise UserError(f"{font}: no such font (expected Noto Color Emoji; `make setup` installs it)")
    face = ImageFont.truetype(font, FONT_SIZE)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), char, font=face, embedded_color=True)
    pixels = np.asarray(canvas, np.float32) / 255
    alpha = pixels[..., 3]
    rows, columns = np.flatnonzero(alpha.max(1) > 0.1), np.flatnonzero(alpha.max(0) > 0.1)
    if len(rows) < 8 or len(columns) < 8:
        raise UserError(f"{font}: does not draw {char!r} (expected a colour emoji font)")
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    gray = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    # Where it is nearly black, what colour it is says nothing.
    chroma = (pixels[..., (0, 2)] - gray[..., None]) / np.maximum(gray, 0.15)[..., None]
    return Drawing(_stretch(gray[box], alpha[box]), alpha[box].copy(), chroma[box].transpose(2, 0, 1).copy())
