"""evaluate.py check=true: which pictures would be read, and by whom."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from ..runs import as_made
from ..scoring.evaluate import made_by, vocoder_of
from ..scoring.items import find_pictures, find_run
from .findings import Findings
from .readers import check_metrics, check_readers


def check(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """What `cfg` (configs/evaluate.yaml) would read back, and everything that is wrong with it."""
    found = Findings()
    with found.step("run"):
        cfg = as_made(cfg)
    configs: list[DictConfig] = [cfg]
    # Which of the two is given, and whether it is there, has been looked at before.
    if (cfg.run is None) != (cfg.pictures is None) and Path(cfg.run or cfg.pictures).exists():
        with found.step("run" if cfg.run else "pictures"):
            items = find_run(cfg.run) if cfg.run else find_pictures(cfg.pictures, cfg.prompts)
            said = sum(item.audio_prompt is not None for item in items)
            found.tell("pictures", f"{len(items)} in {cfg.run or cfg.pictures}; {said} with prompts to score "
                       "against")
            configs = list(made_by(cfg, items).values())
    with found.step("family"):
        source = cfg.reader.source if cfg.reader is not None else "picture"
        if source == "wav":
            found.tell("played", "the sound file beside each picture")
        else:
            found.tell("played", "by " + ", ".join(dict.fromkeys(map(_player, configs))))
    check_metrics(found, cfg)
    check_readers(found, cfg)
    return found.lines, found.problems


def _player(cfg: DictConfig) -> str:
    if cfg.vocoder.path is not None or "offline" not in cfg.family:
        return vocoder_of(cfg)
    return f"the vocoder of {cfg.family.speech}"  # which may have to be fetched first
