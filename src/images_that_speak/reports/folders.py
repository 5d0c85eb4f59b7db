"""Run folders as the pages see them: what was set, what came out, which samples there are."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import flatten, read_written
from ..errors import UserError, nearest
from ..figures import Figure, known
from ..files import names_apart, read_json
from ..resources import ROOT
from ..runs.identity import VOLATILE
from ..runs.sample import Sample as Stored
from ..runs.sample import is_sample, samples_of
from ..tasks import task_of

# Where a run wrote and where it computed is no setting to compare or to filter by.
MACHINE = (*VOLATILE, "hydra", "batch_size")
# What an evaluation sets by itself.
READING = ("reader", "words", "run")
# Folders below which no run folder is looked for.
INSIDE = ("samples", "checkpoints", "weights", "wandb")
# Beside figures, what of a table of samples is a number.
COUNTS = ("words", "second_words", "characters", "phones", "rank")


@dataclass(frozen=True)
class Sample:
    """One picture and its sound. `scores` holds little until it was read back."""

    id: str
    image: Path
    spectrogram: Path | None = None
    sound: Path | None = None
    image_prompt: str | None = None
    audio_prompt: str | None = None
    seed: int | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    colour: Path | None = None


@dataclass(frozen=True)
class RunFolder:
    """A folder with run.json. Everything is read when it is asked for."""

    path: Path
    info: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def task(self) -> str:
        return str(self.info.get("task", "run"))

    @property
    def about(self) -> Path | None:
        """The folder of the run that this one reads, where its task reads one."""
        key = task_of(self.task).reads
        return None if key is None else _existing(self._own.get(key))

    @property
    def reads(self) -> bool:
        """Whether it is about another run's samples, or about anyone's pictures."""
        return task_of(self.task).reads is not None

    @property
    def status(self) -> str:
        return "finished" if self.result is not None else str(self.info.get("status", "unknown"))

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """result.json, or None where the run is not finished."""
        path = self.path / "result.json"
        return read_json(path) if path.exists() else None

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures that it and its samples may have, those of metrics of one's own among them."""
        return known(self.result)

    @cached_property
    def config(self) -> dict[str, Any]:
        """{dotted key: value} of config.yaml; of an evaluation, of the run it read, and its own reader."""
        own = self._own
        if not self.reads:
            return own
        reader = {key: value for key, value in own.items() if key.split(".")[0] in READING}
        return {**({} if self.about is None else _read_config(self.about / "config.yaml")), **reader}

    @cached_property
    def _own(self) -> dict[str, Any]:
        return _read_config(self.path / "config.yaml")

    @property
    def subject(self) -> Path:
        """The folder that holds what this run is about: an evaluation's is the run that it read."""
        return (self.about or self.path).resolve()

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The names of the readers behind its scores: of speech and of pictures."""
        scores = self.samples[0].scores if self.samples else {}
        result = self.result or {}
        return tuple(str(result.get(key) or scores.get(key) or "no reader")
                     for key in ("speech_reader", "picture_reader"))

    @property
    def chosen(self) -> set[str]:
        """The settings that the command changed; others may follow from them by interpolation."""
        info = self.info
        if (read := self.about) is not None and (read / "run.json").exists():
            info = read_json(read / "run.json")
        # Another choice of a group brings keys that follow others: ${guidance.audio_weight}.
        return {key for key, value in (info.get("changed") or {}).items()
                if not (isinstance(value, str) and "${" in value)}

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples of the run; of an evaluation, those that it read, with the scores that it gave."""
        if self.reads:
            return _evaluated(self.path / "samples.csv", self.figures)
        return [_sample(folder) for folder in samples_of(self.path)]

    @cached_property
    def metrics(self) -> dict[str, list[tuple[int, float]]]:
        """{name: [(step, value), …]} of metrics.jsonl; a last line that was cut off is left out."""
        found: dict[str, list[tuple[int, float]]] = {}
        path = self.path / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            for key, value in row.items():
                if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                    found.setdefault(key, []).append((int(row["step"]), float(value)))
        return found


def find_runs(paths: Iterable[str | Path]) -> list[RunFolder]:
    """The run folders among `paths` and, for every other folder, below it; each once, in order.

    A folder of a sweep may hold its jobs or links to them. Raises UserError for a path that is not there or
    holds no run.
    """
    found: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{path}: no such folder (expected a run folder, or one that holds run folders)."
                            f"{nearest(path.name, siblings)}")
        below = [path] if (path / "run.json").exists() else sorted(_below(path))
        if not below:
            raise UserError(f"{path}: holds no run (expected run.json in it or in a folder below it, as "
                            "generate.py, evaluate.py and train.py write)")
        for folder in below:
            if folder.resolve() not in found:
                info = read_json(folder / "run.json")
                found[folder.resolve()] = RunFolder(folder, info if isinstance(info, dict) else {})
    return list(found.values())


