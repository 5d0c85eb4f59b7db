"""The text condition of Auffusion's full models: several text encoders, each with an adapter of its own.

The layout (Auffusion's `-full`, beside `-full-no-adapter`, which is a plain Stable Diffusion pipeline):

    condition_config.json      a list of {"text_encoder_name", "condition_adapter_name",
    "condition_max_length", …} text_encoder_i/            a transformers text encoder (CLIP, T5 or CLAP) and
    its tokenizer condition_adapter_i/       config.json, and condition_adapter.pt: a linear map and a layer
    norm
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..audio.hifigan import torch_load
from ..audio.vocoder_base import load_strictly
from ..errors import UserError
from ..files import read_json
from ..weights import finite
from .condition import Condition, Conditioner, Input

CONDITIONS = "condition_config.json"
NOTHING = -1  # in place of a token's id


class ConditionAdapter(nn.Module):
    """norm(W x + b): (B, L, condition_dim) → (B, L, cross_attention_dim)."""

    def __init__(self, condition_dim: int, cross_attention_dim: int):
        super().__init__()
        self.proj = nn.Linear(condition_dim, cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))

    @classmethod
    def from_config(cls, folder: Path) -> ConditionAdapter:
        """A new one of the size that a published folder says. Raises UserError when it says none."""
        config = read_json(folder / "config.json")
        try:
            return cls(int(config["condition_dim"]), int(config["cross_attention_dim"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / 'config.json'}: {error} missing or malformed (expected condition_dim "
                            "and cross_attention_dim)") from error

    @classmethod
    def from_pretrained(cls, folder: Path) -> ConditionAdapter:
        """The adapter of a published folder, a small network. Raises UserError on files that do not fit."""
        adapter = cls.from_config(folder)
        load_strictly(adapter, torch_load(folder / "condition_adapter.pt"), folder / "condition_adapter.pt")
        return adapter


def condition_parts(root: Path) -> list[dict[str, Any]]:
    """The entries of a folder's condition_config.json with their folders checked.

    Raises UserError when it is malformed or a folder is missing.
    """
    where = root / CONDITIONS
    entries = read_json(where)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: expected a list of conditions")
    for entry in entries:
        for key in ("text_encoder_name", "condition_adapter_name"):
            name = entry.get(key) if isinstance(entry, dict) else None
            # A name that leaves the folder would load what nobody named.
            if not isinstance(name, str) or not name or Path(name).name != name:
                raise UserError(f"{where}: {key} {name!r} (expected the name of a folder beside it)")
            if not (root / name).is_dir():
                raise UserError(f"{root / name}: missing (a condition of {where.name})")
    return entries


def encoder_class(folder: Path) -> Any:
    """The class of transformers that loads a folder's text encoder. Raises UserError on another kind."""
    import transformers

    kinds: dict[str, Any] = {
        "CLIPTextModel": transformers.CLIPTextModel, "T5EncoderModel": transformers.T5EncoderModel,
        "ClapTextModelWithProjection": transformers.ClapTextModelWithProjection}
    config = folder / "config.json"
    names = read_json(config).get("architectures") or [None]
    # T5's config may name the whole model; only its encoder is wanted.
    name = "T5EncoderModel" if str(names[0]).startswith("T5") else names[0]
    if name not in kinds:
        raise UserError(f"{config}: architectures {names} (expected one of {', '.join(kinds)})")
    return kinds[name]


class AdaptedTextConditioner(Conditioner):
    """Captions → tokens of every encoder through its adapter, one after the other; nothing said is all zeros.

    As published: a caption is encoded without padding, its features are padded with zeros to `tokens` and
    then adapted. A batch carries "input_ids" (B, encoders, tokens), NOTHING where there is no token.
    """

    def __init__(self, encoders: Sequence[nn.Module], adapters: Sequence[ConditionAdapter],
                 tokenizers: Sequence[Any], tokens: int = 77):
        super().__init__()
        self.encoders, self.adapters = nn.ModuleList(encoders), nn.ModuleList(adapters)
        self.tokenizers, self.tokens = list(tokenizers), tokens

    @classmethod
    def from_pretrained(cls, root: Path, dtype: torch.dtype = torch.float32,
                        weights: bool = True) -> AdaptedTextConditioner:
        """The conditions of a published folder; without `weights`, encoders on torch's meta device.

        Raises UserError on an encoder of another kind.
        """
        from transformers import AutoTokenizer

        encoders, adapters, tokenizers, lengths = [], [], [], []
        for entry in condition_parts(root):
            folder = root / entry["text_encoder_name"]
            encoders.append(finite(encoder_class(folder).from_pretrained(
                str(folder), dtype=dtype, local_files_only=True,
                device_map=None if weights else "meta"), folder))
            tokenizers.append(AutoTokenizer.from_pretrained(str(folder), local_files_only=True))
            adapter = ConditionAdapter.from_pretrained(root / entry["condition_adapter_name"])
            adapters.append(adapter.to(dtype))
            lengths.append(int(entry.get("condition_max_length", 77)))
        return cls(encoders, adapters, tokenizers, max(lengths)).eval().requires_grad_(False)

    def tokenize(self, captions: list[str]) -> Tensor:
        """Captions → (B, encoders, tokens) ids, NOTHING after the last."""
        rows = [[self._ids(tokenizer, caption) for tokenizer in self.tokenizers] for caption in captions]
        return torch.stack([torch.stack([pad(ids, (0, self.tokens - len(ids)), value=NOTHING) for ids in row])
                            for row in rows])

    def _ids(self, tokenizer: Any, caption: str) -> Tensor:
        return torch.tensor(tokenizer(caption, truncation=True, max_length=self.tokens).input_ids)

    @property
    def inputs(self) -> dict[str, Input]:
        return {"input_ids": Input(NOTHING, (len(self.encoders), self.tokens))}

    def encode(self, batch: dict[str, Any]) -> Condition:
        tokens = torch.stack([self._one(row) for row in batch["input_ids"]])
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def _one(self, ids: Tensor) -> Tensor:
        """(encoders, tokens) ids of one caption → (encoders · tokens, D)."""
        said = ids != NOTHING
        if not bool(said.any()):
            weight: Tensor = self.adapters[0].norm.weight  # type: ignore[assignment,union-attr]
            return torch.zeros(ids.numel(), len(weight), dtype=weight.dtype, device=ids.device)
        parts = []
        for row, mask, encoder, adapter in zip(ids, said, self.encoders, self.adapters, strict=True):
            features = encoder(input_ids=row[mask][None]).last_hidden_state[0]
            parts.append(adapter(pad(features, (0, 0, 0, self.tokens - len(features)))))
        return torch.cat(parts)
