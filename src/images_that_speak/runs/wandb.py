"""Weights & Biases: online when logged in, else offline in the run folder; never a question."""

from __future__ import annotations

import json
import logging
import netrc
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..config import first_line
from ..errors import UserError
from ..validate import LONGEST_TAG
from .membership import current_sweep

log = logging.getLogger(__name__)
PATIENCE = 30  # seconds that a server has to answer
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


def _agents_id() -> str | None:
    """The id that an agent of a W&B sweep gives to the run of this process, or None."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def _keep_inside(folder: Path) -> None:
    """Have W&B stage the media of tables in `folder` too, not in the home: `wandb sync` needs them there.

    Where the user has set its folders, those stay.
    """
    folder.mkdir(exist_ok=True)  # else W&B complains and writes to the system's temporary folder
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        if os.environ.get(name) in (None, *_chosen_here):
            os.environ[name] = str(folder.resolve())
            _chosen_here.add(os.environ[name])


def refill(run: Any, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Log what of `rows` is in no log of the run's earlier processes in `folder`.

    rows: of metrics.jsonl, "step" being W&B's trainer/global_step. W&B writes its log in blocks, and a
    process that is killed loses the last one; metrics.jsonl is whole.
    """
    try:
        # The log of this process is open, and holds nothing yet.
        logs = [path for path in folder.glob(f"wandb/*run-*/run-{run.id}.wandb")
                if path.parent.resolve() != Path(run.dir).parent.resolve()]
        known = {entry for path in logs for entry in logged(path)}
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("what W&B lacks since the kill is not known (%s); metrics.jsonl has all",
                    first_line(error))
        return
    for row in rows:
        step, values = row["step"], {name: value for name, value in row.items() if name != "step"}
        if lacking := {name: value for name, value in values.items() if (step, name) not in known}:
            run.log({**lacking, "trainer/global_step": step})


def logged(path: Path) -> set[tuple[int, str]]:
    """(trainer/global_step, name) of every figure in a log of W&B's, read by its own reader.

    Raises OSError, SubprocessError or ValueError where it cannot be.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    told = subprocess.run(command, capture_output=True, check=True, timeout=600).stdout
    found = set()
    for line in told.decode(errors="replace").splitlines():
        record = json.loads(line) if '"history"' in line else {}
        items = record.get("history", {}).get("item", {})
        if "trainer/global_step" in items:
            found |= {(int(items["trainer/global_step"]), name) for name in items}
    return found


def start(folder: Path, task: str, cfg: DictConfig, run_id: str | None, project: str,
          entity: str | None = None, mode: str = "auto", tags: list[str] | None = None,
          notes: str | None = None, artifacts: bool = True) -> Any:
    """Begin the W&B run of a run folder, or go on with the one whose id is `run_id`.

    `mode: auto` follows WANDB_MODE where that is set, else is online when logged in. Falls back to offline
    when the server does not answer. Jobs of one sweep form a group; the run is called what it changes. Under
    an agent of a W&B sweep the agent's run is this one. `artifacts` is read by who logs them.
    """
    import wandb

    where: Any = mode
    if mode == "auto":
        where = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    sweep = current_sweep()
    experiment = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
    settings: dict[str, Any] = dict(
        project=project, entity=entity, name=folder.name.split("__")[0], resume="allow", dir=str(folder),
        id=_agents_id() or run_id, group=sweep.name if sweep else None,
        job_type=task, notes=notes,
        tags=[*map(str, tags or ()), *([experiment[-LONGEST_TAG:]] if experiment else [])] or None,
        config=OmegaConf.to_container(cfg, resolve=True), reinit="create_new",
        settings=wandb.Settings(quiet=True, console="off", x_disable_stats=where == "offline",
                                init_timeout=PATIENCE))
    _keep_inside(folder / "wandb")
    try:
        started = wandb.init(mode=where, **settings)
    except Exception as error:
        if where != "online":
            raise UserError(f"logger.wandb: W&B refuses this run ({first_line(error)})") from error
        log.warning("W&B cannot be reached (%s): logging offline; `wandb sync %s` sends it later", error,
                    folder / "wandb")
        started = wandb.init(mode="offline", **settings)
    # An offline run that is gone on with counts its own steps from 0 again: plot against ours.
    started.define_metric("trainer/global_step")
    started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return started
