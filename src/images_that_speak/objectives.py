"""The figures of a result that a search can make small or large, by task; known before anything runs.

    python generate.py -m hydra/sweeper=optuna 'optimized_metrics=[wer,clip]' …
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .config import locate
from .errors import nearest
from .figures import FIGURES, READ_BACK, SEEN, Figure, declared_by
from .resources import choices
from .tasks import TASKS, named
from .values import PICTURE_READERS


def declared(cfg: DictConfig, task: str) -> dict[str, str]:
    """{name: minimize or maximize} of the figures that a run of `cfg` will have."""
    figures = TASKS[task].figures
    return {} if figures is None else {figure.key: figure.better for figure in named(figures)(cfg)}


def of_generation(cfg: DictConfig) -> Sequence[Figure]:
    """What a run of generate.py measures."""
    return [FIGURES["seconds"], *of_evaluation(cfg)]


def of_evaluation(cfg: DictConfig) -> Sequence[Figure]:
    """What is read back of pictures and of their sound."""
    return [] if cfg.reader is None else [*READ_BACK, *measured(cfg)]


def of_training(cfg: DictConfig) -> Sequence[Figure]:
    """What the module that is trained logs, or its job returns."""
    model = OmegaConf.select(cfg, "model._target_") or OmegaConf.select(cfg, "model.job")
    return declared_by(locate(model, "model"))


def measured(cfg: DictConfig) -> list[Figure]:
    """What the metrics of the section `metrics` of `cfg` declare."""
    section: Any = OmegaConf.to_container(OmegaConf.create({"metrics": cfg.get("metrics")}), resolve=False)
    parts = [(locate(part["_target_"], f"metrics.{name}"), part)
             for name, part in (section["metrics"] or {}).items()]
    return [figure for metric, part in parts for figure in metric.declared(part)]


def undeclared(cfg: DictConfig, task: str) -> list[str]:
    """What is wrong with `optimized_metrics` of `cfg`, one line each."""
    names = list(cfg.get("optimized_metrics") or ())
    known = declared(cfg, task)
    if not known:
        return ["optimized_metrics: this run gives no figure that could be optimised"]
    if not names:
        return [f"optimized_metrics: names nothing to optimise; expected some of {', '.join(known)}"]
    wrong = [f"optimized_metrics: {name!r} is no figure of this run; expected some of {', '.join(known)}."
             f"{_by_metric(cfg, name) or nearest(name, known)}" for name in names if name not in known]
    return wrong + [f"optimized_metrics: {name!r} would be missing: {reason}" for name in names
                    if name in known and (reason := _lacking(cfg, task, name))]


def _by_metric(cfg: DictConfig, name: str) -> str:
    """The choice of `metrics` that would measure `name`, as a hint; empty where none would."""
    stem = name.partition("_")[0]
    return f" metrics={stem} measures it." if "metrics" in cfg and stem in choices("metrics") else ""


def _lacking(cfg: DictConfig, task: str, name: str) -> str | None:
    """Why every run of `cfg` will be without the figure `name`, as far as its settings tell."""
    if TASKS[task].trains:
        data: Any = cfg.get("data") or {}
        if name.startswith("valid/") and "valid" in data and data["valid"] is None:
            return "nothing is validated on (data.valid is null)"
        return None
    second = name.startswith("second_")
    where = "reader.second" if second else "reader"
    if second and OmegaConf.select(cfg, where) is None:
        return "there is no second judge (reader=judges has two)"
    name = name.removeprefix("second_")
    if name in [figure.key for figure in SEEN]:
        if (eye := OmegaConf.select(cfg, f"{where}.picture")) is None:
            return f"nobody looks at the pictures ({where}.picture is null)"
        if (told := _told_by(eye)) and name not in told:
            other = next(reader for reader in PICTURE_READERS if name in _told_by(reader))
            return f"this reader of pictures tells no {FIGURES[name].title} ({where}.picture={other} does)"
    if TASKS[task].makes_samples and name in ("top1", "joint") and cfg.get("prompts") is None:
        return "one image prompt cannot be taken for another (prompts=FILE gives several)"
    return None


def _told_by(eye: Any) -> list[str]:
    """What a reader of pictures, a section or a name, declares to tell of a sample."""
    section = named(".scoring.judges.picture_section")(eye)
    return [figure.key for figure in declared_by(locate(section["_target_"], "reader.picture"))]


def figures(names: Sequence[str], result: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The figures of a result that are optimised, NaN for each that it lacks; None where none is."""
    found = [result.get(name) for name in names]
    return tuple(float(value) if isinstance(value, (int, float)) else math.nan for value in found) or None
