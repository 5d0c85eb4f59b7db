"""The checkpoints of the published training, brought into our layout and back.

    python -m images_that_speak.training.lora_published import checkpoints/latest weights/published
    python -m images_that_speak.training.lora_published export logs/train/<run>/weights published

Theirs:
    lora.pt             {"<module>.A.weight" (r, in), "<module>.B.weight" (out, r), "<module>.alpha",
    "<module>.rank"} base_unet.pt        parameters trained whole; within a module that has a LoRA they are
    called "<module>.base.…" phoneme_adapter.pt  {"state_dict", "in_dim", "out_dim", "seq_len"}, where
    phonemes are read
Ours:
    pytorch_lora_weights.safetensors, unfrozen.safetensors and adapter/, which generating and stock diffusers
    load

Pickled files are read as plain weights only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..audio.hifigan import torch_load
from ..audio.vocoder_base import load_strictly
from ..diffusion.loading import LORA_FILE, UNFROZEN_FILE, load_adapter
from ..errors import UserError
from ..files import atomic_path
from ..networks.adapters import PublishedAdapter
from ..terminal import lenient
from ..weights import check_finite
from .lora import jsonable

PREFIX = "unet."


def import_published(source: str | Path, folder: str | Path) -> list[str]:
    """Read a published checkpoint's folder and write ours; returns what was written.

    Raises UserError on files that hold more than weights, or in which ranks differ from what they say.
    """
    source, folder = Path(source), Path(folder)
    state = _tensors(source / "lora.pt")
    modules = sorted(name.removesuffix(".A.weight") for name in state if name.endswith(".A.weight"))
    if not modules:
        raise UserError(f"{source / 'lora.pt'}: no <module>.A.weight (expected a published LoRA)")
    layers: dict[str, Tensor] = {}
    scales = set()
    for module in modules:
        a, b = state[f"{module}.A.weight"], state.get(f"{module}.B.weight")
        rank = int(state.get(f"{module}.rank", torch.tensor(len(a))))
        if b is None or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise UserError(f"{source / 'lora.pt'}: {module}: A {list(a.shape)} and B "
                            f"{None if b is None else list(b.shape)} (expected rank {rank})")
        # The published code assumed α = 16 where a file did not say it.
        scales.add((rank, float(state.get(f"{module}.alpha", torch.tensor(16.0)))))
        layers |= {f"{module}.lora_A.weight": a.float().contiguous(),
                   f"{module}.lora_B.weight": b.float().contiguous()}
    if len(scales) > 1:
        raise UserError(f"{source / 'lora.pt'}: several ranks or alphas {sorted(scales)} (expected one)")
    (rank, alpha), = scales
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, lora_dropout=0.0)
    adapter = _adapter(source / "phoneme_adapter.pt")
    whole = {}
    if (source / "base_unet.pt").exists():
        # A module that is called base would lose its name; the UNet has none.
        whole = {name.replace(".base.", "."): value.contiguous()
                 for name, value in _tensors(source / "base_unet.pt").items()}
    written = [LORA_FILE]
    StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=layers,
                                              unet_lora_adapter_metadata=jsonable(settings.to_dict()))
    (folder / UNFROZEN_FILE).unlink(missing_ok=True)
    if whole:
        with atomic_path(folder / UNFROZEN_FILE) as path:
            save_file(whole, path)
        written.append(UNFROZEN_FILE)
    if adapter is not None:
        adapter.save_pretrained(folder / "adapter")
        written.append("adapter")
    return written


def export_published(source: str | Path, folder: str | Path) -> list[str]:
    """Write the published checkpoint's files from a folder of ours; returns what was written.

    Raises UserError where the published code cannot hold what is there: DoRA, a LoRA of convolutions, or a
    phoneme adapter of another kind than the published.
    """
    source, folder = Path(source), Path(folder)
    try:
        layers = load_file(source / LORA_FILE)
        check_finite(layers, source / LORA_FILE)
        with safe_open(str(source / LORA_FILE), "pt") as file:
            told = json.loads((file.metadata() or {}).get("lora_adapter_metadata") or "{}")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{source / LORA_FILE}: not a readable LoRA ({error})") from error
    settings = {key.removeprefix(PREFIX): value for key, value in told.items()}
    state: dict[str, Tensor] = {}
    for name, value in layers.items():
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if kind not in ("A.weight", "B.weight") or value.ndim != 2:
            raise UserError(f"{source / LORA_FILE}: {name} {list(value.shape)} (the published layout holds "
                            "LoRA of linear maps alone)")
        state[f"{module}.{kind}"] = value.float()
    rank = int(settings.get("r") or next(iter(v for k,
                                              v in state.items() if k.endswith(".A.weight"))).shape[0])
    alpha = float(settings.get("lora_alpha") or rank)
    if settings.get("use_rslora"):
        alpha *= rank**0.5  # theirs is α/r
    modules = {name.rpartition(".A.weight")[0] for name in state if name.endswith(".A.weight")}
    for module in modules:
        state |= {f"{module}.alpha": torch.tensor(alpha), f"{module}.rank": torch.tensor(rank)}
    files: dict[str, Any] = {"lora.pt": state}
    if (source / UNFROZEN_FILE).exists():
        files["base_unet.pt"] = {_wrapped(name, modules): value.float()
                                 for name, value in load_file(source / UNFROZEN_FILE).items()}
    if (source / "adapter").is_dir():
        adapter = load_adapter(source / "adapter", torch.float32)
        if not isinstance(adapter, PublishedAdapter):
            raise UserError(f"{source / 'adapter'}: a {type(adapter).__name__}, which the published code "
                            "does not know (adapter=auffusion/published is the one it does)")
        size = adapter.config
        files["phoneme_adapter.pt"] = {"state_dict": adapter.state_dict(), "in_dim": size.features,
                                       "out_dim": size.width, "seq_len": size.tokens}
    for name, content in files.items():
        with atomic_path(folder / name) as path:
            torch.save(content, path)
    return list(files)


def _wrapped(name: str, modules: set[str]) -> str:
    """The name that a parameter has where its module is wrapped by a published LoRA."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.base.{leaf}" if module in modules else name


def _tensors(path: Path) -> dict[str, Tensor]:
    content = torch_load(path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: expected a dictionary of tensors")
    check_finite(content, path)
    return content


def _adapter(path: Path) -> PublishedAdapter | None:
    if not path.exists():
        return None
    content = torch_load(path)
    try:
        adapter = PublishedAdapter(int(content["in_dim"]), int(content["out_dim"]), int(content["seq_len"]))
        state = content["state_dict"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error} missing or malformed (expected state_dict, in_dim, out_dim and "
                        "seq_len)") from error
    load_strictly(adapter, state, path)
    return adapter


def main(arguments: list[str]) -> None:
    """The command: import or export, from a folder into another."""
    lenient()
    commands = {"import": import_published, "export": export_published}
    if len(arguments) != 3 or arguments[0] not in commands:
        raise UserError("expected: python -m images_that_speak.training.lora_published import|export FROM TO")
    written = commands[arguments[0]](arguments[1], arguments[2])
    print(f"{arguments[2]}: {', '.join(written)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
