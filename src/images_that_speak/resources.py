"""What ships with the project: the embedded weights and the word list."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def weights_dir(family: str = "pocket") -> Path:
    """The folder of an embedded family's weights."""
    return ROOT / "weights" / family


def words(path: str | Path = "pocket_words.txt") -> list[str]:
    """A word list, one word a line, `#` comments left out; a bare name is looked up in words/."""
    path = Path(path)
    if not path.exists() and (ROOT / "words" / path).exists():
        path = ROOT / "words" / path
    if not path.exists():
        raise UserError(f"{path}: no such word list (expected a text file with one word a line)")
    lines = (line.split("#")[0].strip().lower() for line in path.read_text().splitlines())
    found = list(dict.fromkeys(line for line in lines if line))
    if not found:
        raise UserError(f"{path}: the word list is empty (expected one word a line)")
    return found
