"""How far one sound is from another, or from the picture it was played from. Differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from .mel import LogMel

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))  # FFT and hop, in samples


def stft_distance(made: Tensor, real: Tensor, resolutions: tuple[tuple[int, int], ...] = RESOLUTIONS,
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