def _below(top: Path) -> Iterable[Path]:
    visited = set()
    for where, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(where)
        if "run.json" in files:
            yield Path(where)
            folders.clear()
        elif real in visited:  # a link to a folder above would never end
            folders.clear()
        visited.add(real)
        folders[:] = sorted(f for f in folders if f not in INSIDE and not f.startswith("."))


def varied(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """{key: the value in each run} for every setting in which `runs` differ; None where a run lacks it."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key.split(".")[0] not in MACHINE)
    table = {key: [run.config.get(key) for run in runs] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def chosen(runs: Sequence[RunFolder], keys: Iterable[str]) -> list[str]:
    """Those of `keys` that a command of `runs` changed; all, where none did (defaults may have moved).

    The rest differ only because they follow a changed one, and would be shown twice.
    """
    keys = list(keys)
    own = set().union(*(run.chosen for run in runs)) if runs else set()
    if any(run.reads for run in runs):
        own |= {key for key in keys if key.split(".")[0] in READING}
    kept = [key for key in keys if key in own] or keys
    return [key for key in kept if not _follows_choice(runs, key, kept)]


def _follows_choice(runs: Sequence[RunFolder], key: str, keys: Sequence[str]) -> bool:
    """Whether `key` is an option of but one choice of a group, and the same wherever it is there.

    So scheduler.algorithm_type follows scheduler.name, which says already that the scheduler is another.
    """
    group = key.rpartition(".")[0]
    if not group or not {f"{group}._target_", f"{group}.name"} & {*keys} - {key}:
        return False
    there = [run.config[key] for run in runs if key in run.config]
    return len(there) < len(runs) and all(value == there[0] for value in there)


def title(key: str) -> str:
    """A setting's name as people know it: of what says which choice of a group was taken, the group."""
    return key.removesuffix("._target_").removesuffix(".name")


def told(key: str, value: Any) -> Any:
    """A setting's value as people know it: of a class to be built, its name, as `mean_of_draws`."""
    if not key.endswith("._target_") or not isinstance(value, str):
        return value
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value.rpartition(".")[2]).lower()


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """{dotted key: its last part}, or as many parts as tell it from the others."""
    keys = list(keys)
    every = [title(key).split(".") for key in keys]
    found = {}
    for key, parts in zip(keys, every, strict=True):
        count = next(n for n in range(1, len(parts) + 1)
                     if n == len(parts) or sum(other[-n:] == parts[-n:] for other in every) == 1)
        found[key] = ".".join(parts[-count:])
    return found


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return flatten(read_written(path))


def _value(text: str) -> float | bool:
    """A cell of a table: yes or no, or a number."""
    return text == "True" if text in ("True", "False") else float(text)


def _existing(path: Any) -> Path | None:
    """A path as a run was told it: seen from here or from the checkout."""
    if not path:
        return None
    return next((place for place in (Path(path), ROOT / path) if place.exists()), None)


def _sample(folder: Path, scores: Mapping[str, Any] | None = None, name: str | None = None) -> Sample:
    record = Stored.read(folder).record

    def there(name: str) -> Path | None:
        return folder / name if (folder / name).exists() else None

    scores = dict(record.get("scores") or {}) if scores is None else dict(scores)
    if record.get("evaluations") is not None:  # what it cost stands beside what it reached
        scores.setdefault("evaluations", record["evaluations"])
    # A photograph that nobody described is told by its file.
    pictured = record.get("image_prompt") or _file_name(record.get("source"))
    return Sample(name or folder.name, folder / "image.png", there("spectrogram.png"), there("speech.wav"),
                  pictured, record.get("audio_prompt"), record.get("seed"), scores,
                  there("colour.png"))


def _file_name(source: Any) -> str | None:
    return Path(str(source["path"])).name if isinstance(source, dict) and source.get("path") else None


def _evaluated(path: Path, figures: Iterable[str]) -> list[Sample]:
    """The samples of an evaluation's table; those whose picture is gone are left out.

    Of several runs of the same prompts, samples of one sample_id are told apart by their folders.
    """
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(row, image) for row in csv.DictReader(file) if (image := _existing(row.get("file")))]
    folders = [image.parent for _, image in rows if is_sample(image.parent)]
    names = dict(zip(folders, names_apart(folders), strict=True))
    found = []
    for row, image in rows:
        scores: dict[str, Any] = {key: value or None for key, value in row.items()}
        scores |= {key: _value(row[key]) for key in (*COUNTS, *figures) if row.get(key)}
        scores["heard"] = row.get("heard") or ""
        if image.parent in names:
            found.append(_sample(image.parent, scores, names[image.parent]))
            continue
        sounds = [image.with_name(image.stem.removesuffix("_img") + ending) for ending in (".wav", ".flac")]
        # Pictures of anyone: npy cannot be shown, but its picture may lie beside it.
        shown = image if image.suffix.lower() != ".npy" else image.with_suffix(".png")
        found.append(Sample(
            row["name"], shown, None, next((sound for sound in sounds if sound.exists()), None),
            row.get("image_prompt") or None, row.get("audio_prompt") or None, None, scores))
    return found
