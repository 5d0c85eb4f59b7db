"""Whether the readers of a configuration can be had: the small ones are loaded, those of the hub are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import unbound
from ..scoring.evaluate import load_readers
from .findings import Findings


def check_readers(found: Findings, cfg: DictConfig) -> None:
    """Load the readers, unless a model would come from the hub; then only their arguments are checked."""
    if cfg.reader is None:
        found.tell("read back", "no, reader=none")
        return
    section: Any = OmegaConf.to_container(cfg.reader, resolve=True)
    found.problems += unbound(section, "reader")
    parts = {name: section.get(name) for name in ("speech", "picture") if section.get(name)}
    hub = [part["model"] for part in parts.values()
           if part.get("model", "pocket") != "pocket" and not Path(part["model"]).is_dir()]
    with found.step("reader"):
        if hub:
            found.tell("read back", f"by {', '.join(hub)}, found or fetched when it is needed")
            return
        readers = load_readers(section, "cpu")
        seen = getattr(readers.picture, "name", None)
        words = len(getattr(readers.speech, "words", ()))
        found.tell("read back", f"heard by {readers.speech.name}" + (f" ({words} words)" if words else "")
                   + (f", seen by {seen}" if seen else ", nobody looks"))
