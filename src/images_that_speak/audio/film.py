"""A film with sound: H.264 and AAC in an mp4, by PyAV, whose wheel brings its own ffmpeg."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_path
from ..packages import how

# Hz that AAC knows, as far as there is a use for them; sounds of another rate are brought to 48 kHz.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
BT709 = 1  # ffmpeg's number for the colours that players take for granted


def write_film(path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], frame_rate: int,
               wave: np.ndarray, rate: int, comment: str = "") -> None:
    """Write `frames`, (H, W, 3) uint8 each, of an even `size` (W, H), and a sound (T,) at `rate` Hz.

    comment: kept in the file. Raises UserError when PyAV is not installed or the file cannot be written.
    """
    av = load_av()
    with atomic_path(path) as temporary, av.open(
            str(temporary), "w", options={"movflags": "faststart"}) as container:
        container.metadata["comment"] = comment
        video = container.add_stream("libx264", rate=frame_rate, options={"crf": "18", "preset": "fast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        coded = video.codec_context
        coded.colorspace = coded.color_primaries = coded.color_trc = BT709
        heard = rate if rate in RATES else 48_000
        audio = container.add_stream("aac", rate=heard, layout="mono", options={"b": "96k"})
        sound = av.AudioFrame.from_ndarray(np.asarray(wave, np.float32)[None], "fltp", "mono")
        sound.sample_rate, sound.pts = rate, 0
        resampler = av.AudioResampler("fltp", "mono", heard)
        for part in (*resampler.resample(sound), *resampler.resample(None), None):
            container.mux(audio.encode(part))
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            container.mux(video.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(video.encode(None))


def load_av() -> Any:
    """PyAV. Raises UserError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(f"videos need PyAV: {how('video')}") from error
    return av
