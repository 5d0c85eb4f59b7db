"""What a check gathers: lines to read, and everything that is wrong."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig

from ..audio.hifigan import torch_load
from ..config import first_line
from ..diffusion.loading import UNFROZEN_FILE
from ..diffusion.lora_file import read_lora
from ..errors import UserError
from ..resources import lora_file
from ..runs import open_run


@dataclass
class Findings:
    """`lines`: what would happen. `problems`: what stands in the way, each beginning with its key."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, name: str, *texts: str) -> None:
        """A line with its name in the margin; further texts stand below the first."""
        for i, text in enumerate(texts):
            self.lines.append(f"{name if i == 0 else '':<12} {text}".rstrip())

    @contextmanager
    def step(self, key: str) -> Iterator[None]:
        """Whatever goes wrong within is a problem; `key` names it where the error itself does not."""
        try:
            yield
        except UserError as error:
            self.problems += str(error).splitlines()
        # What the libraries raise when they are given values they were not made for.
        except (HydraException, ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            self.problems.append(f"{key}: {first_line(error)}")


def run_folder(cfg: DictConfig, task: str) -> str:
    """Where the run would write, and what is there already."""
    run = open_run(cfg, task)
    state = ("finished already" if (run.dir / "result.json").exists() and not cfg.fresh else
             "begun already; it would go on" if (run.dir / "run.json").exists() else "new")
    return f"{shortest(run.dir)} ({state})"


def counted(number: int, thing: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number:,} {thing}" + "s" * (number != 1)


def shortest(path: Path) -> str:
    """A path from here or from the root, whichever is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def weight_files(folder: Path) -> list[Path]:
    """The files in a folder that loading it reads: safetensors, or pickled ones where there are none.

    Copies in another precision have it within their names, as model.fp16.safetensors. Raises UserError when
    there is no folder or no such file.
    """
    if folder.is_file():  # a LoRA
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    named = [path for path in sorted(folder.iterdir()) if "." not in path.stem]
    for suffixes in ((".safetensors",), (".bin", ".pt")):
        if found := [path for path in named if path.suffix in suffixes]:
            return found
    raise UserError(f"{folder}: holds no weights")


def shapes(folder: Path) -> dict[str, list[int]]:
    """{name: shape} of the weights in a folder, of which no number is read.

    Raises UserError on a file that is cut off or holds more than weights.
    """
    found: dict[str, list[int]] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            found |= {name: entry["shape"] for name, entry in header(path).items()}
        else:
            found |= {name: list(value.shape) for name, value in torch_load(path, mapped=True).items()}
    return found


def size(folder: Path) -> int:
    """Bytes of the weights in a folder. Raises UserError as `weight_files`."""
    return sum(path.stat().st_size for path in weight_files(folder))


def weights(folder: Path) -> tuple[int, int]:
    """(parameters, bytes) of the weights in a folder. Raises UserError as `shapes`."""
    return sum(map(math.prod, shapes(folder).values())), size(folder)


def header(path: Path) -> dict[str, Any]:
    """{tensor: {"dtype", "shape", "data_offsets"}} of a safetensors file.

    Raises UserError when it is none, or shorter than its header says.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        rest = path.stat().st_size - 8 - length
        try:
            entries = json.loads(file.read(length)) if rest >= 0 else None
        except ValueError:
            entries = None
    if not isinstance(entries, dict):
        raise UserError(f"{path}: not a safetensors file, or cut off; fetch it again")
    entries.pop("__metadata__", None)
    if max((entry["data_offsets"][1] for entry in entries.values()), default=0) != rest:
        raise UserError(f"{path}: cut off; fetch it again")
    return entries


def compare(module: Any, folder: Path) -> None:
    """Whether the files of `folder` hold the parameters of `module`, in their shapes.

    Raises UserError naming the first difference.
    """
    stored = shapes(folder)
    # Names of before, as the published weights have them, which the libraries translate when they load:
    # Stable Diffusion's autoencoder says query where diffusers now says to_q.
    if hasattr(module, "_fix_state_dict_keys_on_load"):
        module._fix_state_dict_keys_on_load(stored)
    stored = {name.removeprefix("text_model."): shape for name, shape in stored.items()}
    for name, value in module.named_parameters():
        found = stored.get(name.removeprefix("text_model."))
        if found is None:
            raise UserError(f"{folder}: lacks {name}; the files are incomplete or of another model")
        if found != list(value.shape):
            raise UserError(f"{folder}: {name} is {found} (expected {list(value.shape)}, as "
                            "config.json says)")


def compare_lora(unet: Any, folder: Path) -> None:
    """Whether a LoRA's layers, and what was trained whole beside them, are those of `unet`.

    Raises UserError naming the first that is none.
    """
    known = {name: list(value.shape) for name, value in unet.named_parameters()}
    file = lora_file(folder)
    assert file is not None  # the layout has found it
    header(file)  # whole
    read_lora(file, known)
    whole = folder / UNFROZEN_FILE
    for name, entry in header(whole).items() if whole.exists() else ():
        if known.get(name) != entry["shape"]:
            raise UserError(f"{whole}: {name} {entry['shape']} is no parameter of the speech UNet; the LoRA "
                            "is of another one")


def table(rows: Iterable[tuple[str, int, int]]) -> list[str]:
    """Lines of a name, its parameters and its bytes, with a sum."""
    rows = list(rows)
    if len(rows) > 1:
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    width = max((len(name) for name, _, _ in rows), default=0)
    return [f"{name:<{width}}  {count:>13,} parameters  {megabytes(held)}" for name, count, held in rows]


def megabytes(size: int) -> str:
    return f"{size / 2**20:8.2f} MiB"
