"""A run folder, from opening to its result."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .. import config
from ..errors import UserError
from ..files import atomic_write, content_hash, plain, read_json, remove_temporary, write_json
from ..resources import ROOT
from ..tasks import TASKS
from .card import run_card
from .identity import VOLATILE, Identity, identify
from .membership import current_sweep, join
from .samples import log_samples, metrics_to_csv

log = logging.getLogger(__name__)
LIBRARIES = ("torch", "lightning", "diffusers", "transformers", "peft", "hydra-core")


def open_run(cfg: DictConfig, task: str) -> Run:
    """The run folder of `cfg`, a configuration of `task`: a new one, or the one to go on with.

    With `resume: DIR` that one, whatever is changed. With `fresh: true` always a new one, beside those that
    exist. To be used as a context manager.
    """
    identity = identify(cfg, task)
    attempts = _attempts(cfg, identity)
    if cfg.get("resume"):
        folder = Path(cfg.resume)
    elif not attempts:
        folder = _home(cfg, task) / identity.folder
    elif cfg.fresh:
        folder = attempts[-1].with_name(f"{attempts[0].name.split('__')[0]}__{identity.hash}"
                                        f".{_number(attempts[-1]) + 1}")
    else:
        folder = attempts[-1]
    return Run(folder, cfg, identity)


def finished(cfg: DictConfig, task: str) -> tuple[Path, dict[str, Any]] | None:
    """The folder and the result of the run of `cfg` when there is nothing left to do, else None."""
    if "fresh" not in cfg or cfg.fresh:
        return None
    attempts = [Path(cfg.resume)] if cfg.get("resume") else _attempts(cfg, identify(cfg, task))
    if not attempts or not (attempts[-1] / "result.json").exists():
        return None
    if cfg.get("resume") and differences(attempts[-1], cfg):
        return None
    return attempts[-1], read_json(attempts[-1] / "result.json")


def latest(cfg: DictConfig, task: str) -> Path:
    """The folder that `cfg` was last run in. Raises IndexError when it was not run yet."""
    return _attempts(cfg, identify(cfg, task))[-1]


def differences(folder: Path, cfg: DictConfig) -> list[str]:
    """`key: before → now` for every setting of the run in `folder` that `cfg` has otherwise.

    What is volatile (see identity.py) and what follows from where things lie is left out.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return []
    before = config.flatten(config.read_written(path))
    after = config.flatten(OmegaConf.to_container(cfg, resolve=True))
    written = config.flatten(OmegaConf.to_container(cfg, resolve=False))
    volatile = (*VOLATILE, "batch_size")
    return [f"{key}: {_at(before, key)} → {_at(after, key)}" for key in dict.fromkeys([*before, *after])
            if before.get(key) != after.get(key) and key.split(".")[0] not in volatile
            and not re.search(r"\$\{(paths|root)", str(written.get(key)))]


def _at(flat: Mapping[str, Any], key: str) -> Any:
    return flat[key] if key in flat else "absent"


def _home(cfg: DictConfig, task: str) -> Path:
    return Path(cfg.paths.logs) / task


def _attempts(cfg: DictConfig, identity: Identity) -> list[Path]:
    """The folders of this identity, the oldest first: …__hash, …__hash.2, and so on."""
    home = _home(cfg, identity.task)
    found = [p for p in home.glob(f"*__{identity.hash}*") if p.is_dir()] if home.is_dir() else []
    return sorted(found, key=_number)


def _number(folder: Path) -> int:
    tail = folder.name.rpartition("__")[2].partition(".")[2]
    return int(tail) if tail.isdigit() else 1


