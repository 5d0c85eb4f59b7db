"""Anchors that were made earlier, for the tables of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..files import read_json
from ..runs.identity import family_fingerprint


def stored_rows(cfg: DictConfig) -> list[dict[str, str]]:
    """The rows of the largest set of anchors below `paths.logs` made with the family and readers of `cfg`.

    Empty where there are none yet.
    """
    section: Any = OmegaConf.to_container(cfg.family, resolve=True)
    mine = family_fingerprint(section)
    reader = str(OmegaConf.select(cfg, "reader.speech._target_"))
    best: list[dict[str, str]] = []
    for path in sorted((Path(cfg.paths.logs) / "anchors").glob(f"{mine}-*/anchors.json")):
        stored = read_json(path)
        rows = stored["rows"]
        # One reader's figures say nothing about another's.
        if stored["speech_reader"].lower() in reader.lower() and rows and (
                not best or int(rows[0]["samples"]) > int(best[0]["samples"])):
            best = rows
    return best
