"""Tables of scores: printed, and saved as csv and Markdown."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..figures import FIGURES, READ_BACK
from ..files import atomic_write
from .statistics import Interval

SAMPLE_COLUMNS = {
    "image_prompt": "image prompt", "audio_prompt": "audio prompt", "heard": "heard",
    "second_heard": "heard again", "wer": "WER", "second_wer": "second WER",
    "invented": "invented", "deletions": "del", "substitutions": "sub", "clip": "CLIP", "rank": "rank",
    "second_rank": "second rank", "seen_as": "seen as",
    "seen_clip": "CLIP of that", "noun_mass": "noun", "top5_agreement": "in top 5",
    "joint": "joint", "no_clip": "no CLIP for", "file": "file",
}
TOTAL_COLUMNS = {"what": "", "samples": "samples",
                 **{figure.key: figure.column for figure in READ_BACK if figure.column is not None}}
METRIC_COLUMNS = {"metric": "metric", "value": "value", "samples": "samples", "reference": "against",
                  "references": "files there", "weights": "weights", "protocol": "protocol"}


def shown_figure(value: Any) -> str | None:
    """A figure that is no rate, with its interval where it has one."""
    return str(value) if isinstance(value, Interval) else None if value is None else f"{value:.4g}"


def shown(value: Any) -> str:
    """A cell: rates with their interval in per cent, CLIP as it is, yes/no, – for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value)


def total_row(name: str, figures: Mapping[str, Interval | int]) -> dict[str, str]:
    """One line of the table of totals."""
    row = {"what": name}
    for key in TOTAL_COLUMNS:
        value = figures.get(key)
        if isinstance(value, Interval):
            row[key] = value.percent() if FIGURES[key].share else str(value)
        elif value is not None:
            row[key] = str(value)
    return row


def used_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, str]:
    """`columns` without those that every row lacks; a CLIP that is lacking for a reason stays, as –."""
    return {key: name for key, name in columns.items() if any(
        row.get(key) is not None or key == "clip" and row.get("no_clip") for row in rows)}


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table of `columns` (key → heading); columns that every row lacks are left out."""
    used = used_columns(rows, columns)
    def cell(value: Any) -> str:
        return shown(value).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(used.values()) + " |", "|" + " --- |" * len(used)]
    lines += ["| " + " | ".join(cell(row.get(key)) for key in used) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_table(stem: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Write `stem`.csv with every key of the rows, and `stem`.md with `columns`."""
    text = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(stem.with_suffix(".csv"), text.getvalue())
    atomic_write(stem.with_suffix(".md"), markdown(rows, columns))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], limit: int = 30) -> None:
    """Print at most `limit` rows, as wide as they are where no terminal has to fit them."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    used = used_columns(rows, columns)
    table = Table(*used.values(), box=None, header_style="bold", pad_edge=False)
    for row in rows[:limit]:
        # Without markup, so that a prompt with brackets is printed as it is.
        table.add_row(*(_plain(row.get(key)) for key in used))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        # In a log a path that is cut cannot be copied.
        console.width = max(console.width, Measurement.get(console, console.options.update(max_width=10_000),
                                                           table).maximum)
    console.print(table)
    if len(rows) > limit:
        console.print(f"… and {len(rows) - limit} more")


def _plain(value: Any) -> Any:
    from rich.text import Text

    return Text(shown(value))
