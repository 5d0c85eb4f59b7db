"""Networks from folders, for inference. Whatever is wrong with weights is one error naming the folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..config import is_own, locate
from ..errors import UserError, nearest
from ..files import read_json
from ..resources import lora_file
from ..weights import check_finite
from .lora_file import read_lora

LORA_FILE = "pytorch_lora_weights.safetensors"
UNFROZEN_FILE = "unfrozen.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """One error naming the folder for all that the libraries raise on missing, broken or foreign weights."""
    from safetensors import SafetensorError

    try:
        yield
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason: BaseException | None = error
        while reason is not None:  # diffusers gives another error of its own
            if isinstance(reason, SafetensorError):
                raise UserError(f"{folder}: truncated or broken safetensors ({reason}); fetch it again"
                                ) from error
            reason = reason.__cause__ or reason.__context__
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded ({said})") from error


def without_bars() -> None:
    """Have the libraries load without a bar for each part: gone in a moment, it is noise."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()


def load_model(cls: Any, folder: Path, dtype: torch.dtype, weights: bool = True) -> Any:
    """`cls.from_pretrained` of a local folder, for inference.

    weights: with False the network is on torch's meta device, where tensors have shapes and no numbers. The
        names and shapes in the folder's files are compared all the same.

    Raises UserError when a weight is missing or has another shape.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json (expected a folder that {cls.__name__} loads)")
    without_bars()
    # Where there are none diffusers would say so as if it were an error; pickled ones are read as plain
    # weights.
    safe = any(folder.glob("*.safetensors"))
    with reading(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded, info = cls.from_pretrained(str(folder), torch_dtype=dtype, local_files_only=True,
                                           use_safetensors=safe, output_loading_info=True,
                                           device_map=None if weights else "meta")
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"{folder}: lacks {len(missing)} weights, {missing[0]} among them; "
                        "the file is truncated or of another model")
    check_finite(loaded.state_dict(), folder)
    return loaded.eval().requires_grad_(False)


def apply_lora(unet: Any, folder: Path) -> None:
    """Fuse the LoRA at `folder`, or in that file, into `unet`, after what was trained whole beside it.

    On the meta device the files are read and compared, and nothing is fused.
    Prints how many modules it changes. Raises UserError on files that are broken or were made for another
    UNet.
    """
    shapes = {name: list(value.shape) for name, value in unet.named_parameters()}
    file = lora_file(folder)
    if file is None:
        raise UserError(f"{folder}: holds no LoRA (expected {LORA_FILE})")
    with reading(folder):
        if (folder / UNFROZEN_FILE).exists():
            whole = load_file(folder / UNFROZEN_FILE)
            if strangers := unet.load_state_dict(whole, strict=False).unexpected_keys:
                raise UserError(f"{folder / UNFROZEN_FILE}: {strangers[0]} is no parameter of the speech "
                                "UNet; the LoRA is of another one")
            check_finite(whole, folder / UNFROZEN_FILE)
        lora = read_lora(file, shapes)
        if unet.device.type != "meta":
            unet.load_lora_adapter(dict(lora.layers), prefix=None, metadata=dict(lora.settings))
            unet.fuse_lora()
    print(f"LoRA of {file}: changes {len(lora.modules)} modules of the speech UNet"
          + (f"; {len(lora.text)} layers of a text encoder are left out" if lora.text else ""))


def adapter_class(folder: Path) -> Any:
    """The class of the phoneme adapter saved in `folder`. Raises UserError when there is no such class."""
    from ..networks.adapters import ADAPTERS, MODULE

    classes = {cls.__name__: cls for cls in ADAPTERS.values()}
    config = read_json(folder / "config.json")
    name, module = config.get("_class_name"), config.get(MODULE)
    if module is not None and is_own(str(module)):
        return locate(f"{module}.{name}", f"{folder}/config.json")
    if name not in classes:
        raise UserError(f"{folder}/config.json: _class_name {name!r} (expected one of {', '.join(classes)})."
                        f"{nearest(name, classes)}")
    return classes[name]


def load_adapter(folder: Path, dtype: torch.dtype) -> Any:
    """The phoneme adapter saved in `folder`, of the class that its config names."""
    return load_model(adapter_class(folder), folder, dtype)
