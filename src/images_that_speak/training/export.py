"""Writing weights in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..files import read_json, write_json

LARGEST = 16 * 2**20 - 2**16  # bytes of one file of weights: what the repository takes, less a header


def save_half(module: Any, folder: Path) -> None:
    """`save_pretrained` in fp16, leaving the module in the precision it had.

    Raises UserError when a weight does not fit fp16: a file that loads as infinity is worse than none.
    """
    check_half(module, folder)
    kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
    dtype = next(module.parameters()).dtype
    save_pretrained(module.half(), folder)
    nn.Module.to(module, dtype)  # diffusers' own warns of nothing
    module.load_state_dict(kept)


def save_pretrained(module: Any, folder: Path) -> None:
    """`save_pretrained` in files that the repository takes, without a word of this machine."""
    module.save_pretrained(folder, safe_serialization=True, max_shard_size=LARGEST)
    where = Path(folder) / "config.json"
    # diffusers notes the folder that weights were read from: a path of the machine that trained them.
    write_json(where, {key: value for key, value in read_json(where).items() if key != "_name_or_path"})


def check_half(module: Any, folder: Path) -> None:
    """Raise UserError naming the first weight of `module` that does not fit fp16, and `folder`."""
    broken = [name for name, value in module.state_dict().items() if not torch.isfinite(value.half()).all()]
    if broken:
        raise UserError(f"{folder}: {broken[0]} holds NaN, infinity or a value beyond fp16; nothing written")
