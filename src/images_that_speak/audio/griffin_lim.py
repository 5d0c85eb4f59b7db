"""Griffin-Lim: sound from a log-mel without any weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.transforms import GriffinLim as Iterations

from .mel import MEL, MelSpec
from .vocoder_base import Vocoder, inverse_filters


class GriffinLim(Vocoder):
    """Fast Griffin-Lim (Perraudin et al. 2013) on the magnitudes the filterbank's pseudo-inverse gives.

    Args:
        iterations: at least 1. 32 take about a tenth of the sound's duration on one CPU core.
        momentum: in [0, 1); 0 is the original algorithm.
        seed: of the first phases. Every clip of every call starts from the same ones, so a clip's sound
            does not depend on its batch.
    """

    architecture = "griffin_lim"
    trained = False
    inverse: Tensor  # (n_fft/2+1, n_mels)

    def __init__(self, iterations: int = 32, momentum: float = 0.99, seed: int = 0, spec: MelSpec = MEL):
        super().__init__()
        self.spec, self.seed = spec, seed
        self.config = {"iterations": iterations, "momentum": momentum, "seed": seed}
        self.register_buffer("inverse", inverse_filters(spec), persistent=False)
        self.iterations = Iterations(spec.n_fft, iterations, spec.win, spec.hop, power=1, momentum=momentum)

    def magnitude(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) log-mel → (B, n_fft/2+1, F) magnitudes; what lies at the floor is silence."""
        mel = torch.where(logmel <= self.spec.log_floor + 1e-4, 0.0, logmel.float().exp())
        return (self.inverse @ mel).clamp(min=0)

    def forward(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) → (B, F · hop)."""
        self.check_logmel(logmel)
        hop, frames = self.spec.hop, logmel.shape[2]
        magnitude = self.magnitude(logmel)
        # A frame of ours is centred half a hop after where torchaudio, which centres frame t at t · hop,
        # puts it. One more frame at either end makes room to cut that half hop off without losing sound.
        magnitude = torch.cat([magnitude[..., :1], magnitude, magnitude[..., -1:]], dim=-1)
        waves = []
        devices = [magnitude.device] if magnitude.device.type == "cuda" else []
        for clip in magnitude:
            with torch.random.fork_rng(devices):
                torch.manual_seed(self.seed)
                waves.append(self.iterations(clip))
        return torch.stack(waves)[:, hop // 2: hop // 2 + frames * hop]
