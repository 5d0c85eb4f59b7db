"""What makes two commands the same run: the task and what its configuration changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .. import config
from ..files import content_hash
from ..tasks import FAMILY, TASKS
from ..values import ENDINGS_READ

# Where a run writes, where its weights go, what watches it and where it computes do not make it another run.
VOLATILE = ("paths", "logger", "fresh", "resume", "check", "device", "optimized_metrics",
            "report", "export")
# These count by what lies there, not by their name.
INPUTS = ("prompts", "words", "run", "pictures", "reference", "image", "speech", "sentences")
READ = (*ENDINGS_READ, ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
# Of weights, the files that decide what is computed: of transformers, diffusers and published checkpoints.
DECISIVE = ("*.safetensors", "*.json", "*.pt", "*.bin", "*.t7", "*.yml", "*.txt", "*.model", "g_????????")
LONGEST_NAME = 80  # characters of a folder's name before its hash
HASHED_WHOLE = 512 * 2**20  # bytes of weights up to which every byte counts; above, names and sizes


@dataclass(frozen=True)
class Identity:
    """`hash`: 10 hex digits; `name`: readable, for the folder; `changed`: {dotted key: value}."""

    task: str
    hash: str
    name: str
    changed: dict[str, Any]

    @property
    def folder(self) -> str:
        return f"{self.name}__{self.hash}"


def identify(cfg: DictConfig, task: str) -> Identity:
    """The identity of `cfg`, a configuration of `task`.

    Two configurations have the same hash when they differ only in what is volatile, however they were
    written. Input files and weights count by their content, so changing them is another run.
    """
    changed = {key: value for key, value in config.changed(cfg, task).items() if not is_volatile(key, task)}
    inputs = (*INPUTS, *(f"metrics.{name}.reference" for name in cfg.get("metrics") or ()))
    content = {key: seen for key in inputs if (seen := _content(OmegaConf.select(cfg, key)))}
    # Folders of weights count by their content too; a family of the hub's is a name.
    for key in TASKS[task].inputs:
        where = OmegaConf.select(cfg, key)
        if where is not None and Path(where).exists():
            content[key] = weights_fingerprint(Path(where))
    counted = {key: value for key, value in changed.items() if key not in content}
    digest = content_hash({"task": task, "changed": counted, "content": content}, 10)
    return Identity(task, digest, _readable(changed, task), changed)


def is_volatile(key: str, task: str) -> bool:
    return key.split(".")[0] in (*VOLATILE, *TASKS[task].volatile)


def _content(value: Any) -> str | None:
    """What lies at the path `value`: a hash of a file; of a folder, its place, pictures and sounds."""
    if not isinstance(value, str) or not Path(value).exists():
        return None
    path = Path(value)
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns)
             for p in sorted(path.rglob("*")) if p.suffix.lower() in READ]
    return content_hash([str(path.resolve()), files])


def weights_fingerprint(path: Path) -> str:
    """12 hex digits that change when the weights or their configurations do.

    path: a folder, or one checkpoint, which has its config.json beside it.
    """
    folder = path if path.is_dir() else path.parent
    found = folder.rglob("*") if path.is_dir() else (path, folder / "config.json")
    files = [p for p in sorted(found) if p == path or any(p.match(name) for name in DECISIVE) and p.is_file()]
    return _fingerprint(tuple((p, p.relative_to(folder), p.stat().st_size, p.stat().st_mtime_ns)
                              for p in files))


def by_content(value: Any) -> Any:
    """The fingerprint of the weights at the path `value`; what is no path, as it is."""
    return weights_fingerprint(Path(value)) if isinstance(value, str) and Path(value).exists() else value


def family_fingerprint(section: Mapping[str, Any]) -> str:
    """12 hex digits of a resolved section `family`, its folders of weights by their content.

    How the networks are run makes no other family, and neither does whether the hub is asked for them.
    """
    return content_hash({key: by_content(value) if key in FAMILY else value
                         for key, value in section.items() if key not in ("running", "offline")})


@cache
def _fingerprint(files: tuple[tuple[Path, Path, int, int], ...]) -> str:
    """Of (file, its name, size, time of change): read once as long as those stay as they are."""
    whole = sum(size for _, _, size, _ in files) <= HASHED_WHOLE
    digest = hashlib.sha256()
    for path, name, size, _ in files:
        digest.update(f"{name} {size}\n".encode())
        if whole:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _readable(changed: dict[str, Any], task: str) -> str:
    """A short name from the overrides of the command line, or from what is changed where there is none."""
    if HydraConfig.initialized():
        overrides = [text.lstrip("+~") for text in HydraConfig.get().overrides.task]
        pairs = [text.partition("=")[::2] for text in overrides]
    else:
        pairs = [(key, str(value)) for key, value in changed.items()]
    words = []
    for key, value in pairs:
        if not is_volatile(key, task):
            value = Path(value).name if key in INPUTS else _short(value)
            words.append(f"{key.split('.')[-1]}-{value}")
    # Only letters that need no quotes on a command line, in Hydra or in a shell.
    name = "+".join(re.sub(r"[^A-Za-z0-9._]+|__+", "-", word).strip("-.") for word in words) or "default"
    return shortened(name)


def shortened(name: str) -> str:
    """At most `LONGEST_NAME` letters of `name`, cut between settings, else between words.

    Half a word would be taken for a value.
    """
    if len(name) <= LONGEST_NAME:
        return name
    cut = name[:LONGEST_NAME + 1]
    ends = [cut.rfind(mark) for mark in ("+", "-", "_")]
    end = next((end for end in ends if end >= LONGEST_NAME // 2), LONGEST_NAME)
    return cut[:end].rstrip("-_.+")


def _short(value: str) -> str:
    """A number of many digits, as a search proposes them, by its first four; the hash tells runs apart."""
    return f"{float(value):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", value) else value