class Run:
    """One run and its folder.

    Attributes:
        dir: the folder. name: its name. task: train, generate or evaluate.
        result: what `finish` wrote, or None while there is something left to do.
        resumed: whether the folder was begun by an earlier command.
        identity: hash and changed configuration.
        follows: whether this process only computes for another, which writes (a rank above 0).

    With `resume: DIR` the folder stays as it is until `begin` is called, for the settings of now may not fit
    what lies there; else opening it begins.
    """

    def __init__(self, folder: Path, cfg: DictConfig, identity: Identity):
        self.follows = _rank() > 0
        self.dir = folder
        self.name = folder.name
        self.task = identity.task
        self.cfg = cfg
        self.identity = identity
        self.result: dict[str, Any] | None = None
        self.resumed = False
        self._lock: Any = None
        self._info: dict[str, Any] = {}
        self._samples_shown: list[Path] | None = None
        self._changes: list[str] = []
        self._begun = self.follows
        self._killed = False  # whether the process before this one ended without a word

    # --- opening and closing

    def __enter__(self) -> Run:
        if self.follows:
            return self
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.dir / ".lock", "a+", encoding="utf-8")
        except OSError as error:
            logs = self.cfg.paths.logs
            raise UserError(f"paths.logs={logs}: cannot be written ({error.strerror})") from error
        try:
            # Let go by the system when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise UserError(f"{self.dir}: {holder} is at work on this very run; wait for it, or give "
                            "fresh=true for a run of its own") from error
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"process {os.getpid()} on {platform.node()}")
        self._lock.flush()
        if (sweep := current_sweep()) is not None:
            join(sweep, self.dir)
        self._info = read_json(self.dir / "run.json") if (self.dir / "run.json").exists() else {}
        self.resumed = bool(self._info)
        self._changes = differences(self.dir, self.cfg)
        again = self.cfg.get("resume") and self._changes
        if (self.dir / "result.json").exists() and not again:
            self.result = read_json(self.dir / "result.json")
        self._tell(self._changes)
        if self.result is None and not (self.cfg.get("resume") and self.resumed):
            self.begin()
        return self

    def begin(self) -> None:
        """Make the folder that of the configuration of now: config.yaml, the command in run.json.

        A result that is there is kept as `result.<n>.json`. Once; a second call does nothing.
        """
        if self._begun:
            return
        self._begun = True
        before = self._info
        self._killed = before.get("status") == "running"
        if (self.dir / "result.json").exists():
            # There is something left to do again; what came out before is kept.
            os.replace(self.dir / "result.json", self.dir / f"result.{len(before['commands'])}.json")
        _drop_half_line(self.metrics_path)
        remove_temporary(self.dir)
        resolved = OmegaConf.to_container(self.cfg, resolve=True)
        command = {**_provenance(self.task), "time": _now(), "changes": self._changes}
        if (diff := _diff()) is not None:
            command["diff"] = f"code-{hashlib.sha256(diff.encode()).hexdigest()[:10]}.diff"
            if not (self.dir / command["diff"]).exists():
                atomic_write(self.dir / command["diff"], diff)
        self._info = {
            "task": self.task, "name": self.name, "hash": before.get("hash", self.identity.hash),
            "status": "running", "changed": self.identity.changed, "config_hash": content_hash(resolved),
            "wandb_id": before.get("wandb_id"), "created": before.get("created", _now()),
            "commands": [*before.get("commands", []), command]}
        text = OmegaConf.to_yaml(self.cfg, resolve=True)
        atomic_write(self.dir / "config.yaml", f"# {command['command']}\n{text}")
        self._save()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.follows:
            return
        try:
            if error is None:
                status = "finished" if self.result is not None else "interrupted"
            else:
                status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "failed"
            self._close_loggers(crashed=error is not None)
            if self._begun and self._info.get("status") == "running":
                # The disk may be full: the error that brought us here is the one to report.
                told = {} if error is None else {
                    "error": f"{type(error).__name__}: {error}",
                    "traceback": "".join(traceback.format_exception(error))}
                try:
                    self._save(status=status, **told)
                    if isinstance(error, Exception):
                        error.recorded = True  # type: ignore[attr-defined]
                except UserError:
                    if error is None:
                        raise
        finally:
            self._lock.close()

    def _save(self, **values: Any) -> None:
        self._info.update(values, updated=_now())
        write_json(self.dir / "run.json", self._info)

    def _tell(self, changes: list[str]) -> None:
        """What is not as it was when the folder was last worked on."""
        if self.cfg.get("resume"):
            print(f"goes on in {self.dir}, {'changed:' if changes else 'nothing changed'}")
            for change in changes:
                print(f"  {change}")
        elif changes:
            # The identity shows what the command changes, not that defaults have moved.
            log.warning("%s was begun with other settings (%s); fresh=true starts anew", self.dir,
                        "; ".join(changes[:5]))

    # --- what a task uses

    @property
    def metrics_path(self) -> Path:
        return self.dir / "metrics.jsonl"

    @property
    def samples_dir(self) -> Path:
        return self.dir / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.dir / "checkpoints"

    def sample_dir(self, sample_id: str) -> Path:
        """The folder of one sample, made when it is not there."""
        folder = self.samples_dir / sample_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        return folder

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append a line to metrics.jsonl, and hand the numbers to the loggers that are open.

        For generating and evaluating; a training is logged by Lightning (see metrics.py).
        """
        if self.follows:
            return
        tracker = self.wandb  # begun before the line is written, for it may log again what is there
        append_metrics(self.metrics_path, metrics, step)
        if tracker is not None:
            tracker.log({**metrics, "trainer/global_step": step})

    def log_samples(self, folders: Iterable[str | Path] | None = None) -> None:
        """Show sample folders in the loggers of the configuration; by default those of this run.

        Called by `finish` where it has not been called before.
        """
        if folders is None:
            folders = sorted(self.samples_dir.iterdir()) if self.samples_dir.is_dir() else ()
        self._samples_shown = [Path(folder) for folder in folders]
        csv, tensorboard = self._setting("csv"), self._setting("tensorboard")
        if (csv, tensorboard, self.wandb) != (None, None, None):
            log_samples(self._samples_shown, self.dir, csv, tensorboard, self.wandb)

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the run card, close the run and, last, write result.json; NaN and infinity become null."""
        clean = plain(result)
        if self.follows:
            return clean
        self.begin()
        if self._samples_shown is None:
            self.log_samples()
        if self.wandb is not None:
            numbers = {k: v for k, v in config.flatten(clean).items() if isinstance(v, (int, float))}
            self.wandb.summary.update(numbers)
            if self._setting("wandb").get("artifacts"):
                self._log_artifacts(clean)
        if self._setting("csv") is not None:
            metrics_to_csv(self.metrics_path, self.dir / self._setting("csv")["metrics"])
        atomic_write(self.dir / "README.md", run_card(
            self.dir, self._info, clean, self._samples_shown or ()))
        self._save(status="finished", error=None)
        write_json(self.dir / "result.json", clean)
        self.result = clean
        return clean

    # --- loggers

    def _setting(self, logger: str) -> Any:
        """The section of one logger, or None when it was not chosen."""
        chosen = OmegaConf.select(self.cfg, f"logger.{logger}")
        return None if chosen is None else OmegaConf.to_container(chosen, resolve=True)

    @cached_property
    def wandb(self) -> Any:
        """The W&B run, begun or gone on with, or None when logger=wandb was not chosen."""
        setting = self._setting("wandb")
        if setting is None or self.result is not None or self.follows:
            return None
        from .wandb import refill, start

        started = start(self.dir, self.task, self.cfg, self.wandb_id, **setting)
        if self._info.get("wandb_id") != started.id:
            self._save(wandb_id=started.id)
        if self._killed and not TASKS[self.task].trains:
            refill(started, self.dir, read_metrics(self.metrics_path))
        return started

    def refill(self, done: int) -> None:
        """Log again at W&B what a kill kept from it of a training's metrics, up to the step `done`."""
        if self._killed and self.wandb is not None:
            from .wandb import refill

            rows = [row for row in read_metrics(self.metrics_path) if row["step"] <= done]
            # Lightning counts the steps that are done before a step is logged.
            refill(self.wandb, self.dir, [{**row, "step": row["step"] - 1} for row in rows])

    def _log_artifacts(self, result: Mapping[str, Any]) -> None:
        from . import artifacts

        task = TASKS[self.task]
        artifacts.use_inputs(self.wandb, self.cfg, task)
        if task.trains:
            artifacts.log_weights(self.wandb, self.dir / "weights", {
                "config_hash": self._info["config_hash"], "git": self._info["commands"][-1]["git"],
                **{k: v for k, v in result.items() if isinstance(v, (int, float))}})
        elif task.makes_samples:
            artifacts.log_pictures(self.wandb, self.dir)

    @property
    def wandb_id(self) -> str | None:
        return self._info.get("wandb_id")

    @cached_property
    def loggers(self) -> list[Any]:
        """Lightning loggers for a Trainer, as the configuration chooses."""
        found: list[Any] = []
        if self.wandb is not None:
            from lightning.pytorch.loggers import WandbLogger

            found.append(WandbLogger(experiment=self.wandb))
        if (setting := self._setting("tensorboard")) is not None and not self.follows:
            from lightning.pytorch.loggers import TensorBoardLogger

            found.append(TensorBoardLogger(self.dir, name="", version=setting["folder"]))
        return found

    def _close_loggers(self, crashed: bool) -> None:
        if self.__dict__.get("wandb") is not None:
            self.wandb.finish(exit_code=1 if crashed else 0)


