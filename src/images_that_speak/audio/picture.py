"""Reading and writing the picture. What is seen is what is played: 8-bit luminance on the mel grid.

A picture of any size is a message: its luminance, averaged over blocks down to 256 rows and as many columns
as its shape asks for (square cells), 100 a second. Chroma, and all that is finer than the grid, is free.
Generating, evaluating, reports and the demo all read pictures here.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from ..files import atomic_path
from .lattice import find_grid, read_cells, whole_print
from .mel import MEL

SHAPE = (MEL.n_mels, MEL.frames)
LONGEST = 6000  # frames that are played of one picture: a minute
SMALLEST = 8  # pixels of a side
ENOUGH = 2048  # pixels of the shorter side: of more, means over blocks are taken first, to bound the memory
LARGEST = 100_000_000  # pixels of a file that is not a jpg, which are read smaller
# What Pillow's readers raise on files that are not what they claim to be.
BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError,
          OverflowError, struct.error, zlib.error)
# Files that show a picture once more, coloured, mapped to colours or with a frame: by their name, or by the
# end of it. A picture of anyone may well be called x_colour.png, and we write none.
COPIES = ("colour", "spectrogram", "spec", "video")
ENDINGS = ("_spectrogram", "_spec", "_video")


def quantise(picture: np.ndarray) -> np.ndarray:
    """Picture in [0, 1] (any shape) → uint8 of the same shape; uint8 passes through.

    Raises UserError on NaN or infinity, which would otherwise become silence without a word.
    """
    picture = np.asarray(picture)
    if picture.dtype == np.uint8:
        return picture
    if not np.isfinite(picture).all():
        raise UserError("picture: holds NaN or infinity (expected values in [0, 1])")
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def is_copy(path: Path) -> bool:
    """Whether a file is, by its name, another picture shown once more."""
    return path.stem in COPIES or path.stem.endswith(ENDINGS)


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture, (H, W) or (H, W, 3), as an 8-bit PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(quantise(picture)).save(temporary, format="PNG", compress_level=4)


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 → (H, W) uint8 Rec. 601 luminance, to the bit as Pillow converts a picture to "L"."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((pixels.astype(np.uint32) @ weights + 32768) >> 16).astype(np.uint8)


def to_grid(brightness: np.ndarray, frames: int | None = None) -> np.ndarray:
    """(H, W) brightness → (256, F) float32: the mean of each cell, cells that cut through pixels included.

    frames: F; None gives cells as high as they are wide, F = W · 256 / H rounded.
    """
    height, width = brightness.shape
    frames = frames or max(1, round(width * MEL.n_mels / height))
    if height % MEL.n_mels == 0 and width == frames * (height // MEL.n_mels):
        times = height // MEL.n_mels
        blocks = brightness.reshape(MEL.n_mels, times, frames, times)
        return blocks.mean((1, 3), dtype=np.float64).astype(np.float32)
    return _cell_means(_cell_means(brightness, MEL.n_mels).T, frames).T.astype(np.float32)


def read_message(brightness: np.ndarray) -> np.ndarray:
    """(H, W) uint8 luminance of any picture → (256, F) float32 in [0, 1], what is played.

    The cells of a print are found by their lattice, wherever they are now; any other picture fills its grid.
    """
    level = brightness.astype(np.float32) / 255
    grid, plain = find_grid(level), to_grid(brightness) / 255
    if grid is None:
        return plain
    cells = plain if grid.is_plain(*level.shape) else read_cells(level, grid)
    message = whole_print(cells, grid.every)
    return plain if message is None else message


def _cell_means(values: np.ndarray, cells: int) -> np.ndarray:
    """(N, M) → (cells, M): means over `cells` equal parts of the first axis, by linear sums within pixels."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=np.float64)])
    edges = np.linspace(0, len(values), cells + 1)
    below = np.minimum(edges.astype(int), len(values) - 1)
    at = sums[below] + (edges - below)[:, None] * (sums[below + 1] - sums[below])
    return np.diff(at, axis=0) * (cells / len(values))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A still picture, opened and not yet read. Raises UserError naming the file and what is wrong."""
    if not path.is_file():
        raise UserError(f"{path}: no such picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                frames = int(getattr(image, "n_frames", 1))  # of Pillow's readers, not all know them
                if frames > 1 and image.format in ("GIF", "WEBP", "PNG"):
                    raise UserError(f"{path}: an animation of {frames} pictures (expected a still "
                                    "picture; save one of them)")
                if min(width, height) < SMALLEST:
                    raise UserError(f"{path}: {width}x{height} pixels (expected at least {SMALLEST} a side)")
                if image.format == "JPEG":
                    image.draft(None, (4 * MEL.frames, 4 * MEL.n_mels))
                elif width * height > LARGEST:
                    raise UserError(f"{path}: {width}x{height} pixels (expected at most "
                                    f"{LARGEST // 10**6} million; save it smaller)")
                yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: more pixels than can be read safely ({error})") from error
    except BROKEN as error:
        raise UserError(f"{path}: not a readable picture ({' '.join(str(error).split())[:200]})") from error


def read_pixels(path: str | Path, ground: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Read a picture → (H, W, 3) uint8, upright.

    Reads png, jpg, webp, tiff and what else Pillow does; palettes, CMYK and 16 bits are brought to 8-bit RGB
    and EXIF's orientation is applied. What is transparent shows `ground`; black is silence.
    Raises UserError naming the file on animations, broken files, and sizes out of range.
    """
    path = Path(path)
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if (factor := min(image.size) // ENOUGH) > 1 and image.mode in ("L", "RGB", "RGBA", "CMYK"):
            image = image.reduce(factor)
        if image.mode in ("F", "I") or image.mode.startswith("I;16"):
            return np.repeat(_deep_gray(path, image)[..., None], 3, -1)
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            below = Image.new("RGBA", image.size, (*ground, 255))
            image = Image.alpha_composite(below, image)
        return np.asarray(image.convert("RGB"))


def _deep_gray(path: Path, image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of a gray picture of 16 or 32 bits, or of floats in [0, 1]."""
    values = np.asarray(image, np.float64)
    if image.mode != "F":
        return np.round(values.clip(0, 65535) * (255 / 65535)).astype(np.uint8)
    if not np.isfinite(values).all() or values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise UserError(f"{path}: floats that are not all in [0, 1]")
    return quantise(values)


def read_picture(path: str | Path) -> np.ndarray:
    """Read the message of any picture → (256, F) float32 in [0, 1]: 8-bit luminance, averaged over cells.

    A png, jpg, webp or tiff of any size (see `read_pixels` and `to_grid`); or an npy of 256 rows, which holds
    floats in [0, 1] or uint8, the lowest frequency in the last row. Raises UserError naming the file on
    anything else, and on pictures that would play for more than a minute.
    """
    path = Path(path)
    data = _read_npy(path) if path.suffix.lower() == ".npy" else read_message(luminance(read_pixels(path)))
    if data.shape[1] > LONGEST:
        raise UserError(f"{path}: plays for {data.shape[1] * MEL.hop / MEL.sample_rate:.0f} s (expected at "
                        f"most {LONGEST * MEL.hop // MEL.sample_rate} s: a picture at most "
                        f"{LONGEST / 256:.0f} times as wide as high)")
    return data.astype(np.float32)


def _read_npy(path: Path) -> np.ndarray:
    """(256, F) in [0, 1] of an npy file. Raises UserError naming it."""
    if not path.exists():
        raise UserError(f"{path}: no such picture")
    try:
        data = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a readable npy file ({error})") from error
    if data.ndim == 3 and 1 in data.shape:
        data = data.squeeze()
    if data.dtype == np.uint8:
        data = data.astype(np.float32) / 255
    elif not np.issubdtype(data.dtype, np.floating):
        raise UserError(f"{path}: holds {data.dtype} (expected floats in [0, 1] or uint8)")
    if data.ndim != 2 or data.shape[0] != MEL.n_mels or not data.shape[1]:
        raise UserError(f"{path}: shape {data.shape} (expected ({MEL.n_mels}, frames), "
                        f"{MEL.n_mels} mel bands)")
    if not np.isfinite(data).all():
        raise UserError(f"{path}: holds NaN or infinity (expected values in [0, 1])")
    if data.min() < -1e-3 or data.max() > 1 + 1e-3:
        raise UserError(f"{path}: values in [{data.min():.3g}, {data.max():.3g}] (expected [0, 1])")
    return quantise(data).astype(np.float32) / 255


# Rows are powers of the brightness, columns red, green, blue: a fit of matplotlib's inferno, which needs no
# plotting library to be installed for one picture.
INFERNO = np.array([
    [0.000219, 0.001651, -0.019481], [0.106513, 0.563956, 3.932712], [11.602493, -3.972854, -15.942394],
    [-41.703996, 17.436399, 44.354145], [77.162936, -33.402359, -81.807309],
    [-71.319428, 32.626064, 73.20952], [25.131126, -12.242669, -23.070325]])


def colour_map(picture: np.ndarray) -> Image.Image:
    """A (256, 1024) picture as a colour-mapped spectrogram (inferno)."""
    levels = (np.arange(256) / 255)[:, None] ** np.arange(len(INFERNO))
    return Image.fromarray(quantise(levels @ INFERNO)[quantise(picture)])
