"""The run card, README.md of a run folder: what it is, how to make it again, what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..config import flatten
from ..figures import FIGURES
from ..files import plain
from .samples import read_rows

TOP = 3  # samples shown
SHOWN = [FIGURES[key] for key in ("wer", "clip")]  # of each


def describe(result: Mapping[str, Any]) -> str:
    """A result for reading: one number a line; a list of samples by its length."""
    rows = flatten({key: value for key, value in plain(result).items() if key != "figures"})
    width = max((len(key) for key in rows), default=0)
    return "\n".join(f"  {key:<{width}}  {_shown(value)}" for key, value in rows.items())


def run_card(folder: Path, info: Mapping[str, Any], result: Mapping[str, Any],
             samples: Iterable[Path]) -> str:
    """The Markdown text of a run's card.

    info: what run.json holds. samples: the sample folders that the run made or read.
    """
    last = info["commands"][-1]
    libraries = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    changed = [f"- `{key}: {value}`" for key, value in info["changed"].items()] or ["- nothing"]
    told = {key: value for key, value in result.items() if key != "figures"}
    rows = [f"| {key} | {_shown(value)} |" for key, value in flatten(told).items()]
    code = last["git"] or "not under git"
    if last.get("diff"):
        code += f" with the changes of [{last['diff']}]({last['diff']})"
    parts = [f"# {info['name']}\n\nA {info['task']} run of Images that Speak.",
             f"```\n{last['command']}\n```", "Changed from the defaults:", "\n".join(changed),
             "\n".join(["| result | |", "|---|---|", *rows]), *_best(folder / "metrics.jsonl"),
             *_top(folder, samples), *_history(info["commands"]),
             f"Code {code}; {libraries}."
             + (f" W&B run `{info['wandb_id']}`." if info.get("wandb_id") else ""),
             "The whole configuration is in config.yaml, the numbers in result.json and metrics.jsonl."]
    return "\n\n".join(parts) + "\n"


def _best(metrics: Path) -> list[str]:
    """The best value of each figure that a validation gave, and at which step."""
    best: dict[str, tuple[float, int]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else ():
        found = json.loads(line)
        for key, value in found.items():
            if key.startswith("valid/") and isinstance(value, (int, float)):
                falling = key in FIGURES and FIGURES[key].falling
                if key not in best or (value > best[key][0] if falling else value < best[key][0]):
                    best[key] = value, found["step"]
    rows = [f"| {key} | {value:.4g} | {step} |" for key, (value, step) in best.items()]
    return ["\n".join(["| best in validation | | step |", "|---|---|---|", *rows])] if rows else []


def _top(folder: Path, samples: Iterable[Path]) -> list[str]:
    """The samples that were heard best, among equals seen best."""
    rows = [row for row in read_rows(samples) if row.get("score/wer") is not None]
    rows.sort(key=lambda row: (row["score/wer"], -(row.get("score/clip") or 0.0), row["sample_id"]))
    shown = []
    for row in rows[:TOP]:
        where = os.path.relpath(row["folder"], folder)
        scores = ", ".join(f"{figure.title} {row[f'score/{figure.key}']:.3g}" for figure in SHOWN
                           if row.get(f"score/{figure.key}") is not None)
        shown.append(f"![{row['image_prompt']}]({where}/image.png)\n\n\"{row['audio_prompt']}\", heard as "
                     f"\"{row.get('score/heard') or ''}\": {scores} ([sound]({where}/speech.wav))")
    return [f"Best heard of {len(rows)}:", *shown] if shown else []


def _history(commands: list[Mapping[str, Any]]) -> list[str]:
    """The commands that worked on the run, where there were several, and what each changed."""
    if len(commands) < 2:
        return []
    lines = [f"1. {command['time']} `{command['command']}`"
             + "".join(f"\n   - {change}" for change in command.get("changes", ()))
             for command in commands]
    return ["Worked on by:", "\n".join(lines)]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and (len(value) > 6 or any(isinstance(child, dict) for child in value)):
        return f"{len(value)} entries, in result.json"
    return str(value)
