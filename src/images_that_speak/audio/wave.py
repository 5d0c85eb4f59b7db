"""Reading and writing sound: mono, 16 kHz."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from ..errors import UserError
from ..files import atomic_write
from .mel import MEL


def read_wave(path: str | Path, sample_rate: int = MEL.sample_rate) -> np.ndarray:
    """Read wav or flac → (T,) float32 in [-1, 1].

    Raises UserError naming the file when it is missing, broken, stereo, empty or of another rate.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such sound file")
    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable sound file ({error})") from error
    if rate != sample_rate:
        raise UserError(f"{path}: sampling rate {rate} Hz (expected {sample_rate} Hz)")
    if wave.shape[1] != 1:
        raise UserError(f"{path}: {wave.shape[1]} channels (expected mono)")
    if not len(wave) or not np.isfinite(wave).all():
        raise UserError(f"{path}: {'no samples' if not len(wave) else 'holds NaN or infinity'}")
    return wave[:, 0]


def write_wave(path: str | Path, wave: np.ndarray, sample_rate: int = MEL.sample_rate) -> None:
    """Write (T,) float as PCM16, FLAC where `path` ends in it; what exceeds [-1, 1] is turned down whole.

    Raises UserError on a wave that is not finite: as 16-bit numbers NaN is −1, and a sound like another.
    """
    kind = "FLAC" if Path(path).suffix == ".flac" else "WAV"
    # soundfile reports a full disk as an error of its own, without a cause; plain bytes tell the truth.
    atomic_write(path, wave_bytes(wave, path, sample_rate, kind))


def wave_bytes(wave: np.ndarray, where: object, sample_rate: int = MEL.sample_rate,
               kind: str = "WAV") -> bytes:
    """What a file of (T,) float holds, PCM16. Raises UserError as `write_wave`.

    Bright pictures play up to 30 times as loud as a file can hold: clipped, every word would rattle.
    """
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise UserError(f"{where}: a sound of shape {wave.shape}"
                        + (", with NaN or infinity" if not np.isfinite(wave).all() else "")
                        + " (expected finite mono samples); not written")
    file, peak = BytesIO(), np.abs(wave).max(initial=1)
    soundfile.write(file, wave / peak, sample_rate, subtype="PCM_16", format=kind)
    return file.getvalue()


def as_stored(wave: np.ndarray) -> np.ndarray:
    """(T,) float32: what a file that `write_wave` makes of `wave` holds: turned down, of 16 bits."""
    return soundfile.read(BytesIO(wave_bytes(wave, "wave")), dtype="float32")[0]
