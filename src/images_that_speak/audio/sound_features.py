"""A sound of any kind as one vector: what a picture is drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torchaudio.transforms import MFCC

from ..errors import UserError
from .mel import MEL

QUIET = 1e-4  # peak below which a sound is silence
SHORTEST = 0.05  # seconds; a dog of Scratch's barks for 0.14


def sound_checked(wave: np.ndarray, where: object) -> np.ndarray:
    """(T,) float32 at 16 kHz with a peak of 0.9, for loudness is no part of what sounds.

    Raises UserError naming `where` when the wave is not (T,), not finite, silent or shorter than 0.05 s.
    """
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise UserError(f"{where}: a sound of shape {wave.shape} (expected (samples,))")
    if len(wave) < SHORTEST * MEL.sample_rate:
        raise UserError(f"{where}: {len(wave) / MEL.sample_rate:.2f} s long (expected at least {SHORTEST} s)")
    if not np.isfinite(wave).all():
        raise UserError(f"{where}: holds NaN or infinity")
    if (peak := float(np.abs(wave).max())) < QUIET:
        raise UserError(f"{where}: is silent (peak {peak:.1g} of 1)")
    return wave * np.float32(0.9 / peak)


class SoundFeatures(ABC):
    """A sound → (`size`,) float32. `name` is kept with what learnt from it, which then wants no other."""

    name: ClassVar[str]
    size: ClassVar[int]

    @abstractmethod
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """(T,) at 16 kHz, as `sound_checked` gives it → (`size`,) float32."""


class MeanMFCC(SoundFeatures):
    """104 mel-frequency cepstral coefficients, the mean over time.

    Of 128 mel bands in decibels, windows of 64 ms every 10 ms, at 16 kHz. Only their number is published; how
    time is summed up, and the bands, are our choice.
    """

    name = "mfcc"
    size = 104

    def __init__(self) -> None:
        self.transform = MFCC(MEL.sample_rate, self.size, melkwargs={
            "n_fft": MEL.win, "hop_length": MEL.hop, "n_mels": 128})

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        wave = np.pad(wave, (0, max(0, MEL.win - len(wave))))
        return self.transform(torch.from_numpy(wave)).mean(1).numpy()


def windows(wave: np.ndarray, seconds: float, rate: float) -> Sequence[np.ndarray]:
    """The parts of (T,) that are heard while each frame of a video is seen: `rate` a second, each `seconds`
    long around the frame's middle where the sound reaches so far."""
    size = min(len(wave), round(seconds * MEL.sample_rate))
    middles = (np.arange(max(1, round(rate * len(wave) / MEL.sample_rate))) + 0.5) * MEL.sample_rate / rate
    starts = np.clip(middles - size / 2, 0, len(wave) - size).astype(int)
    return [wave[start: start + size] for start in starts]
