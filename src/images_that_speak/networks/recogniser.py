"""A small recogniser of phones: log-mel → how likely each phone sounds, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..audio.mel import MEL
from ..audio.vocos import ConvNeXtBlock
from ..errors import UserError
from ..files import atomic_path, read_json, write_json
from ..weights import finite

BLANK = 0
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class PhoneRecogniser(nn.Module):
    """Convolutions over time with the mel bands as channels, trained with CTC (Graves et al. 2006).

    It sees about half a second on either side of a frame and nothing of the rest of the clip, so what a
    picture shows elsewhere cannot confuse it.

    Args:
        symbols: what it tells apart; the first is CTC's blank, which also stands for silence and for sound
            that is no speech.
        dim: channels. layers: ConvNeXt blocks. expansion: hidden channels of a block, in multiples of `dim`.
        stride: mel frames an answer stands for; 2 are 20 ms.
        depth: nats below a clip's loudest cell at which everything is silence. What is told does not depend
            on loudness, nor on whether the silence around the words is digital.
    """

    def __init__(self, symbols: list[str], dim: int = 192, layers: int = 6, expansion: int = 3,
                 stride: int = 2, depth: float = 10.0):
        super().__init__()
        self.config: dict[str, Any] = {"symbols": list(symbols), "dim": dim, "layers": layers,
                                       "expansion": expansion, "stride": stride, "depth": depth}
        self.symbols, self.stride, self.depth = list(symbols), stride, depth
        self.embed = nn.Conv1d(MEL.n_mels, dim, 5, stride=stride, padding=2)
        self.norm_in = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, dim * expansion, 1 / layers) for _ in range(layers))
        self.norm_out = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, len(symbols))

    @property
    def seconds_per_frame(self) -> float:
        return self.stride * MEL.hop / MEL.sample_rate

    def forward(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) log-mel in nats → log-probabilities (B, ceil(F / stride), symbols)."""
        return self.head(self.hidden(logmel)).log_softmax(-1)

    def hidden(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) log-mel in nats → what it decides by, (B, ceil(F / stride), dim)."""
        below = logmel - logmel.amax((1, 2), keepdim=True)
        x = self.embed((below / self.depth + 1).clamp(0, 1) * 2 - 1)
        x = self.norm_in(x.mT).mT
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x.mT)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json (settings, symbols, mel spec) and model.safetensors, in fp16."""
        folder = Path(folder)
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({name: value.detach().cpu().half().contiguous()
                       for name, value in self.state_dict().items()}, temporary, metadata={"format": "pt"})
        write_json(folder / CONFIG, {**self.config, "mel_spec": MEL.to_dict()})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PhoneRecogniser:
        """The recogniser that `save_pretrained` wrote, in float32 and ready to listen.

        Raises UserError when it is not there, is broken, or was made for another mel spec.
        """
        folder = Path(folder)
        if not (folder / CONFIG).exists():
            raise UserError(f"{folder}: holds no recogniser (expected {CONFIG} and {WEIGHTS}; "
                            "python train.py experiment=pocket/ctc trains one)")
        config = read_json(folder / CONFIG)
        MEL.check(config.pop("mel_spec", None), folder / CONFIG)
        try:
            recogniser = cls(**config)
            state = load_file(folder / WEIGHTS)
            recogniser.load_state_dict({name: value.float() for name, value in state.items()})
        except (TypeError, SafetensorError, OSError, RuntimeError) as error:
            detail = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: not a readable recogniser ({detail})") from error
        return finite(recogniser, folder / WEIGHTS).eval().requires_grad_(False)


def greedy(log_probs: Tensor) -> list[list[int]]:
    """(B, T, symbols) → the best symbol of every frame, repetitions and blanks dropped."""
    best = log_probs.argmax(-1)
    return [[int(k) for k in torch.unique_consecutive(row) if k != BLANK] for row in best]
