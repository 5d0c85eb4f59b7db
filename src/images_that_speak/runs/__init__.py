"""Run folders: identity, resuming, metrics, results, loggers. Imports neither torch nor Lightning.

    with open_run(cfg, "generate") as run:
        if run.result is None:
            ...  # write run.sample_dir(sample_id), call run.log({"loss": 1.0}, step)
            run.finish({"wer": 0.1})

A run is what its task and its changed configuration say (identity.py). A run folder holds `run.json` (status,
identity, commands, W&B id), `config.yaml`, `metrics.jsonl`, `samples/<sample_id>/`, `README.md` and, written
last, `result.json`: where that is, nothing is left to do.
"""

from __future__ import annotations

from .card import describe
from .exported import export_weights
from .identity import Identity, identify
from .membership import current_sweep, join
from .origin import as_made
from .resume import resumed
from .run import Run, differences, finished, latest, open_run

__all__ = ["Identity", "Run", "as_made", "current_sweep", "describe", "differences", "export_weights",
           "finished", "identify", "join", "latest", "open_run", "resumed"]
