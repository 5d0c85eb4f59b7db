"""Weights & Biases: online when logged in, else offline in the run folder; never a question."""

from __future__ import annotations

import logging
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)
_chosen_here: set[str] = set()


def logged_in() -> bool:
    """Whether W&B knows a key: WANDB_API_KEY, or an entry of its host in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _keep_inside(folder: Path) -> None:
    """Have W&B stage the media of tables in `folder` too, not in the home: `wandb sync` needs them there.

    Where the user has set its folders, those stay.
    """
    folder.mkdir(exist_ok=True)  # else W&B complains and writes to the system's temporary folder
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        if os.environ.get(name) in (None, *_chosen_here):
            os.environ[name] = str(folder.resolve())
            _chosen_here.add(os.environ[name])


def start(folder: Path, task: str, cfg: DictConfig, run_id: str | None, project: str,
          entity: str | None = None, mode: str = "auto", tags: list[str] | None = None,
          notes: str | None = None) -> Any:
    """Begin the W&B run of a run folder, or go on with the one whose id is `run_id`.

    `mode: auto` follows WANDB_MODE where that is set, else is online when logged in. Falls back to offline
    when the server cannot be reached. Jobs of one sweep form a group.
    """
    import wandb

    where: Any = mode
    if mode == "auto":
        where = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    settings: dict[str, Any] = dict(
        project=project, entity=entity, name=folder.name, id=run_id, resume="allow", dir=str(folder),
        group=Path(HydraConfig.get().sweep.dir).name if multirun else None, job_type=task,
        tags=tags, notes=notes, config=OmegaConf.to_container(cfg, resolve=True), reinit="create_new",
        settings=wandb.Settings(quiet=True, console="off", x_disable_stats=where == "offline"))
    _keep_inside(folder / "wandb")
    try:
        started = wandb.init(mode=where, **settings)
    except Exception as error:
        if where != "online":
            raise
        log.warning("W&B cannot be reached (%s): logging offline; `wandb sync %s` sends it later", error,
                    folder / "wandb")
        started = wandb.init(mode="offline", **settings)
    # An offline run that is gone on with counts its own steps from 0 again: plot against ours.
    started.define_metric("trainer/global_step")
    started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return started
