"""Pairs of prompts, from the command line or a file. Needs no torch, so that typos are told at once."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, nearest
from ..files import content_hash

COLUMNS = ("image_prompt", "audio_prompt")


@dataclass(frozen=True)
class Pair:
    """What a picture shall be seen as, and what it shall say."""

    image_prompt: str
    audio_prompt: str

    def sample_id(self, seed: int) -> str:
        """The name of the sample folder: a hash of the prompts and the seed, the same in every run."""
        return content_hash({"image_prompt": self.image_prompt, "audio_prompt": self.audio_prompt,
                             "seed": seed})


def make_pair(image_prompt: str | None, audio_prompt: str | None, where: str = "") -> Pair:
    """A pair without blanks around its prompts. Raises UserError when one is empty."""
    pair = Pair(str(image_prompt or "").strip(), str(audio_prompt or "").strip())
    for column in COLUMNS:
        if not getattr(pair, column):
            raise UserError(f"{where}{column}: empty (expected words)")
    return pair


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs of a csv with the columns image_prompt and audio_prompt, or of a txt of lines `image | audio`.

    Blank lines and, in a txt, lines that begin with # are passed over; a pair that repeats is taken once.
    Raises UserError, naming file and line, on anything else.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".txt"):
        raise UserError(f"prompts={path}: expected a .csv or a .txt file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"prompts={path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"prompts={path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    pairs = _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_text(path, text)
    if not pairs:
        raise UserError(f"prompts={path}: holds no pair of prompts")
    return list(dict.fromkeys(pairs))


def _from_csv(path: Path, text: str) -> list[Pair]:
    reader = csv.DictReader(text.splitlines(keepends=True), skipinitialspace=True, strict=True)
    try:
        found = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = found
        for column in COLUMNS:
            if column not in found:
                raise UserError(f"prompts={path}: no column {column!r} among {', '.join(map(repr, found))}."
                                f"{nearest(column, found)}")
        return [make_pair(*(row[column] for column in COLUMNS), f"prompts={path}, line {reader.line_num}: ")
                for row in reader if any(isinstance(value, str) and value.strip() for value in row.values())]
    except csv.Error as error:
        raise UserError(f"prompts={path}, line {reader.line_num}: not a csv ({error})") from error


def _from_text(path: Path, text: str) -> list[Pair]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"prompts={path}, line {number}: "
        if line.count("|") != 1:
            raise UserError(f"{where}{line.strip()!r} (expected `image prompt | audio prompt`)")
        pairs.append(make_pair(*line.split("|"), where))
    return pairs