def append_metrics(path: Path, metrics: Mapping[str, Any], step: int) -> None:
    """One line of JSON: step, then the metrics. No clock: the same run writes the same bytes."""
    line = json.dumps({"step": int(step), **plain(metrics)}, allow_nan=False) + "\n"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none where nothing was logged."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _drop_half_line(path: Path) -> None:
    """A process killed while it wrote leaves a line without its end."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _rank() -> int:
    """This process's number among those that train one model together, as Lightning counts them."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


# The code of a process is what it was when the process began, so these are asked for once.
@cache
def _commit() -> str | None:
    return (_git("rev-parse", "HEAD") or "").strip() or None


@cache
def _diff() -> str | None:
    """What the code has beyond its commit, or None; of a very large change only that it was there."""
    diff = _git("diff", "HEAD", "--no-ext-diff", "--", "*.py", "*.yaml", "*.toml")
    return None if not diff else diff if len(diff) < 2**22 else f"{len(diff)} characters, not kept\n"


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _provenance(task: str) -> dict[str, Any]:
    """Which command, which code, which libraries. Of a job of a sweep, the command that makes it alone."""
    if HydraConfig.initialized():
        overrides = list(HydraConfig.get().overrides.task)
        words = [*TASKS[task].program, *overrides]
    else:
        overrides, words = [], [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"command": f"python {shlex.join(words)}", "overrides": overrides, "git": _commit(),
            "dirty": _diff() is not None, "versions": _versions()}
