"""Phones with times → what sounds in each frame of the picture.

Frame f of F covers [f, f + 1) · seconds / F. With the mel spec's reflection (n_fft − hop)/2 its analysis
window is centred on the middle of that interval, so a frame belongs to the phone that sounds there.
F = 1024 gives the picture's 10 ms columns, F = 64 the columns of a 16× latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .phonemes import PAUSE, PHONE_IDS, UNKNOWN

if TYPE_CHECKING:
    from .tts import Phone

SECONDS = 10.24  # of one picture; MelSpec.seconds, restated so that this module needs no torch


def _times(phones: Sequence[Phone]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (L,) in seconds. Raises UserError when phones overlap, are out of order or negative."""
    starts = np.array([phone.start for phone in phones], np.float64)
    ends = np.array([phone.end for phone in phones], np.float64)
    bad = ~(ends >= starts)  # also true for NaN
    bad[1:] |= starts[1:] < ends[:-1] - 1e-6
    if len(bad) and (bad.any() or starts[0] < -1e-6):
        at = int(np.argmax(bad))
        raise UserError(f"phone {at} ({phones[at].symbol!r}, {starts[at]:.3f}–{ends[at]:.3f} s): "
                        "expected times in order, without overlap, from 0 s on")
    return starts, ends


def frame_phones(phones: Sequence[Phone], frames: int = 1024,
                 seconds: float = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Which phone sounds in each frame, and how far through it the frame lies.

    Returns ids (frames,) int64, indices into PHONES, and position (frames,) float32 in [0, 1): 0 where the
    phone begins. Frames that no phone covers are pauses; a pause's position is 0 throughout, since how long
    the silence around the speech lasts says nothing about it. A symbol outside PHONES gets the id of
    `<unk>`. Speech beyond `seconds` is not seen.
    """
    ids = np.array([PHONE_IDS.get(phone.symbol, PHONE_IDS[UNKNOWN]) for phone in phones], np.int64)
    owner, position = _owners(phones, frames, seconds)
    # No phone, -1, is the last of them: a pause.
    found = np.append(ids, PHONE_IDS[PAUSE])[owner]
    position[found == PHONE_IDS[PAUSE]] = 0
    return found, np.clip(position, 0, np.nextafter(np.float32(1), np.float32(0)))


def frame_index(phones: Sequence[Phone], frames: int = 1024, seconds: float = SECONDS) -> np.ndarray:
    """(frames,) int64: the index of the phone that sounds in each frame, -1 where none does."""
    return _owners(phones, frames, seconds)[0]


def _owners(phones: Sequence[Phone], frames: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """The index of each frame's phone, -1 in a gap, and how far through it or the gap the frame's middle
    lies."""
    starts, ends = _times(phones)
    # Gaps become pauses of their own: edges alternate gap, phone, gap, …, gap; empty gaps hold no frame.
    edges = np.concatenate([[0.0], np.stack([starts, ends], 1).ravel(), [max(seconds, *ends[-1:], 0.0)]])
    owner = np.full(2 * len(starts) + 1, -1, np.int64)
    owner[1::2] = np.arange(len(starts))
    centre = (np.arange(frames) + 0.5) * (seconds / frames)
    segment = np.clip(np.searchsorted(edges, centre, side="right") - 1, 0, len(owner) - 1)
    length = np.maximum(edges[segment + 1] - edges[segment], 1e-9)
    return owner[segment], ((centre - edges[segment]) / length).astype(np.float32)


def speech_activity(phones: Sequence[Phone], frames: int = 1024, seconds: float = SECONDS) -> np.ndarray:
    """The share of each frame in which a phone other than a pause sounds: (frames,) float32 in [0, 1]."""
    starts, ends = _times(phones)
    voiced = np.array([phone.symbol != PAUSE for phone in phones], np.float64)
    edges = np.concatenate([[0.0], np.stack([starts, ends], 1).ravel()])
    spoken = np.concatenate([[0.0], np.stack([np.zeros(len(voiced)), voiced * (ends - starts)], 1).ravel()])
    # Seconds of speech up to time t, read at the frame edges; its differences are exact overlaps.
    total = np.interp(np.arange(frames + 1) * (seconds / frames), edges, np.cumsum(spoken))
    return np.clip(np.diff(total) * (frames / seconds), 0, 1).astype(np.float32)
