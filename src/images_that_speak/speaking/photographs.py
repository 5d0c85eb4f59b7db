"""Photographs: any file → pixels of the shape that the speech asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageFilter

from ..audio.mel import MEL
from ..audio.picture import read_pixels
from ..errors import UserError, nearest
from ..values import ENDINGS_READ

FITS = ("auto", "crop", "pad", "stretch")
PLAIN = 0.7  # share of a border that has one colour where that is the ground
ENOUGH = 0.6  # share of a photograph that a crop must leave, for fit=auto to crop
ROOM = 0.92  # share of the frame that a thing on a plain ground fills
LEAST = 32  # pixels of a side
ROWS = tuple(MEL.n_mels * times for times in (1, 2, 3, 4))


@dataclass(frozen=True)
class Framing:
    """How a photograph becomes a picture of a given shape.

    rows: of the picture, a multiple of 256; detail finer than 256 rows is seen and not heard.
    fit: "crop" cuts what is too much; "pad" shows all of it on a blurred copy of itself; "stretch" distorts;
        "auto" crops while 60 % of the photograph stay, and else pads, as it does what is on a plain ground.
    focus: the point that a crop keeps in the middle where it can, shares of width and height.
    ground: what shows where the photograph is transparent, any colour that CSS knows.
    """

    rows: int = 512
    fit: str = "auto"
    focus: tuple[float, float] = (0.5, 0.4)
    ground: str = "gray"

    def __post_init__(self) -> None:
        wrong = []
        if self.rows not in ROWS:
            wrong.append(f"picture.rows={self.rows}: expected one of {', '.join(map(str, ROWS))}")
        if self.fit not in FITS:
            wrong.append(f"picture.fit={self.fit}: expected one of {', '.join(FITS)}."
                         f"{nearest(self.fit, FITS)}")
        if len(self.focus) != 2 or not all(0 <= share <= 1 for share in self.focus):
            wrong.append(f"picture.focus={list(self.focus)}: expected two shares, of width and height, "
                         "0 to 1")
        try:
            ImageColor.getrgb(self.ground)
        except ValueError:
            wrong.append(f"picture.ground={self.ground}: expected a colour such as gray, white or #2060a0")
        if wrong:
            raise UserError("\n".join(wrong))

    def read(self, path: Path) -> np.ndarray:
        """(H, W, 3) uint8, upright. Raises UserError naming the file, also on fewer than 32 pixels a side."""
        red, green, blue = ImageColor.getrgb(self.ground)[:3]
        pixels = read_pixels(path, (red, green, blue))
        if min(pixels.shape[:2]) < LEAST:
            raise UserError(f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels (expected at least {LEAST} "
                            "a side, to show something)")
        return pixels

    def own_frames(self, pixels: np.ndarray) -> int:
        """The columns of the mel grid that a photograph fills in its own shape, at most a picture's."""
        return min(MEL.frames, max(1, round(MEL.n_mels * pixels.shape[1] / pixels.shape[0])))

    def kept(self, pixels: np.ndarray, frames: int) -> float:
        """The share of a photograph that is left when it is cropped to `frames` columns."""
        ratio = (frames / MEL.n_mels) / (pixels.shape[1] / pixels.shape[0])
        return min(ratio, 1 / ratio)

    def framed(self, pixels: np.ndarray, frames: int) -> np.ndarray:
        """(H, W, 3) uint8 → (rows, frames · rows / 256, 3) float32 in [0, 1]."""
        size = (frames * self.rows // MEL.n_mels, self.rows)
        image = Image.fromarray(pixels)
        ground = plain_ground(pixels)
        whole = self.kept(pixels, frames) < ENOUGH or ground is not None
        fit = self.fit if self.fit != "auto" else "pad" if whole else "crop"
        if fit == "crop":
            image = self._cropped(image, size)
        elif fit == "pad":
            image = self._padded(image, size, ground)
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        return np.asarray(image, np.float32) / 255

    def _cropped(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        width, height = image.size
        scale = min(width / size[0], height / size[1])
        across, down = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        left = round(min(max(self.focus[0] * width - across / 2, 0), width - across))
        top = round(min(max(self.focus[1] * height - down / 2, 0), height - down))
        return image.crop((left, top, left + across, top + down))

    def _padded(self, image: Image.Image, size: tuple[int, int],
                ground: tuple[int, ...] | None) -> Image.Image:
        """All of it in the middle; beside it its plain ground, or a copy that fills the frame, blurred."""
        width, height = image.size
        scale = min(size[0] / width, size[1] / height) * (1 if ground is None else ROOM)
        inner = image.resize((max(1, round(width * scale)), max(1, round(height * scale))),
                             Image.Resampling.LANCZOS, reducing_gap=3)
        if ground is not None:
            outer = Image.new("RGB", size, ground)
        else:
            outer = self._cropped(image, size).resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
            outer = outer.filter(ImageFilter.GaussianBlur(size[1] / 24))
        outer.paste(inner, ((size[0] - inner.size[0]) // 2, (size[1] - inner.size[1]) // 2))
        return outer


def plain_ground(pixels: np.ndarray) -> tuple[int, ...] | None:
    """The colour of most of the border, within two levels, as cut-outs and drawings have it; else None.

    Most, for a cut-out may touch the edge of its file.
    """
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(int)
    ground = np.median(border, 0).round().astype(int)
    if (np.abs(border - ground).max(1) <= 2).mean() < PLAIN:
        return None
    return tuple(int(level) for level in ground)


def find_files(key: str, given: str, endings: tuple[str, ...]) -> list[Path]:
    """A file, or the files with one of `endings` in a folder, by name. Raises UserError naming the key."""
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(child for child in path.iterdir()
                       if child.suffix.lower() in endings and not child.name.startswith("."))
        if not found:
            raise UserError(f"{key}={given}: a folder without any {', '.join(endings)}")
        return found
    if not path.exists():
        beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{key}={given}: no such file or folder.{nearest(path.name, beside)}")
    return [path]


def find_photographs(given: str) -> list[Path]:
    """The photographs that `image` names."""
    return find_files("image", given, tuple(ending for ending in ENDINGS_READ if ending != ".npy"))
