"""The Speech Information Bottleneck of VoxStudio: features of speech → few tokens that a UNet attends to.

Published: a Transformer block, then a strided convolution along time, and only the diffusion loss. How wide
and deep it is, with which kernel, and how fast it learns is not published; what stands here is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ..errors import UserError
from ..weights import finite
from .condition import Condition, Conditioner, Input
from .scene import SceneConditioner, pocket_scene_conditioner
from .speech_encoder import load_speech_encoder

PLACES = 31  # features that say where one stands among its neighbours: 0.6 s
RATIOS = (1, 2, 4, 8, 16)


class SpeechBottleneck(ModelMixin, ConfigMixin):
    """Features (B, T, F) of 20 ms → tokens (B, ⌈T / ratio⌉, D), and the whole in one vector (B, P).

    Features are brought to `width`, told their neighbours by a convolution of each channel (wav2vec 2.0,
    Baevski et al. 2020), go through `depth` pre-norm Transformer blocks and a convolution whose kernel and
    stride are `ratio`. Where a UNet takes a pooled vector, one learnt query attends to the tokens for it.

    Args:
        features: F, the encoder's width. width, depth, heads: of the blocks. ratio: features that a token
        stands for. tokens: D, what the UNet attends to. pooled: P, or None where it takes none.
        encoder, encoder_identity: which speech encoder it reads, for whoever loads it again.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, features: int = 384, width: int = 160, depth: int = 1, heads: int = 4, ratio: int = 8,
                 tokens: int = 128, pooled: int | None = 128, dropout: float = 0.1, encoder: str = "tiny",
                 encoder_identity: str | None = None):
        super().__init__()
        if ratio not in RATIOS:
            raise UserError(f"ratio={ratio}: expected one of {', '.join(map(str, RATIOS))}")
        self.first = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))
        self.places = nn.Conv1d(width, width, PLACES, padding=PLACES // 2, groups=width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True,
                                       norm_first=True)
            for _ in range(depth))
        self.pool = nn.Conv1d(width, width, ratio, stride=ratio)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, tokens)
        self.null_token = nn.Parameter(torch.zeros(tokens))
        if pooled is not None:
            self.query = nn.Parameter(torch.randn(width) / math.sqrt(width))
            self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
            self.gather = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
                                        nn.Linear(2 * width, pooled))
            self.null_pooled = nn.Parameter(torch.zeros(pooled))

    def forward(self, speech: Tensor, length: Tensor) -> Condition:
        """(B, T, F) features, of which the first `length` (B,) count → the condition of B utterances.

        Where nothing counts the condition is the learnt null.
        """
        ratio, said = self.config.ratio, (length > 0)[:, None]
        speech = nn.functional.pad(speech, (0, 0, 0, -speech.shape[1] % ratio)).to(self.last.weight.dtype)
        there = torch.arange(speech.shape[1], device=speech.device) < length.clamp(min=1)[:, None]
        x = self.first(speech) * there[..., None]
        x = x + nn.functional.gelu(self.places(x.mT)).mT
        for block in self.blocks:
            x = block(x, src_key_padding_mask=~there)
        x = self.norm(self.pool((x * there[..., None]).mT).mT)
        mask = there[:, ::ratio]
        tokens = torch.where(said[..., None], self.last(x), self.null_token)
        if self.config.pooled is None:
            return Condition(tokens, mask)
        query = self.query.expand(len(x), 1, -1)
        found = self.attend(query, x, x, key_padding_mask=~mask, need_weights=False)[0][:, 0]
        return Condition(tokens, mask, pooled=torch.where(said, self.gather(found), self.null_pooled))


class SpeechConditioner(Conditioner):
    """Speech → condition, by a bottleneck over features that are made beforehand.

    A batch carries "speech" (B, T, F) and "speech_length" (B,), 0 where nothing is said.
    """

    def __init__(self, bottleneck: SpeechBottleneck):
        super().__init__()
        self.bottleneck = bottleneck

    @property
    def inputs(self) -> dict[str, Input]:
        return {"speech": Input(0.0, (1, self.bottleneck.config.features), torch.float32),
                "speech_length": Input(0)}

    def encode(self, batch: dict[str, Any]) -> Condition:
        return self.bottleneck(batch["speech"], batch["speech_length"])

    def export(self, folder: Path, save: Callable[[Any, Path], None]) -> None:
        save(self.bottleneck, folder / "bottleneck")


def speech_conditioner(encoder: str, start: str | Path | None = None, **sizes: Any) -> SpeechConditioner:
    """A bottleneck for a speech encoder (`load_speech_encoder`): of the folder `start`, or fresh, of `sizes`.

    Raises UserError where there is no such encoder, or `start` was made for another.
    """
    reads = load_speech_encoder(encoder)
    if start is None:
        return SpeechConditioner(SpeechBottleneck(features=reads.width, encoder=encoder,
                                                  encoder_identity=reads.identity, **sizes))
    if not (Path(start) / "config.json").is_file():
        raise UserError(f"model.conditioner.start={start}: no such bottleneck (python train.py "
                        "experiment=pocket/speech_mapping makes one)")
    found = finite(SpeechBottleneck.from_pretrained(start, torch_dtype=torch.float32), start)
    if found.config.encoder_identity != reads.identity:
        raise UserError(f"model.conditioner.encoder={encoder}: {start} reads another "
                        f"({found.config.encoder})")
    return SpeechConditioner(found)


def pocket_speech_conditioner(text_encoder: str | Path, tokenizer: str | Path, scene: str | Path,
                              encoder: str, start: str | Path | None = None, **sizes: Any
                              ) -> SceneConditioner:
    """A bottleneck in the place of the image branch's text encoder; the scene adapter stays as it is.

    A fresh one says of nothing what the text encoder says of the empty caption.
    """
    text = pocket_scene_conditioner(text_encoder, tokenizer, scene)
    width = text.text_encoder.config.hidden_size
    fresh = {} if start else {"tokens": width, "pooled": width}
    speech = speech_conditioner(encoder, start, **fresh, **sizes)
    if start is None:
        with torch.no_grad():
            nothing = text.text.null(1)
            assert nothing.pooled is not None
            speech.bottleneck.null_token.copy_(nothing.tokens[0].mean(0))
            speech.bottleneck.null_pooled.copy_(nothing.pooled[0])
    return SceneConditioner(speech, text.scene.requires_grad_(False))
