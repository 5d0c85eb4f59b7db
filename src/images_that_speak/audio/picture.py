"""Reading and writing the picture. What is seen is what is played: 8-bit luminance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from ..files import atomic_path
from .mel import MEL

SHAPE = (MEL.n_mels, MEL.frames)
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
    """Write a (256, 1024) picture as an 8-bit grayscale PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(quantise(picture)).save(temporary, format="PNG")


def read_picture(path: str | Path) -> np.ndarray:
    """Read a png or npy → (256, 1024) float32 in [0, 1].

    Colour is reduced to Rec. 601 luminance; npy holds floats in [0, 1] or uint8, the lowest frequency in
    the last row. Raises UserError naming the file on anything else.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such picture")
    if path.suffix == ".npy":
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
    else:
        try:
            with Image.open(path) as image:
                data = np.asarray(image.convert("L"), np.float32) / 255
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise UserError(f"{path}: not a readable picture ({error})") from error
    if data.shape != SHAPE:
        raise UserError(f"{path}: shape {data.shape} (expected {SHAPE}: 256 mel bands, 1024 frames)")
    if not np.isfinite(data).all():
        raise UserError(f"{path}: holds NaN or infinity (expected values in [0, 1])")
    if data.min() < -1e-3 or data.max() > 1 + 1e-3:
        raise UserError(f"{path}: values in [{data.min():.3g}, {data.max():.3g}] (expected [0, 1])")
    return np.clip(data, 0, 1).astype(np.float32)


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
