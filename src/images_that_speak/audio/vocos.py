"""A vocoder that works at the frame rate and leaves the upsampling to the inverse Fourier transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import fold

from .vocoder_base import Vocoder, inverse_filters


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, then two dense layers on every frame, with a shortcut. (B, C, F) → same."""

    def __init__(self, channels: int, hidden: int, scale: float):
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).mT)
        y = self.contract(nn.functional.gelu(self.expand(y))) * self.scale
        return x + y.mT


class Vocos(Vocoder):
    """Vocos (Siuzdak 2023) for our mel: ConvNeXt blocks, then magnitude and phase of a windowed FFT.

    The head's FFT has the mel's window and its frames, so the filterbank's pseudo-inverse is a first guess
    of its magnitudes; the network adds a correction to their logarithm and finds the phases.

    Args:
        dim: channels. layers: blocks. expansion: hidden channels of a block, in multiples of `dim`.
    """

    architecture = "vocos"
    inverse: Tensor  # (win/2+1, n_mels)
    window: Tensor

    def __init__(self, dim: int = 192, layers: int = 6, expansion: int = 3):
        super().__init__()
        self.config: dict[str, Any] = {"dim": dim, "layers": layers, "expansion": expansion}
        spec = self.spec
        self.embed = nn.Conv1d(spec.n_mels, dim, 7, padding=3)
        self.norm_in = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, dim * expansion, 1 / layers) for _ in range(layers))
        self.norm_out = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, spec.win + 2)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        # The mel's FFT is the window zero-padded to n_fft, so every n_fft/win-th bin is one of the head's.
        inverse = inverse_filters(spec)[:: spec.n_fft // spec.win].clone()
        self.register_buffer("inverse", inverse, persistent=False)
        self.register_buffer("window", torch.hann_window(spec.win), persistent=False)

    def forward(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) → (B, F · hop)."""
        self.check_logmel(logmel)
        # Nats over 17 powers of e are brought to about [-1, 1].
        x = self.embed((logmel - self.spec.log_floor) / self.spec.log_range * 2 - 1)
        x = self.norm_in(x.mT).mT
        for block in self.blocks:
            x = block(x)
        correction, phase = self.head(self.norm_out(x.mT)).mT.float().chunk(2, dim=1)
        with torch.autocast(logmel.device.type, enabled=False):
            guess = (self.inverse @ logmel.float().exp()).clamp(min=1e-6)
            magnitude = guess * correction.clamp(-6, 6).exp()
            return self.overlap_add(torch.polar(magnitude, phase))

    def overlap_add(self, spectrum: Tensor) -> Tensor:
        """(B, win/2+1, F) complex → (B, F · hop); frame t is centred on (t + ½) · hop, like the mel's."""
        win, hop, frames = self.spec.win, self.spec.hop, spectrum.shape[2]
        parts = torch.fft.irfft(spectrum, win, dim=1) * self.window[:, None]
        length = (frames - 1) * hop + win
        square = (self.window**2)[None, :, None].expand(1, -1, frames)

        def lay(x: Tensor) -> Tensor:
            return fold(x, (1, length), (1, win), stride=(1, hop))[:, 0, 0]

        edge = (win - hop) // 2
        return (lay(parts) / lay(square).clamp(min=1e-6))[:, edge: edge + frames * hop]
