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

from ..config import first_line
from ..errors import UserError
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


def weights(folder: Path) -> tuple[int | None, int]:
    """(parameters, bytes) of the weights in a folder; parameters are None where a file does not tell.

    Only the headers of safetensors are read. Raises UserError on one that is cut off.
    """
    parameters: int | None = 0
    size = 0
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".safetensors", ".bin", ".pt"):
            continue
        size += path.stat().st_size
        if path.suffix != ".safetensors":
            parameters = None
        elif parameters is not None:
            parameters += sum(math.prod(entry["shape"]) for entry in header(path).values())
    return parameters, size


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
    """Whether the safetensors of `folder` hold the tensors of `module`, in their shapes.

    Files that do not tell their shapes are left to loading. Raises UserError naming the first difference.
    """
    files = sorted(folder.glob("*.safetensors"))
    stored = {name: entry["shape"] for path in files for name, entry in header(path).items()}
    for name, value in module.state_dict().items() if files else ():
        if name not in stored:
            raise UserError(f"{folder}: lacks {name}; the files are incomplete or of another model")
        if stored[name] != list(value.shape):
            raise UserError(f"{folder}: {name} is {stored[name]} (expected {list(value.shape)}, as "
                            "config.json says)")


def table(rows: Iterable[tuple[str, int | None, int | None]]) -> list[str]:
    """Lines of a name, its parameters and its bytes, with a sum; None is not known."""
    rows = list(rows)
    width = max((len(name) for name, _, _ in rows), default=0)

    def line(name: str, parameters: int | None, size: int | None) -> str:
        count = "unknown" if parameters is None else f"{parameters:,}"
        return f"{name:<{width}}  {count:>13} parameters" + ("" if size is None else f"  {megabytes(size)}")

    lines = [line(*row) for row in rows]
    if len(rows) > 1:
        counts, sizes = [row[1] for row in rows], [row[2] for row in rows]
        lines.append(line("together", None if None in counts else sum(c for c in counts if c is not None),
                          None if None in sizes else sum(s for s in sizes if s is not None)))
    return lines


def megabytes(size: int) -> str:
    return f"{size / 2**20:8.2f} MiB"
