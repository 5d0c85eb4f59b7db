"""A LoRA's file for a UNet, in any of the layouts that are common, as layers under the UNet's own names.

    unet.<module>.lora_A.weight                           diffusers with peft; ours
    <module>.lora.down.weight, ….processor.to_q_lora.up…  older diffusers
    base_model.model.<module>.lora_A[.default].weight     peft, its alpha in adapter_config.json
    lora_unet_<module>.lora_down.weight and .alpha        kohya's scripts; <module> with _ for its dots

Nothing that the file holds for the UNet is left out: what fits no module is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import UserError, nearest
from ..files import read_json
from ..weights import check_finite

PREFIXES = ("base_model.model.", "base_model.", "unet.", "lora_unet_", "module.")
TEXT = ("text_encoder", "lora_te", "cond_stage_model")  # parts that a speech branch's UNet has not
PARTS = {"lora_A": "A", "lora_B": "B", "lora_down": "A", "lora_up": "B", "lora.down": "A", "lora.up": "B",
         "lora_linear_layer.down": "A", "lora_linear_layer.up": "B"}
_LAYER = re.compile(rf"(?P<module>.+)\.(?P<part>{'|'.join(map(re.escape, PARTS))})"
                    r"(?:\.(?!weight$|bias$)\w+)?\.(?P<kind>weight|bias)")
_PROCESSOR = re.compile(r"(?P<module>.+)\.processor\.(?P<to>to_(?:q|k|v|out))_lora\.(?P<way>down|up)\.weight")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.(?:lora_magnitude_vector(?:\.\w+)*|dora_scale)")


@dataclass
class LoraFile:
    """What a file holds for a UNet.

    layers: {"<module>.lora_A.weight" and so on: tensor}. settings: of peft's LoraConfig. modules: those that
    it changes; one whose update is zero is not among them. text: layers of a text encoder, left out.
    """

    layers: dict[str, Tensor]
    settings: dict[str, Any]
    modules: list[str]
    text: list[str] = field(default_factory=list)


def read_lora(file: Path, shapes: Mapping[str, list[int]]) -> LoraFile:
    """The LoRA in a safetensors file, for a UNet whose parameters have `shapes` {name: shape}.

    Raises UserError naming what fits no module or is of another size: the LoRA is of another UNet.
    """
    with safe_open(str(file), "pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}
        told = (opened.metadata() or {}).get("lora_adapter_metadata")
    check_finite(state, file)
    known = {name.removesuffix(".weight"): shape for name, shape in shapes.items()
             if name.endswith(".weight")}
    flat = {name.replace(".", "_"): name for name in known}
    layers: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    text, strangers = [], []
    for name, value in state.items():
        if name.startswith(TEXT):
            text.append(name)
            continue
        module, part = _named(_plain(name))
        module = module if module in known else flat.get(module.replace(".", "_"), "")
        if not module or not part:
            strangers.append(name)
        elif part == "alpha":
            alphas[module] = float(value)
        else:
            if part == "lora_magnitude_vector":  # as peft has it: (out), of a convolution (1, out, 1, 1)
                spatial = [1] * (len(known[module]) - 2)
                value = value.reshape(1, -1, *spatial) if spatial else value.flatten()
            layers[f"{module}.{part}"] = value
    if strangers:
        hint = nearest(_plain(strangers[0]), [f"{name}.lora_A.weight" for name in known])
        more = f", nor are {len(strangers) - 1} more of {len(state)}" if len(strangers) > 1 else ""
        raise UserError(f"{file}: {strangers[0]} is no layer of the speech UNet{more}; the LoRA is of "
                        f"another one, or of another kind.{hint}")
    if not layers:
        raise UserError(f"{file}: holds no LoRA of a UNet (expected names such as "
                        "unet.<module>.lora_A.weight)")
    modules = list(dict.fromkeys(name.partition(".lora_")[0] for name in layers))
    for module in modules:
        _check(file, module, layers, known[module])
    changed = [module for module in modules if layers[f"{module}.lora_A.weight"].any()
               and layers[f"{module}.lora_B.weight"].any() or f"{module}.lora_magnitude_vector" in layers]
    if told is not None and not alphas:
        settings = {key.removeprefix("unet."): value for key, value in json.loads(told).items()}
        return LoraFile(layers, settings, changed, text)
    return LoraFile(*_scaled(layers, modules, alphas, _peft(file)), changed, text)


def _plain(name: str) -> str:
    """A layer's name without what a library puts before it."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _named(name: str) -> tuple[str, str]:
    """(module, part) of a layer's name, the part as peft calls it, or "alpha"; empty where it is none."""
    if (found := _PROCESSOR.fullmatch(name)) is not None:
        module = f"{found['module']}.{found['to']}" + (".0" if found["to"] == "to_out" else "")
        return module, f"lora_{'A' if found['way'] == 'down' else 'B'}.weight"
    if (found := _LAYER.fullmatch(name)) is not None:
        return found["module"], f"lora_{PARTS[found['part']]}.{found['kind']}"
    if (found := _MAGNITUDE.fullmatch(name)) is not None:
        return found["module"], "lora_magnitude_vector"
    return (name.removesuffix(".alpha"), "alpha") if name.endswith(".alpha") else ("", "")


def _check(file: Path, module: str, layers: Mapping[str, Tensor], weight: list[int]) -> None:
    a, b = (layers.get(f"{module}.lora_{part}.weight") for part in "AB")
    if a is None or b is None:
        raise UserError(f"{file}: {module} has but one half of its update (expected down and up, or A and B)")
    if list(a.shape[1:]) != weight[1:] or b.shape[0] != weight[0] or b.shape[1] != a.shape[0]:
        raise UserError(f"{file}: {module}'s update is {list(a.shape)} and {list(b.shape)} where the speech "
                        f"UNet's weight is {weight}; the LoRA is of another one")


def _peft(file: Path) -> dict[str, Any]:
    """peft's settings beside a file, where it wrote them there."""
    path = file.with_name("adapter_config.json")
    return read_json(path) if path.exists() else {}


def _scaled(layers: dict[str, Tensor], modules: list[str], alphas: Mapping[str, float],
            peft: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Layers of one rank whose scale is 1: α/r of each is multiplied into its B, and lesser ranks are padded.

    Where nothing says an alpha it is the rank.
    """
    from peft.utils.other import get_pattern_key

    rank = max(layers[f"{module}.lora_A.weight"].shape[0] for module in modules)
    found = dict(layers)
    for module in modules:
        a, b = (layers[f"{module}.lora_{part}.weight"].float() for part in "AB")
        own = a.shape[0]
        pattern = peft.get("alpha_pattern") or {}
        alpha = pattern.get(get_pattern_key(pattern.keys(), module), peft.get("lora_alpha", own))
        alpha = alphas.get(module, alpha)
        b = b * (float(alpha) / (own**0.5 if peft.get("use_rslora") else own))
        more = rank - own
        found[f"{module}.lora_A.weight"] = torch.cat([a, a.new_zeros(more, *a.shape[1:])])
        found[f"{module}.lora_B.weight"] = torch.cat([b, b.new_zeros(b.shape[0], more, *b.shape[2:])], 1)
    dora = any(name.endswith("lora_magnitude_vector") for name in layers)
    bias = any(name.endswith(".bias") for name in layers)
    return found, {"r": rank, "lora_alpha": rank, "target_modules": modules, "lora_dropout": 0.0,
                   "use_dora": dora, "lora_bias": bias}
