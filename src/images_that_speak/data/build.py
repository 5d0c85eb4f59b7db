"""`python -m images_that_speak.data`: from a composed config (configs/corpus.yaml) to a corpus."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from ..speech.backends import load_tts
from .corpus import CorpusSummary, build_corpus
from .recordings import build_recordings
from .utter import build_utterances


def build_from_config(cfg: Any) -> CorpusSummary:
    """Build the corpus that a config describes; `cli` prints the summary."""
    data: Any = OmegaConf.to_container(cfg.data, resolve=True)
    if "recordings" in data:  # spoken already
        return build_recordings(**data)
    if "other_voices" in data:
        return build_utterances(**data)
    tts: Any = OmegaConf.to_container(cfg.tts, resolve=True)
    return build_corpus(tts=load_tts(**tts), **data)
