"""How high a voice speaks, frame by frame.

Phonemes and their times leave it open, and nearly all of the fine structure of a picture of speech is its
harmonics: told the pitch, a network need not invent one for every patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..audio.mel import MEL
from ..packages import need
from .alignment import frame_phones
from .phonemes import PHONE_IDS, VOWELS
from .tts import Phone

VOICED = VOWELS | frozenset("b d dh g jh l m n ng r v w y z zh".split())
LOWEST, HIGHEST = 60.0, 350.0  # Hz that a voice may have
FAR = 0.35  # octaves from the clip's median at which an estimate is taken for an error


def pitch_contour(wave: np.ndarray, phones: Sequence[Phone]) -> np.ndarray:
    """(163840,) float32 at 16 kHz, and what sounds in it → (1024,) float32 Hz, never 0.

    YIN (de Cheveigné and Kawahara 2002) where a voiced phone sounds, errors of an octave and single frames
    left out; between and beside these it is interpolated in ln Hz. A clip without any has `LOWEST`.
    Raises UserError without librosa.
    """
    need("librosa", where="pitch of a corpus (data.train.pitch=null does without)")
    from librosa import yin

    found = yin(wave, fmin=LOWEST, fmax=HIGHEST, sr=MEL.sample_rate, frame_length=MEL.win,
                hop_length=MEL.hop)[:MEL.frames]
    voiced = np.isin(frame_phones(phones, MEL.frames)[0], [PHONE_IDS[phone] for phone in VOICED])
    if not voiced.any():
        return np.full(MEL.frames, LOWEST, np.float32)
    octaves = np.log2(found)
    near = np.abs(octaves - np.median(octaves[voiced])) < FAR
    at = np.flatnonzero(voiced & near)
    values = octaves[at]
    # A median of five voiced frames: a lone error goes, a glide stays.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5)
    # A frame is centred on its hop here, half a hop later in a picture.
    return (2 ** np.interp(np.arange(MEL.frames) + 0.5, at, np.median(windows, -1))).astype(np.float32)
