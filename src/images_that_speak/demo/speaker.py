"""A loaded family that makes one picture after another and hears each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..audio.picture import quantise
from ..config import first_line, instantiate
from ..diffusion.family import Family
from ..diffusion.generate import generate_batch, notes, plan, read_settings
from ..errors import UserError
from ..scoring.evaluate import Readers, load_readers
from ..scoring.seen import Shown
from ..scoring.statistics import word_errors
from ..scoring.text import PLAIN, normalise
from ..validate import problems

# What a visitor changes, beside the prompts.
CHANGED = ("seed", "steps", "voice", "guidance.audio_weight", "guidance.image_scale", "guidance.audio_scale")


@dataclass(frozen=True)
class Spoken:
    """A picture (256, 1024) uint8, the wave (T,) in [-1, 1] that it plays, and what was heard of it.

    `heard` is None where nobody listens. wer: word error rate, of words as `normaliser` writes them; clip:
    CLIP score of picture and prompt.
    notes: what was drawn or said otherwise than it was written.
    """

    picture: np.ndarray
    wave: np.ndarray
    image_prompt: str
    audio_prompt: str
    heard: str | None
    wer: float | None
    clip: float | None
    seconds: float
    settings: dict[str, Any]
    normaliser: str = PLAIN
    notes: tuple[str, ...] = ()


class Speaker:
    """What configs/demo.yaml describes, loaded once. One picture at a time: others wait for their turn.

    Raises UserError when a part cannot be loaded.
    """

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg
        self.layout = instantiate(cfg.family)
        branches = read_settings(cfg, self.layout).branches
        torch.set_float32_matmul_precision(cfg.precision.matmul)
        self.family = Family.load(self.layout, (*branches, "vae", "vocoder"), device=cfg.device,
                                  dtype=cfg.precision.dtype, vocoder=cfg.vocoder.path)
        self.readers: Readers | None = load_readers(cfg.reader, cfg.device) if cfg.reader else None
        self._turn = Lock()

    def settled(self, changes: Mapping[str, Any]) -> DictConfig:
        """The configuration of one request: {dotted key: value} put into that of the demo.

        Raises one UserError with everything that is wrong, limits included.
        """
        cfg = self.cfg.copy()
        wrong = []
        for key, value in changes.items():
            try:
                OmegaConf.update(cfg, key, value)
            except OmegaConfBaseException as error:
                wrong.append(f"{key}={value!r}: {first_line(error)}")
        limits = cfg.limits
        for key in ("image_prompt", "audio_prompt"):
            text = cfg[key]
            if len(text) > limits.characters or len(text.split()) > limits.words:
                wrong.append(f"{key}: expected at most {limits.words} words and {limits.characters} "
                             f"characters, got {len(text.split())} and {len(text)}")
        if cfg.steps > limits.steps:
            wrong.append(f"steps={cfg.steps}: expected at most {limits.steps} here (limits.steps)")
        wrong += problems(cfg, "demo")
        if wrong:
            raise UserError("\n".join(wrong))
        return cfg

    def speak(self, changes: Mapping[str, Any], progress: Callable[[int, int], None] | None = None) -> Spoken:
        """Make the picture of one request, play it and have it heard.

        progress: called with (steps done, steps in all). Raises UserError on a request that is not to be met.
        """
        cfg = self.settled(changes)
        settings = read_settings(cfg, self.layout)
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        jobs = plan(OmegaConf.create({**values, "prompts": None, "num_samples": 1}), self.layout)
        with self._turn:
            began = time.monotonic()
            total = settings.method.calls(settings)
            told = (lambda state: progress(state["i"] + 1, total)) if progress else None
            seen = quantise(generate_batch(self.family, settings, jobs, told).numpy())
            wave = np.asarray(self.family.vocoder.decode_picture(seen).cpu(), np.float32)[0]
            pair = jobs[0].pair
            heard = wer = clip = None
            normaliser = PLAIN
            if self.readers is not None:
                reader = self._reader(pair.audio_prompt)
                heard, normaliser = reader.read(wave).text, reader.normaliser
                errors = word_errors(pair.audio_prompt, heard, normaliser)
                wer = errors.rate if errors else None
                clip = self._clip(seen, pair.image_prompt)
            seconds = time.monotonic() - began
        return Spoken(seen[0], wave, pair.image_prompt, pair.audio_prompt, heard, wer, clip, seconds,
                      {key: OmegaConf.select(cfg, key) for key in CHANGED}, normaliser,
                      tuple(notes(jobs, self.layout)))

    def _reader(self, prompt: str) -> Any:
        """The reader of speech; one of its own for a prompt with words that the vocabulary lacks.

        Adding them to the common one would make it slower with every visitor.
        """
        assert self.readers is not None
        known = getattr(self.readers.speech, "words", None)
        if known is None or not set(normalise(prompt).split()) - set(known):
            return self.readers.speech
        reader: Any = load_readers(self.cfg.reader, self.cfg.device, see=False).speech
        reader.extend([prompt])
        return reader

    def _clip(self, seen: np.ndarray, prompt: str) -> float | None:
        reader = self.readers.picture if self.readers else None
        if reader is None:
            return None
        return reader.judge(reader.look([Shown(picture) for picture in seen]), [prompt])[0].get("clip")
