"""A sample's folder and its sample.json, which says what it is: nothing else reads or writes that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import alone_in, read_json, write_json

RECORD = "sample.json"


@dataclass(frozen=True)
class Sample:
    """A folder and its record: prompts, seed, settings, and the scores that were given."""

    folder: Path
    record: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Sample:
        """Raises UserError when the folder has no record, or one that is broken."""
        record = read_json(folder / RECORD)
        if not isinstance(record, dict):
            raise UserError(f"{folder / RECORD}: expected a JSON object")
        return cls(folder, record)

    def write(self) -> None:
        """Write the record. It comes last: with it the sample is whole."""
        write_json(self.folder / RECORD, self.record)

    def score(self, scores: Mapping[str, Any]) -> None:
        """Replace its scores."""
        self.record["scores"] = dict(scores)
        # The run that it belongs to may be read back by several evaluations, and none of them owns it.
        with alone_in(self.folder):
            self.write()


def is_sample(folder: Path) -> bool:
    """Whether a folder holds a sample."""
    return (folder / RECORD).is_file()


def samples_of(run: str | Path) -> list[Path]:
    """The folders of the samples of a run folder, in the order of their names."""
    return sorted(path.parent for path in (Path(run) / "samples").glob(f"*/{RECORD}"))


def samples_below(folder: Path) -> list[Path]:
    """The folders of all samples in a folder, however deep."""
    return sorted(path.parent for path in folder.rglob(RECORD))
