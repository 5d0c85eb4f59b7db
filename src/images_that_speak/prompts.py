"""Pairs of prompts: what a picture shows and what it says."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError, few, nearest
from .files import file_hash, read_text

COLUMNS = ("image_prompt", "audio_prompt")


@dataclass(frozen=True)
class Pair:
    """One picture to make. `file` is set where the picture exists already (evaluate's pictures=)."""

    image_prompt: str
    audio_prompt: str
    file: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a picture or a speech comes from: a `file`, or a `prompt` that is drawn or spoken.

    With a file the prompt, where there is one, tells what is in it.
    """

    file: Path | None = None
    prompt: str | None = None

    @property
    def content(self) -> str | None:
        """The prompt, or what tells a file from all others."""
        return self.prompt if self.file is None else file_hash(self.file)


def read_pairs(path: str | Path, columns: tuple[str, ...] = COLUMNS) -> list[Pair]:
    """The pairs of a csv with the `columns` (others are left alone), or of a txt of lines `image | audio`.

    Empty lines, and lines of a txt that begin with #, are skipped. Raises UserError naming the file and every
    line that lacks a prompt or holds more than its first line names: whose a word is would be a guess.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a csv with the columns {' and '.join(columns)}, "
                        "or a txt with a pair \"image | audio\" a line")
    if path.suffix.lower() == ".csv":
        return _checked(path, read_table(path, columns), columns)
    if path.suffix.lower() == ".txt":
        return _checked(path, _txt_rows(path), COLUMNS)
    raise UserError(f"{path}: expected a file that ends in .csv or .txt")


def read_sources(path: str | Path) -> list[tuple[Source, Source]]:
    """The pairs of a csv: a column image or image_prompt (both: a caption), and audio_prompt or speech.

    Files are looked for beside the csv. Raises UserError naming the file and what is missing.
    """
    path = Path(path)
    names = header(path) if path.suffix.lower() == ".csv" else []
    if not {"image", "speech"} & set(names):
        return [(Source(prompt=pair.image_prompt), Source(prompt=pair.audio_prompt))
                for pair in read_pairs(path)]
    columns = tuple(name for name in ("image", "image_prompt", "speech", "audio_prompt") if name in names)
    pairs, wrong = [], []
    for line, row in read_table(path, columns):
        picture = _source(path, row.get("image"), row.get("image_prompt"))
        speech = _source(path, row.get("speech"), row.get("audio_prompt"))
        for source, kinds in ((picture, "image or image_prompt"), (speech, "speech or audio_prompt")):
            if source.file is None and not source.prompt:
                wrong.append(f"line {line} has no {kinds}")
            elif source.file is not None and not source.file.is_file():
                wrong.append(f"line {line}: {source.file}: no such file")
        pairs.append((picture, speech))
    if wrong or not pairs:
        raise UserError(f"{path}: {'; '.join(wrong[:5]) or 'holds no pair'}")
    return pairs


def _source(table: Path, file: str | None, prompt: str | None) -> Source:
    prompt = " ".join((prompt or "").split()) or None
    return Source(table.parent / file.strip() if file and file.strip() else None, prompt)


def _txt_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    rows, wrong = [], []
    # Not splitlines, which parts at characters that no editor shows as the end of a line.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            image, *rest = line.split("|")
            rows.append((number, {"image_prompt": image, "audio_prompt": "|".join(rest)}))
            if len(rest) > 1:
                wrong.append(f"line {number} has {len(rest)} bars (expected one: image | audio)")
    _refuse(path, wrong)
    return rows


def read_table(path: str | Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: value}) of every row of a csv that is not empty; other columns are left out.

    Raises UserError naming the file when a column is missing or there twice, or a line has more values than
    the first line has names.
    """
    path = Path(path)
    try:
        return _csv_rows(path, read_text(path), columns)
    except csv.Error as error:
        raise UserError(f"{path}: not a csv ({error}); a value with a comma or a quote stands in quotes, and "
                        'a quote within it is doubled: "a ""big"" cat, sitting"') from error


def header(path: str | Path) -> list[str]:
    """The names in the first line of a csv. Raises UserError naming the file when there is none."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a csv")
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    return [name.strip() for name in next(reader, [])]


def _csv_rows(path: Path, text: str, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    # Strict: what stands beside a closing quote would else become part of the value, without its quotes.
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    names = [(name or "").strip() for name in reader.fieldnames or ()]
    missing = [name for name in columns if name not in names]
    if missing:
        line = ",".join(names)
        if (other := next((mark for mark in ";\t|" if mark in line), None)) is not None and len(names) == 1:
            raise UserError(f"{path}: its columns are parted by {other!r}, its first line is {line!r} "
                            f"(expected commas: {','.join(columns)})")
        others = [name for name in names if name not in columns]
        hints = "".join(nearest(name, others) for name in missing)
        raise UserError(f"{path}: no column {' or '.join(map(repr, missing))}; its first line is "
                        f"{line!r}.{hints}")
    if twice := [name for name in columns if names.count(name) > 1]:
        raise UserError(f"{path}: its first line names {twice[0]!r} more than once: {','.join(names)!r}")
    reader.fieldnames = names
    found, wrong = [], []
    for row in reader:
        beyond: Any = row.pop(None, [])  # type: ignore[call-overload]  # what has no name
        # A spreadsheet ends every line with as many commas as its longest had.
        if any(value.strip() for value in beyond):
            wrong.append(f"line {reader.line_num} has {len(names) + len(beyond)} values (expected "
                         f"{len(names)}: {','.join(names)}; one that holds a comma stands in quotes)")
        if any(row.values()):
            found.append((reader.line_num, {name: row[name] or "" for name in columns}))
    _refuse(path, wrong)
    return found


def _checked(path: Path, rows: list[tuple[int, dict[str, str]]], columns: tuple[str, ...]) -> list[Pair]:
    empty = [f"line {number} has no {name}" for number, row in rows for name in columns
             if not row[name].strip()]
    _refuse(path, empty)
    if not rows:
        raise UserError(f"{path}: holds no pair of prompts")
    return [Pair(**{name: " ".join(value.split()) for name, value in row.items()}) for _, row in rows]


def _refuse(path: Path, wrong: list[str]) -> None:
    """Raise UserError with what is wrong with a file's lines, if anything is."""
    if wrong:
        raise UserError(f"{path}: {few(wrong, between='; ')}")
