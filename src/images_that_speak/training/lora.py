"""LoRA by peft: what is trained, what a checkpoint holds, and the file stock diffusers loads."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from ..diffusion.loading import UNFROZEN_FILE
from ..errors import UserError
from ..files import atomic_path, write_json

# Attention and feed-forward projections: the published choice.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


@dataclass
class LoraSettings:
    """Low-rank updates W + (α/r) B A (Hu et al. 2021), or α/√r with `rslora` (Kalajdzievski 2023).

    Attributes:
        unfreeze: regular expressions of UNet parameter names trained whole, at `unfreeze_lr`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS
    rslora: bool = False
    dora: bool = False
    unfreeze: tuple[str, ...] = field(default_factory=tuple)
    unfreeze_lr: float = 2e-5


def add_lora(unet: UNet2DConditionModel, settings: LoraSettings) -> None:
    """Freeze `unet`, add the updates (in float32) and unfreeze what the patterns name.

    Raises UserError when a target or a pattern fits no module.
    """
    names = [name for name, _ in unet.named_modules()]
    for target in settings.targets:
        if not any(name == target or name.endswith("." + target) for name in names):
            raise UserError(f"lora.targets: {target!r} fits no module of the UNet")
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=list(settings.targets), use_rslora=settings.rslora, use_dora=settings.dora,
        init_lora_weights=True))
    for pattern in settings.unfreeze:
        found = [p for name, p in own_parameters(unet).items() if re.search(pattern, name)]
        if not found:
            raise UserError(f"lora.unfreeze: {pattern!r} fits no parameter of the UNet")
        for parameter in found:
            parameter.requires_grad_(True)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def own_parameters(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """The UNet's parameters without the updates', by the names they have where there is no LoRA."""
    return {name.replace(".base_layer.", "."): parameter for name, parameter in unet.named_parameters()
            if "lora_" not in name}


def trainable_state(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of `state` that training changes: trainable parameters, by name."""
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    return {name: value for name, value in state.items() if name in names}


def export_lora(unet: UNet2DConditionModel, folder: Path, settings: LoraSettings) -> None:
    """Write `pytorch_lora_weights.safetensors`, which stock `load_lora_weights` takes, and the settings.

    The parameters trained whole (`unfreeze`) go to `unfrozen.safetensors` beside it, under the names of the
    plain UNet: in fp16, but for those beyond its range. Raises UserError when one of them is not finite.
    """
    whole = {name: p.detach().cpu() for name, p in own_parameters(unet).items() if p.requires_grad}
    if broken := [name for name, value in whole.items() if not value.isfinite().all()]:
        raise UserError(f"{folder / UNFROZEN_FILE}: {broken[0]} holds NaN or infinity; nothing written")
    # In peft's names: diffusers' own are for attention only, and from a file of both it reads one kind.
    layers = get_peft_model_state_dict(unet)
    metadata = {key: value for key, value in unet.peft_config["default"].to_dict().items()}
    metadata = {k: sorted(v) if isinstance(v, set) else v for k, v in metadata.items()}
    # Who loads it adds its layers to a network in eval mode, in which they alone would still drop.
    metadata["lora_dropout"] = 0.0
    StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=layers,
                                              unet_lora_adapter_metadata=jsonable(metadata))
    (folder / UNFROZEN_FILE).unlink(missing_ok=True)
    if whole:
        with atomic_path(folder / UNFROZEN_FILE) as path:
            save_file({name: half(value) for name, value in whole.items()}, path)
    write_json(folder / "lora.json", asdict(settings))


def half(value: Tensor) -> Tensor:
    """`value` in fp16, or as it is where fp16 would overflow."""
    short = value.half()
    return (short if short.isfinite().all() else value).contiguous()


def jsonable(value: Any) -> Any:
    """Only what JSON can hold: the adapter's metadata travels as JSON inside the file."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [jsonable(v) for v in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
