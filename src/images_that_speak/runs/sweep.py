"""A sweep's folder: its name, the jobs it holds, and what came of them.

`logs/sweeps/<name>__<hash>/` holds a link to every run of the sweep, and, written when a command ends,
`sweep.json`, `jobs.csv` and `README.md`. The runs themselves lie where a single command would put them, so
that a run belongs to as many sweeps as ask for it and is made once.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from .. import config
from ..errors import UserError
from ..figures import known
from ..files import atomic_write, content_hash, read_json, write_json
from ..tasks import TASKS
from .identity import is_volatile
from .run import open_run
from .samples import write_csv


def sweep_name(task: str, overrides: Sequence[str]) -> str:
    """The name of the sweep that a command line asks for: `audio_weight+seed__0123456789`.

    The swept keys count, not their values: a sweep that is widened or narrowed is the same sweep. So do the
    values of keys that are not swept, unless they are volatile (see identity.py) or Hydra's own.
    """
    swept, fixed = [], {}
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            continue  # told by config.check
        key = override.get_key_element()
        if override.is_sweep_override():
            swept.append(key)
        elif not key.startswith(("hydra.", "hydra/launcher")) and not is_volatile(key.lstrip("+~"), task):
            fixed[key] = override.get_value_element_as_str()
    digest = content_hash({"task": task, "swept": sorted(swept), "fixed": fixed}, 10)
    name = "+".join(re.sub(r"[^A-Za-z0-9_]+", "-", key.split(".")[-1]).strip("-") for key in swept) or task
    return f"{name[:60].rstrip('-_+')}__{digest}"


def sweep_folder(task: str, overrides: Sequence[str]) -> Path:
    """Where the sweep of a command line lies; `hydra.sweep.dir=…` chooses another place."""
    for text in overrides:
        if text.startswith("hydra.sweep.dir="):
            return Path(str(OverridesParser.create().parse_override(text).value()))
    places = [text for text in overrides if text.lstrip("+").startswith("paths.")]
    logs = Path(config._compose(task, places).paths.logs).resolve()
    return logs / "sweeps" / sweep_name(task, overrides)


def make_writable(folder: Path) -> None:
    """Make a sweep's folder before any job begins. Raises UserError where nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); the folder of a sweep lies below "
                        "paths.logs, which may be another") from error


def record_failure(cfg: DictConfig, task: str, error: Exception) -> None:
    """Have run.json of the job's folder say why it failed, where the failure came before it was opened."""
    if getattr(error, "recorded", False):
        return
    try:
        with open_run(cfg, task):
            raise error
    except Exception as raised:
        if raised is not error and not isinstance(raised, UserError):
            raise


def given_keys(commands: Iterable[str]) -> list[str]:
    """The keys that commands sweep over, in the order in which they were given."""
    keys: dict[str, None] = {}
    for text in (word for command in commands for word in shlex.split(command)):
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:  # the program, or a flag
            continue
        if override.is_sweep_override():
            keys.setdefault(override.get_key_element().lstrip("+~"))
    return list(keys)


