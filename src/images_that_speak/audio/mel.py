"""The one mel specification: waveform ↔ log-mel ↔ picture.

Corpus, training, vocoder and scoring share it; a checkpoint made for another is refused.
It is Auffusion's: magnitude (not power) mel with Slaney scale and norm, natural logarithm.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from ..errors import UserError
from ..files import content_hash


@dataclass(frozen=True)
class MelSpec:
    """What a picture's pixels mean. 10.24 s of 16 kHz sound are 256 × 1024 pixels."""

    sample_rate: int = 16_000
    n_fft: int = 2048
    hop: int = 160
    win: int = 1024
    n_mels: int = 256
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5  # log-mel of picture value 0
    ceil: float = 200.0  # log-mel of picture value 1
    frames: int = 1024

    @property
    def samples(self) -> int:
        """Samples in one picture."""
        return self.frames * self.hop

    @property
    def seconds(self) -> float:
        """Seconds in one picture."""
        return self.samples / self.sample_rate

    @property
    def padding(self) -> int:
        """Samples reflected at either end, so that T samples give T // hop frames."""
        return (self.n_fft - self.hop) // 2

    @property
    def log_floor(self) -> float:
        return math.log(self.floor)

    @property
    def log_range(self) -> float:
        """Nats from black to white: 16.81, or 146 dB."""
        return math.log(self.ceil / self.floor)

    @property
    def hash(self) -> str:
        """Identity of the specification, carried by every checkpoint and corpus."""
        return content_hash(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, other: dict[str, Any] | None, where: object) -> None:
        """Raise UserError, naming the differing keys, when `other` is not this specification."""
        other = other or {}
        mine = self.to_dict()
        differs = [f"{key}={other.get(key)!r} (expected {value!r})" for key, value in mine.items()
                   if other.get(key) != value]
        if differs:
            raise UserError(f"{where}: made for another mel spec: {', '.join(differs)}")


MEL = MelSpec()


class LogMel(nn.Module):
    """Waveform → natural-log mel magnitudes, differentiable, on any device.

    m = ln max(floor, F · sqrt(re² + im² + 1e-9)), F the Slaney filters, center=False after reflecting
    (n_fft − hop)/2 samples at either end.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, spec: MelSpec = MEL):
        super().__init__()
        self.spec = spec
        filters = melscale_fbanks(spec.n_fft // 2 + 1, spec.fmin, spec.fmax, spec.n_mels, spec.sample_rate,
                                  norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)  # (n_mels, n_fft/2+1)
        self.register_buffer("window", torch.hann_window(spec.win), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, T) in [-1, 1] → (B, n_mels, T // hop) in nats.

        Raises UserError when the wave is not (B, T), is not finite, or is shorter than the reflection.
        """
        spec = self.spec
        if wave.ndim != 2:
            raise UserError(f"waveform of shape {tuple(wave.shape)}: expected (batch, samples)")
        if wave.shape[1] <= spec.padding:
            raise UserError(f"waveform of {wave.shape[1]} samples: expected more than {spec.padding}")
        # bf16 or fp16 would round away quiet bands: the spectrum is always computed in float32 or better.
        wave = wave if wave.dtype == torch.float64 else wave.float()
        with torch.autocast(wave.device.type, enabled=False):
            wave = nn.functional.pad(wave[:, None], (spec.padding, spec.padding), mode="reflect")[:, 0]
            stft = torch.stft(wave, spec.n_fft, spec.hop, spec.win, self.window.to(wave), center=False,
                              return_complex=True)
            magnitude = (stft.real**2 + stft.imag**2 + 1e-9).sqrt()
            return (self.filters.to(magnitude) @ magnitude).clamp(min=spec.floor).log()


def band_frequencies(spec: MelSpec = MEL) -> Tensor:
    """(n_mels,) float32 Hz: where the weight of each band's filter is centred, lowest first."""
    usual = torch.get_default_dtype()
    # Modules that are loaded in half precision are made in it, and may ask for these while they are.
    torch.set_default_dtype(torch.float32)
    try:
        filters = LogMel(spec).filters
        hertz = torch.arange(filters.shape[1]) * (spec.sample_rate / spec.n_fft)
        return (filters @ hertz) / filters.sum(1)
    finally:
        torch.set_default_dtype(usual)


def logmel_to_picture(logmel: Tensor, spec: MelSpec = MEL) -> Tensor:
    """(…, n_mels, F) log-mel in nats → (…, n_mels, F) picture in [0, 1], low frequency at the bottom."""
    return ((logmel - spec.log_floor) / spec.log_range).clamp(0, 1).flip(-2)


def picture_to_logmel(picture: Tensor, spec: MelSpec = MEL) -> Tensor:
    """(…, n_mels, F) picture in [0, 1] → (…, n_mels, F) log-mel in nats, band 0 first."""
    return picture.flip(-2) * spec.log_range + spec.log_floor
