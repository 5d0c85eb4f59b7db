"""What a sound may be otherwise and still be of the same thing: pitch, room, recorder, surroundings."""

from __future__ import annotations

import numpy as np

from .mel import MEL

RATE = MEL.sample_rate


def augmented(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) at 16 kHz → another such sound with a peak of 0.9, drawn from `rng` alone.

    A part of at least 60 % (where that is longer than 0.3 s), up to three semitones higher or lower and as
    much faster or slower, mixed with itself at another time in one of four, reverberated (0.1 to 0.8 s, in
    one of two), tilted by up to 4 dB an octave as by another recorder, with noise 10 to 35 dB below it.
    """
    size = max(min(len(wave), round(0.3 * RATE)), round(len(wave) * rng.uniform(0.6, 1)))
    start = int(rng.integers(0, len(wave) - size + 1))
    wave = wave[start: start + size].astype(np.float64)
    factor = 2 ** (rng.uniform(-3, 3) / 12)
    wave = np.interp(np.arange(0, len(wave) - 1, factor), np.arange(len(wave)), wave)
    if rng.random() < 0.25:
        wave = wave + rng.uniform(0.3, 0.8) * np.roll(wave, int(rng.integers(len(wave))))
    if rng.random() < 0.5:
        seconds = rng.uniform(0.1, 0.8)
        room = rng.normal(size=round(seconds * RATE)) * 10 ** (-3 * np.linspace(0, 1, round(seconds * RATE)))
        room *= rng.uniform(0.1, 0.5) / np.sqrt((room**2).sum())
        room[0] = 1
        size = len(wave) + len(room) - 1
        wave = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(room, size), size)
    wave = tilted(wave, rng.uniform(-4, 4))
    noise = tilted(rng.normal(size=len(wave)), rng.choice([0, -3, -6]))
    level = np.sqrt((wave**2).mean() / (noise**2).mean()) * 10 ** (-rng.uniform(10, 35) / 20)
    wave = wave + level * noise
    return (wave * 0.9 / max(np.abs(wave).max(), 1e-9)).astype(np.float32)


def tilted(wave: np.ndarray, slope: float) -> np.ndarray:
    """A wave whose spectrum is `slope` decibels an octave steeper, from 60 Hz on."""
    hertz = np.maximum(np.fft.rfftfreq(len(wave), 1 / RATE), 60)
    return np.fft.irfft(np.fft.rfft(wave) * 10 ** (slope * np.log2(hertz / 1000) / 20), len(wave))
