"""From a message on the mel grid to a picture to look at, by colour and detail that leave it as it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..audio.mel import MEL

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601


def painted(message: np.ndarray, rgb: np.ndarray, detail: float = 1.0, saturation: float = 1.0) -> np.ndarray:
    """(256, F) message in [0, 1] and (256·k, F·k, 3) picture in [0, 1] → (256·k, F·k, 3) uint8.

    The picture gives its chroma and its detail within cells; the luminance of the result, averaged over cells
    of k × k pixels, is the message within one level.

    detail: share of the detail within cells that is kept. saturation: factor of the chroma.
    """
    times = rgb.shape[0] // MEL.n_mels
    gray = rgb @ LUMA
    luminance = detailed(message, gray, times, detail) if times > 1 else message.astype(np.float32)
    return coloured(luminance, saturation * (rgb - gray[..., None]))


def detailed(message: np.ndarray, gray: np.ndarray, times: int, share: float = 1.0) -> np.ndarray:
    """(H, W) message and (H·k, W·k) luminance → (H·k, W·k) whose means over cells are the message.

    The message is enlarged smoothly and mended until its means are right; within each cell as much of the
    picture's own detail is added as leaves all of it in [0, 1].
    """
    message = message.astype(np.float32)
    base = _enlarged(message, times)
    for _ in range(2):
        base += _enlarged(message - _means(base, times), times)
    base = _within(base, message, times)
    fine = gray - _enlarged(_means(gray, times), times)
    fine -= _repeated(_means(fine, times), times)
    return _within(base + share * fine, message, times)


def _within(picture: np.ndarray, message: np.ndarray, times: int) -> np.ndarray:
    """`picture` with the contrast of each cell lowered until it fits [0, 1], its mean being the message's."""
    height, width = message.shape
    cells = picture.reshape(height, times, width, times)
    mean = message[:, None, :, None]
    contrast = cells - cells.mean((1, 3), keepdims=True)
    most, least = contrast.max((1, 3), keepdims=True), contrast.min((1, 3), keepdims=True)
    room = np.minimum((1 - mean) / np.maximum(most, 1e-6), mean / np.maximum(-least, 1e-6))
    return (mean + contrast * np.minimum(room, 1)).reshape(picture.shape)


def _means(picture: np.ndarray, times: int) -> np.ndarray:
    height, width = picture.shape
    return picture.reshape(height // times, times, width // times, times).mean((1, 3))


def _repeated(picture: np.ndarray, times: int) -> np.ndarray:
    return picture.repeat(times, 0).repeat(times, 1)


def _enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    size = (picture.shape[1] * times, picture.shape[0] * times)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def coloured(luminance: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """(H, W) luminance in [0, 1] and (H, W, 3) chroma of no luminance → (H, W, 3) uint8.

    Where a colour would leave the cube it is paled towards gray, t·chroma with the largest t in [0, 1] that
    fits, so clipping never moves the luminance; rounding moves it by at most one level.
    """
    y = luminance[..., None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        room = np.where(chroma > 0, (1 - y) / chroma, np.where(chroma < 0, y / -chroma, np.inf)).min(-1)
    return np.round(255 * (y + chroma * np.clip(room, 0, 1)[..., None]).clip(0, 1)).astype(np.uint8)
