"""The networks of a layout without their numbers: what a generation will load, built in no time.

They lie on torch's meta device, where tensors have shapes and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from ..errors import UserError
from ..networks.auffusion import ConditionAdapter, condition_parts, encoder_class
from ..networks.autoencoder import autoencoder_class
from .layout import Layout
from .loading import adapter_class, reading


@dataclass(frozen=True)
class Part:
    """A network: the folder of its weights, and `build()`, which makes it on the meta device.

    Building raises UserError when its configuration is missing or makes no network.
    """

    folder: Path
    build: Callable[[], nn.Module]


def parts(layout: Layout, branches: tuple[str, ...]) -> dict[str, Part]:
    """{name: network} of what generating with `branches` loads, but for what is small: vocoder and durations.

    Raises UserError when the conditions of Auffusion's full layout are malformed.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    from ..networks.scene import SceneAdapter

    found: dict[str, Part] = {}

    def add(name: str, folder: Path, build: Callable[[Path], nn.Module]) -> None:
        found[name] = Part(folder, lambda: build(folder))

    for branch in branches:
        add(f"{branch} UNet", layout.unet[branch], lambda folder: on_meta(UNet2DConditionModel, folder))
        if branch in layout.text_encoder:
            add(f"{branch} text encoder", layout.text_encoder[branch],
                lambda folder: encoder_on_meta(CLIPTextModel, folder))
            if branch == "image" and layout.scene is not None:
                add("scene adapter", layout.scene, lambda folder: on_meta(SceneAdapter, folder))
        elif layout.adapter is not None:
            add("phoneme adapter", layout.adapter, lambda folder: on_meta(adapter_class(folder), folder))
        elif layout.conditions is not None:
            for i, entry in enumerate(condition_parts(layout.conditions)):
                add(f"text encoder {i}", layout.conditions / entry["text_encoder_name"],
                    lambda folder: encoder_on_meta(encoder_class(folder), folder))
                add(f"condition adapter {i}", layout.conditions / entry["condition_adapter_name"],
                    _condition_adapter)
    add("autoencoder", layout.vae, lambda folder: on_meta(autoencoder_class(folder), folder))
    return found


@contextmanager
def no_numbers() -> Iterator[None]:
    """What is made within has its parameters on the meta device, where a network of any size costs nothing.

    Only the parameters: a table that a module computes for itself, such as mel filters, is made of numbers,
    and some of what computes it does not run on that device.
    """
    with init_empty_weights(include_buffers=False):
        yield


def on_meta(cls: Any, folder: Path) -> Any:
    """diffusers' network whose config lies in `folder`. Raises UserError when there is none."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json (expected a folder that {cls.__name__} loads)")
    with no_numbers():
        made = cls.from_config(cls.load_config(str(folder), local_files_only=True))
    return made.to("meta").eval()


def encoder_on_meta(cls: Any, folder: Path) -> Any:
    """transformers' network whose config lies in `folder`. Raises UserError when there is none."""
    with reading(folder), no_numbers():
        made = cls(cls.config_class.from_pretrained(str(folder), local_files_only=True))
    made = made.to("meta").eval()
    # Without numbers also the names that share a parameter have one each; files hold it once.
    made.tie_weights()
    return made


def _condition_adapter(folder: Path) -> nn.Module:
    with no_numbers():
        made = ConditionAdapter.from_config(folder)
    return made.to("meta")


def parameters(module: nn.Module, trained: bool = False) -> int:
    """How many parameters a module has; with `trained` only those that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)
