"""Which sweep a job belongs to, and the sweep's link to the job's run folder."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ..errors import UserError


def current_sweep() -> Path | None:
    """The folder of the sweep that the job at work belongs to, or None."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir)


def join(sweep: Path, run: Path) -> None:
    """Link the run folder into the sweep's folder; relative, so that logs/ can be moved."""
    link = sweep / run.name
    try:
        sweep.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)  # led to a folder that is gone
            link.symlink_to(os.path.relpath(run.resolve(), sweep.resolve()))
    except FileExistsError:  # another process was quicker
        pass
    except OSError as error:
        raise UserError(f"{link}: cannot be written ({error.strerror})") from error
