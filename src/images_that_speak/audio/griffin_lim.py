"""Griffin-Lim from phases that follow the spectral peaks: sound from a log-mel without any weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .mel import MEL, MelSpec
from .vocoder_base import Vocoder, inverse_filters


class GriffinLim(Vocoder):
    """Fast Griffin-Lim (Perraudin et al. 2013) on the magnitudes the filterbank's pseudo-inverse gives.

    It sets out from phases that go on from frame to frame as the nearest peak of the spectrum turns (single
    pass spectrogram inversion, Beauregard et al. 2015), not from random ones: 16 rounds come as close as 32
    of the usual kind. There is no chance in it, so a clip's sound does not depend on its batch.

    Args:
        iterations: at least 0. 16 take about a fiftieth of the sound's duration on one CPU core.
        momentum: in [0, 1); 0 is the original algorithm.
    """

    architecture = "griffin_lim"
    trained = False
    transform: int = MEL.n_fft  # samples: `n_fft`, or the window's own length
    inverse: Tensor  # (transform/2+1, n_mels)
    window: Tensor

    def __init__(self, iterations: int = 16, momentum: float = 0.99, spec: MelSpec = MEL):
        super().__init__()
        self.spec = spec
        self.config = {"iterations": iterations, "momentum": momentum}
        # The mel's transform is the window, padded with zeros: every other bin is one of half the length.
        inverse = inverse_filters(spec)[:: spec.n_fft // self.transform].contiguous()
        self.register_buffer("inverse", inverse, persistent=False)
        self.register_buffer("window", torch.hann_window(spec.win), persistent=False)

    def magnitude(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) log-mel → (B, transform/2+1, F) magnitudes; what lies at the floor is silence."""
        mel = torch.where(logmel <= self.spec.log_floor + 1e-4, 0.0, logmel.float().exp())
        return (self.inverse @ mel).clamp(min=0)

    def forward(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) → (B, F · hop)."""
        self.check_logmel(logmel)
        magnitude = self.magnitude(logmel).mT
        # One more frame at either end: what a sound fades out into is cut off.
        magnitude = torch.cat([magnitude[:, :1], magnitude, magnitude[:, -1:]], dim=1)
        begin, frames = (self.spec.win + self.spec.hop) // 2, logmel.shape[2]
        waves = [self.wave(clip)[begin: begin + frames * self.spec.hop] for clip in magnitude]
        return torch.stack(waves)

    def wave(self, magnitude: Tensor) -> Tensor:
        """(F, transform/2+1) magnitudes → the wave of (F − 1) · hop + win samples, or a little more."""
        rounds = Rounds(magnitude, self.window, self.spec)
        phases = torch.from_numpy(peak_phases(magnitude.cpu().numpy(), self.spec.hop)).to(magnitude.device)
        spectrum = torch.polar(magnitude, phases)
        momentum = self.config["momentum"] / (1 + self.config["momentum"])
        new, old = torch.empty_like(spectrum), torch.zeros_like(spectrum)
        for round in range(self.config["iterations"]):
            rounds.analyse(rounds.synthesise(spectrum), new)
            torch.add(new, old, alpha=-momentum if round else 0, out=spectrum)
            rounds.rescale(spectrum)
            new, old = old, new
        return rounds.synthesise(spectrum).clone()


class FastGriffinLim(GriffinLim):
    """The same with 8 rounds of a transform as long as the window: three times as fast, a little rougher."""

    architecture = "griffin_lim_fast"
    transform = MEL.win

    def __init__(self, iterations: int = 8, momentum: float = 0.9, spec: MelSpec = MEL):
        super().__init__(iterations, momentum, spec)


def peak_phases(magnitude: np.ndarray, hop: int) -> np.ndarray:
    """(F, K) magnitudes → (F, K) float32 phases of frames whose window begins with the transform.

    The frequency of a peak is that of the parabola through its logarithm and its neighbours'. Between two
    frames its phase advances by the mean of both frequencies. All bins between two valleys turn as their
    peak, and a peak that moves to another bin takes its phase along.
    """
    level = np.log(magnitude + 1e-7)
    frames, bins = level.shape
    index = np.arange(bins, dtype=np.int16)
    rises, falls = level[:, 1:-1] - level[:, :-2], level[:, 1:-1] - level[:, 2:]
    peaks, valleys = np.zeros((2, frames, bins), bool)
    peaks[:, 1:-1] = (rises >= 0) & (falls > 0)
    valleys[:, 1:-1] = (rises < 0) & (falls <= 0)
    frequency = np.zeros((frames, bins), np.float32) + index
    frequency[:, 1:-1] += np.clip((rises - falls) / (2 * (rises + falls) + 1e-9), -0.5, 0.5)

    def last(marks: np.ndarray) -> np.ndarray:
        return np.maximum.accumulate(np.where(marks, index, np.int16(-1)), axis=1)

    below = last(peaks)
    above = np.minimum.accumulate(np.where(peaks, index, np.int16(bins))[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where((last(valleys) > below) | (below < 0), above, below)
    nearest = np.where(nearest >= bins, below, nearest).clip(min=0).astype(np.intp)
    # Radians in half a hop.
    advance = np.take_along_axis(frequency, nearest, axis=1) * np.float32(np.pi * hop / (2 * bins - 2))
    phases, phase = np.empty((frames, bins), np.float32), np.zeros(bins, np.float32)
    before = advance[0]
    for frame in range(frames):
        phase = (phase + before)[nearest[frame]] + advance[frame]
        before, phases[frame] = advance[frame], phase
    # Within a peak the phases are equal about the middle of the window, which lies half a transform later.
    phases[:, 1::2] += np.float32(np.pi)
    return phases


class Rounds:
    """Overlapping frames of one clip and the sound that they add up to; all rounds use the same memory.

    magnitude: (F, transform/2+1). The window lies in the middle of the transform. A wave has (F + n) · hop
    samples, n the hops that a window reaches beyond its own.
    """

    def __init__(self, magnitude: Tensor, window: Tensor, spec: MelSpec):
        self.magnitude, self.window, self.spec = magnitude, window, spec
        self.frames = magnitude.shape[0]
        self.hops = -(-spec.win // spec.hop)
        self.transform = 2 * magnitude.shape[1] - 2
        begin = (self.transform - spec.win) // 2
        self.transformed = magnitude.new_zeros(self.frames, self.transform)
        self.inner = self.transformed[:, begin: begin + spec.win]
        self.padded = magnitude.new_zeros(self.frames, self.hops * spec.hop)
        self.sum = magnitude.new_zeros(self.frames + self.hops - 1, spec.hop)
        self.power = magnitude.new_empty(*magnitude.shape, 2)
        self.padded[:, :spec.win] = window**2
        self.weight = self._overlap_add().clone().clamp_(min=1e-6)

    def _overlap_add(self) -> Tensor:
        self.sum.zero_()
        for hop in range(self.hops):
            part = self.padded[:, hop * self.spec.hop: (hop + 1) * self.spec.hop]
            self.sum[hop: hop + self.frames] += part
        return self.sum

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """(F, transform/2+1) complex → the wave whose frames are nearest. The next overwrites it."""
        torch.fft.irfft(spectrum, self.transform, dim=1, out=self.transformed)
        torch.mul(self.inner, self.window, out=self.padded[:, :self.spec.win])
        return self._overlap_add().div_(self.weight).view(-1)

    def analyse(self, wave: Tensor, out: Tensor) -> None:
        """The spectrum of a wave's frames, into `out`, (F, transform/2+1) complex."""
        self.transformed.zero_()
        hop, win = self.spec.hop, self.spec.win
        torch.mul(wave[: (self.frames - 1) * hop + win].unfold(0, win, hop), self.window, out=self.inner)
        torch.fft.rfft(self.transformed, dim=1, out=out)

    def rescale(self, spectrum: Tensor) -> None:
        """Give a spectrum the magnitudes that are wanted, in place."""
        parts = torch.view_as_real(spectrum)
        torch.mul(parts, parts, out=self.power)
        scale = self.power.sum(-1).add_(1e-20).rsqrt_().mul_(self.magnitude)
        parts.mul_(scale[..., None])
