"""Anchors that were made earlier, for the tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..files import read_json
from ..runs.identity import family_fingerprint


def stored_rows(configs: Sequence[DictConfig], speech_reader: str) -> list[dict[str, str]]:
    """The rows of the largest set of anchors below `paths.logs` made with the family of these and read by the
    reader of speech of that name.

    Empty where there are none yet, or the families are several: anchors of one say nothing about another.
    """
    sections: Any = [OmegaConf.to_container(cfg.family, resolve=True) for cfg in configs]
    families = {family_fingerprint(section) for section in sections}
    if len(families) > 1:
        return []
    mine, cfg = families.pop(), configs[0]
    best: list[dict[str, str]] = []
    for path in sorted((Path(cfg.paths.logs) / "anchors").glob(f"{mine}-*/anchors.json")):
        stored = read_json(path)
        rows = stored["rows"]
        # One reader's figures say nothing about another's.
        if stored["speech_reader"] == speech_reader and rows and (
                not best or int(rows[0]["samples"]) > int(best[0]["samples"])):
            best = rows
    return best
