"""A CLIP text encoder as a conditioner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..errors import UserError
from .condition import Condition, Conditioner, Input


def pocket_text_conditioner(tokenizer: str | Path, width: int = 128, layers: int = 2, heads: int = 4,
                            tokens: int = 24) -> TextConditioner:
    """A small, untrained CLIP text encoder over the tokenizer of a folder.

    Raises UserError when the folder has no tokenizer.
    """
    if not Path(tokenizer).is_dir():
        raise UserError(f"tokenizer={tokenizer}: no such folder (expected a CLIPTokenizer's; "
                        "python train.py experiment=pocket/tokenizer makes the pocket one)")
    words = CLIPTokenizer.from_pretrained(tokenizer)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=tokens, projection_dim=width,
        pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id)
    return TextConditioner(CLIPTextModel(config), words)


class TextConditioner(Conditioner):
    """Caption → tokens of a CLIPTextModel; the empty caption is the null condition.

    A batch carries "input_ids" (B, L).
    """

    def __init__(self, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer):
        super().__init__()
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer

    def tokenize(self, captions: list[str]) -> Tensor:
        """Captions → (B, L) ids, padded and cut to the encoder's length."""
        length = min(self.tokenizer.model_max_length,
                     self.text_encoder.config.max_position_embeddings)
        return self.tokenizer(captions, padding="max_length", truncation=True, max_length=length,
                              return_tensors="pt").input_ids

    @property
    def inputs(self) -> dict[str, Input]:
        empty = self.tokenize([""])[0]
        return {"input_ids": Input(empty, tuple(empty.shape))}

    def encode(self, batch: dict[str, Any]) -> Condition:
        ids = batch["input_ids"]
        output = self.text_encoder(input_ids=ids)
        # Stable Diffusion attends to the padding too; so do we, that its weights behave as published.
        return Condition(output.last_hidden_state, torch.ones_like(ids, dtype=torch.bool),
                         pooled=output.pooler_output)

    def export(self, folder: Path, save: Callable[[Any, Path], None]) -> None:
        save(self.text_encoder, folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
