"""What every adapter is, and those that do not know when a phoneme sounds.

Every adapter is a Conditioner. Id 0 (`<pad>`) everywhere is the null condition, voice 0 is no voice.

Phonemes are looked up in a table that is learnt with the adapter. With `features` the adapter reads
embeddings of that width in its place (speech.plbert): a batch then also carries "phone_embedding" (B, L,
features) and, for the aligned adapter, "frame_index" (B, frames), the phone that sounds in each frame, -1 for
none. Nothing is zero there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ...files import read_json, write_json
from ..condition import Condition, Conditioner, Input

MODULE = "_module"  # in a config.json: where a class of one's own is


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sine and cosine position codes (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=-1).flatten(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, L, D), (B, L) bool → (B, D); the mean over nothing is 0."""
    weight = mask[..., None].to(values)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


class PhonemeAdapter(Conditioner, ModelMixin, ConfigMixin):
    """What the adapters share. Voices are numbered from 1; 0 means none."""

    config_name = "config.json"
    # Of diffusers' classes, which mypy does not follow.
    config: Any
    dtype: torch.dtype
    save_pretrained: Any
    phone: nn.Module  # `phone_table`

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write config.json; of a class of one's own also in which module it is."""
        super().save_config(save_directory, push_to_hub, **kwargs)
        if (module := type(self).__module__).split(".")[0] != __name__.split(".")[0]:
            where = Path(save_directory) / self.config_name
            write_json(where, {**read_json(where), MODULE: module})

    @property
    def voices(self) -> int | None:  # type: ignore[override]
        return self.config.get("voices")

    @property
    def channels(self) -> int | None:  # type: ignore[override]
        return self.config.get("channels")

    @property
    def inputs(self) -> dict[str, Input]:
        """Voice and phones in a row: their numbers, or with `features` their embeddings."""
        # A loss is weighed by what sounds in each frame, also where the adapter does not read it.
        found = {"frame_phones": Input(shape=(self.config.get("frames", 1024),), need="given"),
                 "phone_mask": Input(False, (1,), torch.bool), "voice": Input()}
        if features := self.config.features:
            return {**found, "phone_embedding": Input(0, (1, features), torch.float32)}
        return {**found, "phones": Input(shape=(1,))}

    def vectors(self, batch: dict[str, Any]) -> Tensor:
        """(B, L, width): each phone's entry of the table, or its embedding brought to that width."""
        if self.config.features:
            return self.phone(batch["phone_embedding"].to(self.dtype))
        return self.phone(batch["phones"])


def phone_table(phones: int, width: int, features: int | None) -> nn.Module:
    """What brings a phone to `width`: a table of its own, or a map of embeddings `features` wide."""
    return nn.Linear(features, width) if features else nn.Embedding(phones, width)


class PooledAdapter(PhonemeAdapter):
    """The published adapter: the mean phoneme embedding, projected and repeated. Order is lost.

    Kept as the baseline.
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, width: int = 128, tokens: int = 77,
                 features: int | None = None):
        super().__init__()
        self.phone = phone_table(phones, width, features)
        self.voice = nn.Embedding(voices + 1, width)
        self.project = nn.Linear(width, width)

    def encode(self, batch: dict[str, Any]) -> Condition:
        mean = masked_mean(self.vectors(batch), batch["phone_mask"])
        token = self.project(mean) + self.voice(batch["voice"])
        tokens = token[:, None].expand(-1, self.config.tokens, -1)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class SequenceAdapter(PhonemeAdapter):
    """Phonemes in order: embeddings with positions, a small Transformer, masked cross-attention.

    The first token is the voice.
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, width: int = 128, layers: int = 2, heads: int = 4,
                 dropout: float = 0.0, features: int | None = None):
        super().__init__()
        self.phone = phone_table(phones, width, features)
        self.voice = nn.Embedding(voices + 1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True,
                                           norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width),
                                                 enable_nested_tensor=False)

    def encode(self, batch: dict[str, Any]) -> Condition:
        phones = self.vectors(batch)
        phones = phones + sinusoids(phones.shape[1], phones.shape[2]).to(phones)
        voice = self.voice(batch["voice"])[:, None]
        mask = torch.cat([torch.ones_like(batch["phone_mask"][:, :1]), batch["phone_mask"]], dim=1)
        tokens = self.transformer(torch.cat([voice, phones], dim=1), src_key_padding_mask=~mask)
        return Condition(tokens, mask)


class PublishedAdapter(PhonemeAdapter):
    """The published adapter to the letter: norm(W e + b) of one embedding of the whole phrase, repeated.

    Its parameters have the published names. A batch carries "embedding" (B, features), or phones' embeddings,
    whose mean is taken. It knows no voices.
    """

    @register_to_config
    def __init__(self, features: int = 768, width: int = 768, tokens: int = 77):
        super().__init__()
        self.proj = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)

    @property
    def inputs(self) -> dict[str, Input]:
        return {**super().inputs, "embedding": Input(0, (self.config.features,), torch.float32, need="given")}

    def lacks(self, keys: Collection[str]) -> list[str]:
        return [] if "embedding" in keys else [key for key in super().lacks(keys) if key != "voice"]

    def encode(self, batch: dict[str, Any]) -> Condition:
        embedding = (batch["embedding"] if "embedding" in batch
                     else masked_mean(batch["phone_embedding"], batch["phone_mask"]))
        token = self.norm(self.proj(embedding.to(self.proj.weight.dtype)))
        tokens = token[:, None].expand(-1, self.config.tokens, -1)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
