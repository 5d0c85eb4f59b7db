"""Whether the readers of a configuration can be had: the small ones are loaded, those of the hub are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import unbound
from ..scoring.efficientnet import MODELS
from ..scoring.evaluate import build_metrics
from ..scoring.judges import load_readers
from ..speech.whisper import PACKAGES
from .findings import Findings

AT_HAND = ("pocket", *PACKAGES, *MODELS)  # models that no hub is asked for


def check_metrics(found: Findings, cfg: DictConfig) -> None:
    """Build the metrics, which reads nothing large, and tell them."""
    with found.step("metrics"):
        if metrics := build_metrics(cfg):
            found.tell("metrics", "; ".join(f"{name} ({metric.weights})" for name, metric in metrics.items()))


def check_readers(found: Findings, cfg: DictConfig) -> None:
    """Load the readers, unless a model would come from the hub; then only their arguments are checked."""
    if cfg.reader is None:
        found.tell("read back", "no, reader=none")
        return
    section: Any = OmegaConf.to_container(cfg.reader, resolve=True)
    found.problems += unbound(section, "reader")
    # A reader of pictures that is only named has its model with it.
    parts = [part for name in ("speech", "picture") if isinstance(part := section.get(name), dict)]
    hub = [part["model"] for part in parts
           if part.get("model", "pocket") not in AT_HAND and not Path(part["model"]).is_dir()]
    with found.step("reader"):
        if hub:
            found.tell("read back", f"by {', '.join(hub)}, found or fetched when it is needed")
            return
        readers = load_readers(section, "cpu")
        seen, words = readers.names["picture_reader"], len(readers.speech.words)
        found.tell("read back", f"heard by {readers.speech.name}" + (f" ({words} words)" if words else "")
                   + (f", seen by {seen}" if seen else ", nobody looks"))
