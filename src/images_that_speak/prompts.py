"""Pairs of prompts: what a picture shows and what it says."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError, nearest

COLUMNS = ("image_prompt", "audio_prompt")


@dataclass(frozen=True)
class Pair:
    """One picture to make. `file` is set where the picture exists already (evaluate's pictures=)."""

    image_prompt: str
    audio_prompt: str
    file: str | None = None


def read_pairs(path: str | Path, columns: tuple[str, ...] = COLUMNS) -> list[Pair]:
    """The pairs of a csv with the `columns` (others are left alone), or of a txt of lines `image | audio`.

    Empty lines, and lines of a txt that begin with #, are skipped. Raises UserError naming the file and every
    line that lacks a prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a csv with the columns {' and '.join(columns)}, "
                        "or a txt with a pair \"image | audio\" a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    if path.suffix.lower() == ".csv":
        return _checked(path, _csv_rows(path, text, columns), columns)
    if path.suffix.lower() == ".txt":
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                image, _, audio = line.partition("|")
                rows.append((number, {"image_prompt": image, "audio_prompt": audio}))
        return _checked(path, rows, COLUMNS)
    raise UserError(f"{path}: expected a file that ends in .csv or .txt")


def _csv_rows(path: Path, text: str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(text.splitlines(keepends=True), skipinitialspace=True)
    names = [(name or "").strip() for name in reader.fieldnames or ()]
    missing = [name for name in columns if name not in names]
    if missing:
        others = [name for name in names if name not in columns]
        hints = "".join(nearest(name, others) for name in missing)
        raise UserError(f"{path}: no column {' or '.join(map(repr, missing))}; its first line is "
                        f"{','.join(names)!r}.{hints}")
    reader.fieldnames = names
    try:
        return [(reader.line_num, {name: row[name] or "" for name in columns})
                for row in reader if any(value for value in row.values())]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not a csv ({error})") from error


def _checked(path: Path, rows: list[tuple[int, dict[str, str]]], columns: tuple[str, ...]) -> list[Pair]:
    empty = [f"line {number} has no {name}" for number, row in rows for name in columns
             if not row[name].strip()]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise UserError(f"{path}: {'; '.join(empty[:5])}{more}")
    if not rows:
        raise UserError(f"{path}: holds no pair of prompts")
    return [Pair(**{name: " ".join(value.split()) for name, value in row.items()}) for _, row in rows]
