"""What Whisper's encoder makes of a sound: a pretrained embedding for sounds that are no speech.

It learnt from 680 000 hours of whatever is on the web, so that it tells sounds apart that it was never asked
about (Gong et al. 2023, Whisper-AT).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..audio.mel import MEL
from ..audio.sound_features import MeanMFCC, SoundFeatures
from ..packages import need
from .faster_whisper import FasterWhisperReader

WINDOW = 10 * MEL.sample_rate  # samples that the encoder is given: of 30 s it takes eight times as long


class WhisperEmbedding(SoundFeatures):
    """The MFCC, and Whisper base's encoder: 512 numbers, the mean over 10 s of the sound again and again.

    Takes a quarter of a second of one core for a sound of any length.

    Raises:
        UserError: where the packages that carry Whisper base are missing (named).
    """

    name = "mfcc_whisper"
    size = MeanMFCC.size + 512

    def __init__(self) -> None:
        need("faster_whisper", where="data.features")
        self.mfcc = MeanMFCC()

    @cached_property
    def model(self) -> Any:
        """faster-whisper's model."""
        return FasterWhisperReader().model

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        again = np.tile(wave, WINDOW // len(wave) + 1)[:WINDOW]
        mel = self.model.feature_extractor(again, padding=0)[:, :WINDOW // MEL.hop]
        encoded = np.asarray(self.model.encode(mel)).astype(np.float32)[0]
        return np.concatenate([self.mfcc(wave), encoded.mean(0)]).astype(np.float32)


FEATURES = {kind.name: kind for kind in (MeanMFCC, WhisperEmbedding)}
