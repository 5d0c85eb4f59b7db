"""W&B artifacts: the weights a training made, the pictures a generation made, and who used which.

An artifact's version is its content. A run that uses weights declares an artifact of the same name and
content; W&B finds that it has that version already and draws the line from training to generation to
evaluation. So there is lineage also between runs that logged offline, when they are sent in their order.
Files are not copied: send them from where they lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..files import read_json
from ..tasks import Task

# Config key: what lies at the folder that it names.
USED = {"family.lora": "adapter", "family.adapter": "adapter", "vocoder.path": "vocoder"}
PICTURES = "image.png"


def log_weights(started: Any, folder: Path, metadata: dict[str, Any]) -> None:
    """Log the folder `weights/` that a training wrote; nothing where there is none."""
    if folder.is_dir() and any(folder.rglob("*.safetensors")):
        started.log_artifact(weights(folder, metadata=metadata), aliases=["latest"])


def log_pictures(started: Any, folder: Path) -> None:
    """Log the pictures of a generation, which are all that an evaluation reads."""
    if any(folder.glob(f"samples/*/{PICTURES}")):
        started.log_artifact(pictures(folder), aliases=["latest"])


def use_inputs(started: Any, cfg: DictConfig, task: Task) -> None:
    """Declare what a run builds upon: an adapter, a vocoder, the pictures of another run."""
    used = []
    for key, kind in USED.items():
        folder = OmegaConf.select(cfg, key) if key in task.inputs else None
        if folder and Path(folder).is_dir():
            used.append(weights(Path(folder), kind))
    run = cfg.get(task.reads) if task.reads is not None else None
    if run and (Path(run) / "run.json").is_file():
        used.append(pictures(Path(run)))
    for artifact in used:
        if started.offline:
            # What use_artifact does online with an artifact that is not logged yet; offline it refuses.
            started._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            started.use_artifact(artifact)


def weights(folder: Path, kind: str | None = None, metadata: dict[str, Any] | None = None) -> Any:
    """The artifact of a folder of weights. Its name is that of the training that wrote it, where one did."""
    made_by = next((parent for parent in folder.resolve().parents[:2]
                    if (parent / "run.json").is_file()), None)
    # A part of what a training exported is used as the whole: the whole is what it logged.
    whole = made_by / "weights" if made_by and (made_by / "weights").is_dir() else folder
    return _artifact(made_by.name if made_by else folder.name, kind_of(whole) or kind or "model",
                     whole, (p for p in whole.rglob("*") if p.is_file()), metadata or {})


def kind_of(folder: Path) -> str | None:
    """What a folder of weights is: an adapter, a vocoder, or None for anything else."""
    if (folder / "pytorch_lora_weights.safetensors").exists() or (folder / "adapter").is_dir():
        return "adapter"
    return "vocoder" if (folder / "vocoder").is_dir() else None


def pictures(run: Path) -> Any:
    """The artifact of a generation's pictures; scores, which an evaluation changes, are no part of it."""
    return _artifact(f"{read_json(run / 'run.json')['name']}-pictures", "pictures", run / "samples",
                     (run / "samples").glob(f"*/{PICTURES}"), {})


def _artifact(name: str, kind: str, root: Path, files: Iterable[Path], metadata: dict[str, Any]) -> Any:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[-120:], kind, metadata=metadata)
    for path in sorted(files):
        artifact.add_file(str(path), str(path.relative_to(root)), policy="immutable")
    return artifact
