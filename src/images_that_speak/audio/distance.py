"""How far one sound is from another, or from the picture it was played from.

All but PESQ and STOI are differentiable.
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..packages import how
from .mel import MEL, LogMel

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))  # FFT and hop, in samples
DECIBELS = 20 / math.log(10)  # in a nat of magnitude


def multi_resolution_stft_distance(made: Tensor, real: Tensor,
                                   resolutions: tuple[tuple[int, int], ...] = RESOLUTIONS,
                                   floor: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Multi-resolution STFT distance of waves (B, T) (Yamamoto et al. 2020), averaged over resolutions.

    Returns the spectral convergence ‖|X| − |Y|‖ / ‖|X|‖ (mean over the batch), and the mean absolute
    difference of log magnitudes in nats, both scalars, 0 for equal sounds.
    """
    convergence, logarithm = [], []
    for n_fft, hop in resolutions:
        window = torch.hann_window(n_fft, device=made.device)
        x, y = (torch.stft(wave.float(), n_fft, hop, window=window, return_complex=True)
                for wave in (real, made))
        # A bare |·| has no gradient at 0, where silence lies.
        x, y = ((z.real**2 + z.imag**2).clamp(min=floor**2).sqrt() for z in (x, y))
        convergence.append(((x - y).norm(dim=(1, 2)) / x.norm(dim=(1, 2))).mean())
        logarithm.append((x.log() - y.log()).abs().mean())
    return torch.stack(convergence).mean(), torch.stack(logarithm).mean()


def mel_error(wave: Tensor, logmel: Tensor, analysis: LogMel) -> Tensor:
    """Mean |mel(wave) − logmel| in nats: wave (B, F · hop), logmel (B, n_mels, F). 1 nat is 8.7 dB."""
    return (analysis(wave) - logmel.float()).abs().mean()


def mel_cepstral_distortion(made: Tensor, real: Tensor, order: int = 13, within: float = 50.0,
                            analysis: LogMel | None = None) -> Tensor:
    """Mel-cepstral distortion in dB (Kubichek 1993) of waves (B, T), a scalar: 0 for equal sounds.

    MCD = 10/ln 10 · sqrt(2 Σ_k (c_k − c'_k)²), k = 1 … `order`, the mean over frames. The cepstrum is the
    cosine transform of our 256-band log-mel, so that this is the root mean square difference of the two
    spectra in dB after smoothing over frequency, without their loudness (k = 0). Vocoders keep time, so there
    is no time warping. Only frames count whose loudest band in `real` lies `within` so many dB of the
    clip's loudest: in silence there is no spectrum to be true to.
    """
    analysis = (analysis or LogMel()).to(real.device)
    truth, found = analysis(real), analysis(made)  # (B, n_mels, F)
    apart = mel_cepstrum(found - truth, order)
    distortion = DECIBELS / 2 * (2 * apart.square().sum(1)).clamp(min=1e-12).sqrt()
    loudest = truth.amax(1)
    heard = loudest >= loudest.amax(1, keepdim=True) - within / DECIBELS
    return distortion[heard].mean()


def mel_cepstrum(logmel: Tensor, order: int = 13) -> Tensor:
    """(B, n_mels, F) in nats → (B, order, F): c_k of log|H(θ)| = c_0 + Σ c_k cos(kθ), k = 1 … `order`."""
    n = logmel.shape[1]
    place = (torch.arange(n, device=logmel.device) + 0.5) / n
    k = torch.arange(1, order + 1, device=logmel.device)
    return 2 / n * torch.cos(math.pi * k[:, None] * place).to(logmel) @ logmel


def warped_cepstral_distortion(made: Tensor, real: Tensor, order: int = 13,
                               analysis: LogMel | None = None) -> float:
    """Mel-cepstral distortion in dB of two waves (1, T) and (1, S) along the best warping of time (MCD-DTW).

    As `mel_cepstral_distortion`, but for speech of another timing, and over all frames: the mean along the
    path of dynamic time warping whose sum is least.
    """
    analysis = (analysis or LogMel()).to(real.device)
    a, b = (mel_cepstrum(analysis(wave), order)[0].T.double() for wave in (made, real))
    apart = (a[:, None] - b[None]).square().sum(-1).sqrt()
    return DECIBELS / 2 * math.sqrt(2) * warped_mean(apart.cpu().numpy())


def warped_mean(cost: np.ndarray) -> float:
    """The mean of `cost` (N, M) along the monotone path from corner to corner whose sum is least.

    Steps go one forward in one or in both; a diagonal at a time, so that numpy does the work.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    length = np.zeros((n + 1, m + 1), int)
    total[0, 0] = 0
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        befores = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        sums = np.stack([total[before] for before in befores])
        best, at = sums.argmin(0), np.arange(len(i))
        total[i, j] = cost[i - 1, j - 1] + sums[best, at]
        length[i, j] = 1 + np.stack([length[before] for before in befores])[best, at]
    return float(total[n, m] / length[n, m])


def pesq(made: Tensor, real: Tensor) -> Tensor:
    """Wide-band PESQ (ITU-T P.862.2) of each of the waves (B, T) at 16 kHz: (B,), about 1 to 4.6.

    NaN where either holds no speech. Raises UserError when the package pesq is not installed.
    """
    _needs("pesq")
    from pesq import NoUtterancesError
    from torchmetrics.functional.audio.pesq import perceptual_evaluation_speech_quality as measure

    found = []
    for one, other in zip(made.detach().cpu().float(), real.detach().cpu().float(), strict=True):
        if not (one.any() and other.any()):  # it would divide by their peaks
            found.append(math.nan)
            continue
        try:
            found.append(float(measure(one, other, MEL.sample_rate, "wb")))
        except NoUtterancesError:
            found.append(math.nan)
    return torch.tensor(found)


def stoi(made: Tensor, real: Tensor) -> Tensor:
    """Short-time objective intelligibility (Taal et al. 2011) of the waves (B, T) at 16 kHz: (B,), at most 1.

    NaN where `real` holds too little speech to tell (0.4 s). Raises UserError when the package pystoi is not
    installed.
    """
    _needs("pystoi")
    import warnings

    from torchmetrics.functional.audio.stoi import short_time_objective_intelligibility as measure

    found = []
    for one, other in zip(made.detach().cpu().float(), real.detach().cpu().float(), strict=True):
        if not other.any():
            found.append(math.nan)
            continue
        # pystoi warns and returns 1e-5 where too little is left after silent frames are dropped.
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                found.append(float(measure(one, other, MEL.sample_rate)))
            except RuntimeWarning:
                found.append(math.nan)
    return torch.tensor(found)


def available(package: str) -> bool:
    """Whether `pesq` or `pystoi` is installed."""
    return find_spec(package) is not None


def _needs(package: str) -> None:
    if not available(package):
        raise UserError(f"the package {package} is not installed ({how('quality')} brings it)")
