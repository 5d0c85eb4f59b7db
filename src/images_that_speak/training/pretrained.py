"""The published networks that a fine-tune begins from, in a local folder or on the hub."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from ..diffusion.layout import find_part
from ..diffusion.loading import load_model
from ..networks.text import TextConditioner


def pretrained_unet(source: str, gradient_checkpointing: bool = False,
                    offline: bool = False, weights: bool = True) -> UNet2DConditionModel:
    """The UNet of a pipeline, in float32 and ready to be trained.

    Args:
        source: a folder in diffusers layout, or owner/name or owner/name@revision on the hub.
        gradient_checkpointing: feature maps are computed again in the backward pass instead of kept: about a
            third more time, a fraction of the memory.
        offline: never ask the hub.
        weights: see `load_model`.

    Raises UserError, naming the command that fetches it, when it is not there.
    """
    unet = load_model(UNet2DConditionModel, find_part(f"{source}/unet", "model.unet.source", offline),
                      torch.float32, weights)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train().requires_grad_(True)


def pretrained_text(source: str, offline: bool = False, weights: bool = True) -> TextConditioner:
    """The text encoder of a pipeline, frozen, as a conditioner; arguments as `pretrained_unet`'s."""
    from transformers import CLIPTextModel, CLIPTokenizer

    key = "adapter.source"
    encoder = load_model(CLIPTextModel, find_part(f"{source}/text_encoder", key, offline), torch.float32,
                         weights)
    words = CLIPTokenizer.from_pretrained(str(find_part(f"{source}/tokenizer", key, offline)),
                                          local_files_only=True)
    return TextConditioner(encoder, words)
