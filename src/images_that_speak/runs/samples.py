"""Sample folders in the loggers: a W&B table, a csv, TensorBoard pictures and sounds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import flatten
from ..files import atomic_write, names_apart
from .sample import Sample, is_sample

FIRST = ("image_prompt", "audio_prompt", "seed")
OF_READERS = ("_reader", "/normaliser", "/source")  # endings of scores that say by whom
PANEL = 100  # pictures of a panel; W&B shows 108


def read_rows(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """One flat row for each folder that has a sample.json: prompts and seed first, scores as `score/…`.

    Samples of several runs that have one sample_id are told apart by their folders.
    """
    rows = []
    there = [folder for folder in folders if is_sample(folder)]
    for folder, name in zip(there, names_apart(there), strict=True):
        sample = Sample.read(folder).record
        settings = flatten(sample.get("settings") or {})
        row = {"sample_id": name, **{key: sample.get(key) for key in FIRST if key in sample}}
        if isinstance(sample.get("source"), dict):  # a photograph, which often has no prompt
            row["photograph"] = Path(str(sample["source"].get("path"))).name
        row.update({key: value for key, value in settings.items()
                    if isinstance(value, (int, float, str, bool)) and key not in row})
        row.update({f"score/{key}": value for key, value in flatten(sample.get("scores") or {}).items()
                    if isinstance(value, (int, float, str, bool)) or value is None and key})
        rows.append({**row, "folder": folder})
    return rows


def log_samples(folders: Iterable[Path], run_dir: Path, csv: Mapping[str, Any] | None = None,
                tensorboard: Mapping[str, Any] | None = None, wandb: Any = None) -> None:
    """Show sample folders in the loggers that are given.

    Args:
        run_dir: where files are written.
        csv, tensorboard: the loggers' sections of the configuration. wandb: the W&B run.
    """
    rows = read_rows(folders)
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "folder"))
    if csv is not None:
        write_csv(run_dir / csv["samples"], columns, rows)
    if wandb is not None:
        _to_wandb(wandb, columns, rows)
    if tensorboard is not None:
        _to_tensorboard(run_dir / tensorboard["folder"], rows[: tensorboard["samples"]])


def _to_wandb(started: Any, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """The table `samples` and the panel `pictures`, each picture with its prompts and scores below it.

    A fresh table each time: one that grows would begin again at 0 when an offline run is resumed.
    """
    import wandb

    media = {"image": ("image.png", wandb.Image), "spectrogram": ("spectrogram.png", wandb.Image),
             "audio": ("speech.wav", wandb.Audio)}
    told = table_columns(columns, rows)
    table = wandb.Table(columns=["sample_id", *media, *told])
    for row in rows:
        shown = [make(str(row["folder"] / name)) if (row["folder"] / name).exists() else None
                 for name, make in media.values()]
        table.add_data(row["sample_id"], *shown, *(row.get(key) for key in told))
    pictures = [wandb.Image(str(row["folder"] / "image.png"), caption=caption(row)) for row in rows[:PANEL]
                if (row["folder"] / "image.png").exists()]
    started.log({"samples": table, **({"pictures": pictures} if pictures else {})})


def table_columns(columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of `columns` that a table is read for: scores, prompts and seed, and settings that differ.

    What is the same in all rows stands in the run's configuration, or in its result where it is a reader's
    name; a score that no row has is left out too.
    """
    def differs(key: str) -> bool:
        return any(row.get(key) != rows[0].get(key) for row in rows)

    scores = [key for key in columns if key.startswith("score/") and (
        differs(key) or rows[0].get(key) is not None and not key.endswith(OF_READERS))]
    settings = [key for key in columns if key not in ("sample_id", *FIRST) and not key.startswith("score/")
                and differs(key)]
    return [*scores, *(key for key in FIRST if key in columns), *settings]


def caption(row: Mapping[str, Any]) -> str:
    """`a cat | says happy baby | heard happy lady | WER 50 % | CLIP 21.5`, as far as it is known."""
    wer, clip = row.get("score/wer"), row.get("score/clip")
    known = (row.get("image_prompt"), row.get("audio_prompt") and f"says {row['audio_prompt']}",
             row.get("score/heard") and f"heard {row['score/heard']}",
             None if wer is None else f"WER {100 * wer:.0f} %", None if clip is None else f"CLIP {clip:.3g}")
    return " | ".join(str(part) for part in known if part)


def _to_tensorboard(folder: Path, rows: list[dict[str, Any]]) -> None:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    from ..audio.wave import read_wave

    with SummaryWriter(str(folder)) as writer:
        for row in rows:
            where = row["folder"]
            name = row["sample_id"]
            writer.add_text(f"samples/{name}", f"{row.get('image_prompt')} | {row.get('audio_prompt')}")
            for file in ("image.png", "spectrogram.png"):
                if (where / file).exists():
                    picture = np.asarray(Image.open(where / file).convert("RGB"))
                    writer.add_image(f"samples/{name}/{file[:-4]}", picture, dataformats="HWC")
            if (where / "speech.wav").exists():
                wave = read_wave(where / "speech.wav")
                writer.add_audio(f"samples/{name}/speech", wave[None], sample_rate=16000)


def metrics_to_csv(path: Path, target: Path) -> None:
    """metrics.jsonl as a csv with one column a metric; nothing when there are no metrics."""
    if path.exists():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        write_csv(target, list(dict.fromkeys(key for row in rows for key in row)), rows)


def write_csv(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
