"""What ships with the project: configurations, the embedded weights and the word list."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError
from .files import read_text

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
OWN_CONFIGS = "IMAGES_THAT_SPEAK_CONFIGS"  # the environment variable that names another folder of one's own


def own_configs() -> Path:
    """The folder of one's own configurations, laid out as `configs/`; it need not exist."""
    return Path(os.environ.get(OWN_CONFIGS) or ROOT / "my_configs").absolute()


def choices(group: str) -> dict[str, Path]:
    """{name: file} of every choice of a config group, one's own among them; the shipped ones win."""
    found: dict[str, Path] = {}
    for folder in (own_configs() / group, CONFIGS / group):
        for path in sorted(folder.rglob("*.yaml")):
            found[str(path.relative_to(folder).with_suffix(""))] = path
    return dict(sorted(found.items()))


def groups() -> list[str]:
    """Every config group that has a choice, in the order of the alphabet."""
    folders = [path for root in (CONFIGS, own_configs()) if root.is_dir() for path in root.iterdir()]
    return sorted({path.name for path in folders if path.is_dir() and path.name != "hydra"
                   and any(path.rglob("*.yaml"))})


def weights_dir(family: str = "pocket") -> Path:
    """The folder of an embedded family's weights."""
    return ROOT / "weights" / family


def words(path: str | Path = "pocket_words.txt") -> list[str]:
    """A word list, one word a line, `#` comments left out; a bare name is looked up in words/."""
    path = Path(path)
    if not path.exists() and (ROOT / "words" / path).exists():
        path = ROOT / "words" / path
    if not path.exists():
        raise UserError(f"{path}: no such word list (expected a text file with one word a line)")
    lines = (line.split("#")[0].strip().lower() for line in read_text(path).splitlines())
    found = list(dict.fromkeys(line for line in lines if line))
    if not found:
        raise UserError(f"{path}: the word list is empty (expected one word a line)")
    return found


LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # diffusers' name and peft's


def lora_file(path: str | Path) -> Path | None:
    """The file of a LoRA at `path`: that file, or the one in that folder; None where there is none.

    In a folder it is the one that diffusers or peft named, or else the only safetensors file.
    """
    path = Path(path)
    if path.is_file():
        return path if path.suffix == ".safetensors" else None
    named = [path / name for name in LORA_FILES if (path / name).is_file()]
    others = [file for file in sorted(path.glob("*.safetensors")) if file.name != "unfrozen.safetensors"]
    return named[0] if named else others[0] if len(others) == 1 else None
