"""Reading a speech corpus: one manifest, pictures memory-mapped."""

from __future__ import annotations

import shlex
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..files import atomic_path, read_text
from ..packages import need
from ..resources import choices
from ..speech.tts import Phone

if TYPE_CHECKING:
    import pandas

COLUMNS = ("id", "text", "voice", "tts", "tts_version", "mel_spec", "split", "start", "seconds", "symbols",
           "starts", "ends", "spectrogram", "wave")


class Corpus:
    """A built corpus: `table` is the manifest (columns `COLUMNS`), row i is clip i."""

    def __init__(self, root: Path, table: pandas.DataFrame):
        self.root = root
        self.table = table

    @classmethod
    def open(cls, root: str | Path, split: str | None = None) -> Corpus:
        """Open `root`, all of it or one split.

        Raises UserError when there is no manifest, a column lacks, or it was made for another mel spec.
        """
        need("pandas", "pyarrow", where="reading a corpus")
        import pandas

        from ..audio.mel import MEL

        root = Path(root)
        path = root / "manifest.parquet"
        if not path.exists():
            raise UserError(f"{path}: no such manifest (expected a corpus; build it with "
                            f"`{build_command(root)}`)")
        try:
            table = pandas.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable parquet file ({error})") from error
        lacking = [column for column in COLUMNS if column not in table.columns]
        if lacking:
            raise UserError(f"{path}: no column {', '.join(lacking)} (expected {', '.join(COLUMNS)})")
        others = set(table["mel_spec"]) - {MEL.hash}
        if others:
            raise UserError(f"{path}: made for mel spec {', '.join(sorted(others))} (expected {MEL.hash})")
        if split is not None:
            if split not in ("train", "valid", "test"):
                raise UserError(f"split={split!r}: expected train, valid or test")
            table = table[table["split"] == split]
        return cls(root, table.reset_index(drop=True))

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def _spectrograms(self) -> list[str]:
        # pandas' row access costs more than reading the picture.
        return self.table["spectrogram"].tolist()

    def picture(self, i: int) -> np.ndarray:
        """Picture i, (256, 1024) uint8, memory-mapped, low frequency at the bottom."""
        return np.load(self.root / self._spectrograms[i], mmap_mode="r", allow_pickle=False)

    def wave(self, i: int) -> np.ndarray:
        """Wave i, (163840,) float32."""
        from ..audio.wave import read_wave

        return read_wave(self.root / self.table["wave"].iloc[i])

    def phones(self, i: int) -> list[Phone]:
        """Phones of clip i, in seconds of the picture."""
        row = self.table.iloc[i]
        return [Phone(str(s), float(a), float(b))
                for s, a, b in zip(row["symbols"], row["starts"], row["ends"], strict=True)]

    def voices(self) -> list[str]:
        """The voices that speak in it, sorted."""
        return sorted(self.table["voice"].unique())


def build_command(root: str | Path) -> str:
    """The command that builds the corpus `root`, as an experiment that learns from it says where one does."""
    root = Path(root)
    for path in choices("experiment").values():
        for line in read_text(path).splitlines():
            words = line.lstrip("# ").split()
            named = next((word for word in words if word.startswith("data.root=")), None)
            builds = named is not None and Path(named.partition("=")[2]).name == root.name
            if builds and words[:3] == ["python", "-m", "images_that_speak.data"]:
                return " ".join(f"data.root={shlex.quote(str(root))}" if word == named else word
                                for word in words)
    return f"python -m images_that_speak.data data.root={shlex.quote(str(root))}"


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the manifest as parquet, atomically: a reader sees the old one or the new one."""
    need("pandas", "pyarrow", where="writing a corpus")
    import pandas

    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