def gather(folder: Path, given: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What is known of every job of a sweep: name, status, changed settings, result, error, run folder.

    "settings" has the value of every key that any of the jobs changed, also where it is the default; first
    those of `given`, a key or a group each, in that order.
    """
    jobs: list[dict[str, Any]] = []
    for link in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not (link / "run.json").is_file():
            continue
        info = read_json(link / "run.json")
        done = (link / "result.json").is_file()
        jobs.append({
            "name": link.name, "folder": os.path.relpath(link.resolve(), folder.resolve()),
            "status": "finished" if done else info["status"], "changed": info["changed"],
            "result": read_json(link / "result.json") if done else None,
            "error": None if done else info.get("error"), "updated": info.get("updated")})
    keys = dict.fromkeys(key for job in jobs for key in job["changed"])

    def place(key: str) -> int:
        return next((n for n, group in enumerate(given) if f"{key}.".startswith(f"{group}.")), len(given))

    ordered = sorted(keys, key=place)
    for job in jobs:
        job["settings"] = _settings(folder / job["name"], job["changed"], ordered)
    return jobs


def _settings(run: Path, changed: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """{key: value} of a run: what it changed, or else what its config.yaml says; without keys it lacks."""
    known = dict(changed)
    keys = list(keys)
    follows = [key for key, value in changed.items() if isinstance(value, str) and "${" in value]
    if (follows or any(key not in known for key in keys)) and (run / "config.yaml").is_file():
        whole = config.flatten(config.read_written(run / "config.yaml"))
        known = {**whole, **{key: value for key, value in changed.items() if key not in follows}}
    return {key: known[key] for key in keys if key in known}


def write_sweep(folder: Path, task: str) -> list[dict[str, Any]]:
    """Gather the jobs of a sweep into sweep.json, jobs.csv and README.md, and return them."""
    before = read_json(folder / "sweep.json") if (folder / "sweep.json").is_file() else {}
    command = f"python {shlex.join([*TASKS[task].program, *sys.argv[1:]])}"
    commands = list(dict.fromkeys([*before.get("commands", []), command]))
    jobs = gather(folder, given_keys(commands))
    if not jobs:
        return jobs
    columns, rows = table(jobs)
    write_json(folder / "sweep.json", {"task": task, "name": folder.name, "swept": swept_keys(jobs),
                                       "commands": commands, "jobs": jobs})
    write_csv(folder / "jobs.csv", columns, rows)
    heads = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines = ["| " + " | ".join(_cell(row.get(key)) for key in columns) + " |" for row in rows]
    listing = "\n".join(commands)
    errors = [f"- {job['name']}: {job['error']}" for job in jobs if job["error"]]
    parts = [f"# {folder.name}", f"A sweep of {task}, {len(jobs)} jobs.", f"```\n{listing}\n```",
             "\n".join([*heads, *lines]), *lacking(jobs),
             *(["Not finished:", "\n".join(errors)] if errors else [])]
    atomic_write(folder / "README.md", "\n\n".join(parts) + "\n")
    return jobs


def swept_keys(jobs: Iterable[dict[str, Any]]) -> list[str]:
    """The settings in which the jobs differ; those that follow from another one are left out."""
    jobs = list(jobs)
    keys = list(dict.fromkeys(key for job in jobs for key in job["settings"]))
    seen: dict[tuple[str, ...], str] = {}
    for key in keys:
        values = tuple(json.dumps(job["settings"].get(key), sort_keys=True) for job in jobs)
        if len(set(values)) > 1:
            seen.setdefault(values, key)
    return list(seen.values())


def table(jobs: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows: what is swept, the status, and the scores that any job has."""
    keys = swept_keys(jobs)
    results = [config.flatten(job["result"] or {}) for job in jobs]
    figures = {key: figure for job in jobs for key, figure in known(job["result"]).items()}
    scores = [name for name, figure in figures.items() if figure.headline and any(
        isinstance(found.get(name), (int, float)) or name == "clip" and found.get("no_clip")
        for found in results)]
    rows = [{**{key: job["settings"].get(key) for key in keys}, "status": job["status"],
             **{name: found.get(name) for name in scores}, "run": job["folder"]}
            for job, found in zip(jobs, results, strict=True)]
    return [*keys, "status", *scores, "run"], rows


def lacking(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Why some jobs have no CLIP figure, a line each."""
    return list(dict.fromkeys(f"no CLIP figure for {job['result']['no_clip']}" for job in jobs
                              if job["result"] and job["result"].get("no_clip")))


def shown(jobs: Sequence[dict[str, Any]], most: int = 60) -> str:
    """The table for a terminal, without the run folders; of many jobs the first."""
    columns, rows = table(jobs)
    cells = [[key.split(".")[-1] for key in columns[:-1]],
             *([_cell(row.get(key)) for key in columns[:-1]] for row in rows[:most])]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in cells]
    more = [f"and {len(rows) - most} more"] if len(rows) > most else []
    return "\n".join([*lines, *more, *lacking(jobs)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
