"""What answers the page: makes one speaking picture after another, reads pictures aloud, and hears each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from ..audio.picture import SHAPE, luminance, quantise, read_picture, read_pixels, to_grid
from ..audio.wave import as_stored
from ..config import first_line, instantiate
from ..diffusion.family import Family
from ..diffusion.planning import generate_batch, notes, plan, read_settings
from ..errors import UserError, nearest
from ..packages import how
from ..resources import choices
from ..scoring.heard import PocketsphinxReader, new_words
from ..scoring.judges import Readers, load_readers
from ..scoring.seen import Shown
from ..scoring.statistics import word_errors
from ..speaking.jobs import by_branch
from ..speaking.make import Maker, in_same_cells, refuse_files
from ..speaking.networks import Networks
from ..speaking.voices import default_voice, installed_voices
from ..validate import problems
from .outcome import Spoken

# What a visitor is told of a picture, beside the prompts: of one in the same cells, and of others.
CHANGED = {True: ("seed", "voice", "rate", "steps", "guidance.image_scale"),
           False: ("seed", "steps", "voice", "guidance.audio_weight", "guidance.image_scale",
                   "guidance.audio_scale")}
CLOSED = ("pocketsphinx listens for the words of a list and for what was asked; Whisper hears any word "
          f"({how('judges')})")
SHOWN_ROWS, SHOWN_COLUMNS = 1024, 24_576  # at most, of a picture that is read aloud; it is played as it is
Progress = Callable[[int, int], None]


class Speaker:
    """What configs/demo.yaml describes. One request at a time: others wait for their turn.

    `warm` loads the networks; without it, requests do. Raises UserError on a family that is not there.
    """

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg
        self.mixes = in_same_cells(cfg)
        if not self.mixes:
            refuse_files(OmegaConf.create({"sentences": None, "image": cfg.image, "speech": cfg.speech}))
        self.layout = instantiate(cfg.family)
        self.networks = Networks(cfg, self.layout)
        self._family: Family | None = None
        self._readers: Readers | None = None
        self._turn = Lock()

    @property
    def voices(self) -> list[str]:
        """The names of the voices that can be chosen."""
        return [*installed_voices(), *self.layout.voices] if self.mixes else list(self.layout.voices)

    @property
    def voice(self) -> str | None:
        """The voice that speaks where none is chosen, as `voices` writes it."""
        first = self.cfg.voice or (default_voice() if self.mixes else None)
        found = [name for name in self.voices if name == first or name == f"{first}/slt"]
        return found[0] if found else first or next(iter(self.voices), None)

    def warm(self) -> None:
        """Load what most requests need. Raises UserError when a part cannot be loaded."""
        with self._turn:
            if self.mixes:
                self.networks.family(("image", "vae"))
            else:
                self._load_family()
            self._vocoder  # noqa: B018
            self._load_readers()

    def _load_family(self) -> Family:
        if self._family is None:
            branches = read_settings(self.cfg, self.layout).branches
            torch.set_float32_matmul_precision(self.cfg.precision.matmul)
            self._family = Family.load(self.layout, (*branches, "vae"), device=self.cfg.device,
                                       dtype=self.cfg.precision.dtype)
        return self._family

    @property
    def _vocoder(self) -> Any:
        return self.networks.vocoder

    def _load_readers(self) -> Readers | None:
        if self._readers is None and self.cfg.reader:
            self._readers = load_readers(self.cfg.reader, self.cfg.device)
        return self._readers

    # --- what is asked

    def settled(self, changes: Mapping[str, Any]) -> DictConfig:
        """The configuration of one request: {dotted key: value} put into that of the demo.

        "style" is the name of one. A prompt is left as it is where a file takes its place. Raises one
        UserError with everything that is wrong, limits included.
        """
        cfg = self.cfg.copy()
        wrong = []
        replaced = [prompt for file, prompt in (("image", "image_prompt"), ("speech", "audio_prompt"))
                    if changes.get(file)]
        for key, value in changes.items():
            try:
                if key == "style":
                    cfg.style = read_style(value)
                elif key not in replaced:
                    OmegaConf.update(cfg, key, value)
            except (OmegaConfBaseException, UserError) as error:
                wrong.append(str(error) if key == "style" else f"{key}={value!r}: {first_line(error)}")
        limits = cfg.limits
        for key in ("image_prompt", "audio_prompt"):
            text = cfg[key]
            if len(text) > limits.characters or len(text.split()) > limits.words:
                wrong.append(f"{key}: expected at most {limits.words} words and {limits.characters} "
                             f"characters, got {len(text.split())} and {len(text)}")
        if cfg.steps > limits.steps:
            wrong.append(f"steps={cfg.steps}: expected at most {limits.steps} here")
        wrong += problems(cfg, "demo")
        if wrong:
            raise UserError("\n".join(wrong))
        return cfg

    def speak(self, changes: Mapping[str, Any], progress: Progress | None = None) -> Spoken:
        """Make the picture of one request, play it and have it heard.

        progress: called with (steps done, steps in all). Raises UserError on a request that is not to be met.
        """
        cfg = self.settled(changes)
        with self._turn:
            return self._mixed(cfg, progress) if self.mixes else self._composed(cfg, progress)

    def _mixed(self, cfg: DictConfig, progress: Progress | None) -> Spoken:
        """A photograph or drawing and a voice, in the same cells."""
        began = time.monotonic()
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        told_of: list[str] = []
        maker = Maker.plan(OmegaConf.create({**values, "prompts": None, "sentences": None, "num_samples": 1}),
                           self.layout, self.networks, told_of.append)
        told_of += maker.notes()
        maker.prepare()
        told = (lambda state: progress(state["i"] + 1, int(cfg.steps))) if progress else None
        job = maker.jobs[0]
        picture = maker.make([job], told)[0][0]
        drawn = None if job.picture.file else job.picture.prompt
        text = maker.speeches[job.speech].text
        settings = self._settings(cfg) | ({"voice": None, "rate": cfg.rate} if job.speech.file else
                                          {"voice": maker.voice})
        if drawn is None:
            settings |= {"steps": None, "guidance.image_scale": None}
        return self._spoken(picture, to_grid(luminance(picture)) / 255, began, shows=drawn,
                            says=job.speech.prompt, expected=text, settings=settings, notes=told_of,
                            chance=drawn is not None or by_branch(maker.voice, self.layout))

    def _composed(self, cfg: DictConfig, progress: Progress | None) -> Spoken:
        """What the family draws and speaks by itself, joined as it denoises."""
        began = time.monotonic()
        settings = read_settings(cfg, self.layout)
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        jobs = plan(OmegaConf.create({**values, "prompts": None, "num_samples": 1}), self.layout)
        total = settings.method.calls(settings)
        told = (lambda state: progress(state["i"] + 1, total)) if progress else None
        seen = quantise(generate_batch(self._load_family(), settings, jobs, told).numpy())[0]
        pair = jobs[0].pair
        return self._spoken(seen, seen / np.float32(255), began, shows=pair.image_prompt,
                            says=pair.audio_prompt, expected=pair.audio_prompt, settings=self._settings(cfg),
                            notes=notes(jobs, self.layout))

    def _settings(self, cfg: DictConfig) -> dict[str, Any]:
        return {key: OmegaConf.select(cfg, key) for key in CHANGED[self.mixes]}

    # --- what is heard

    def read_aloud(self, path: str | Path) -> Spoken:
        """Play any picture and have it transcribed. Raises UserError naming what is wrong with the file."""
        with self._turn:
            began = time.monotonic()
            message = read_picture(path)
            shown = Image.fromarray(read_pixels(path))
            shown.thumbnail((SHOWN_COLUMNS, SHOWN_ROWS))
            return self._spoken(np.asarray(shown), message, began)

    def _spoken(self, picture: np.ndarray, message: np.ndarray, began: float, *, shows: str | None = None,
                says: str | None = None, expected: str | None = None, settings: dict[str, Any] | None = None,
                notes: Sequence[str] = (), chance: bool = True) -> Spoken:
        """Play a message (256, F) in [0, 1] and have it heard. expected: the words that are asked for."""
        message = message.astype(np.float32)
        wave = as_stored(self._vocoder.decode_message(message[None])[0].cpu().numpy())
        readers, told = self._load_readers(), list(notes)
        if readers is None:
            return Spoken(picture, message, wave, shows, says, time.monotonic() - began, settings or {},
                          notes=tuple(told), chance=chance)
        reader = self._reader(expected or "")
        heard = reader.read(wave).text
        errors = word_errors(expected, heard, reader.normaliser) if expected else None
        if isinstance(reader, PocketsphinxReader) and self.mixes:
            told.append(CLOSED)
        clip = None  # the pocket CLIP looks at whole frames
        if shows is not None and readers.picture is not None and message.shape == SHAPE:
            looked = readers.picture.look([Shown(quantise(message))])
            clip = readers.picture.judge(looked, [shows])[0].get("clip")
        return Spoken(picture, message, wave, shows, says, time.monotonic() - began, settings or {}, heard,
                      errors.rate if errors else None, clip, reader.name, reader.normaliser, tuple(told),
                      chance)

    def _reader(self, prompt: str) -> Any:
        """The reader of speech; one of its own for a prompt with words that the vocabulary lacks.

        Adding them to the common one would make it slower with every visitor.
        """
        readers = self._load_readers()
        assert readers is not None
        reader = readers.speech
        if not isinstance(reader, PocketsphinxReader) or not new_words([prompt], reader.words):
            return reader
        own: Any = load_readers(self.cfg.reader, self.cfg.device, see=False).speech
        own.extend([prompt])
        return own


def read_style(name: str) -> Any:
    """The values of a style by name. Raises UserError on one that there is not."""
    known = choices("style")
    if name not in known:
        raise UserError(f"style={name}: expected one of {', '.join(known)}.{nearest(name, known)}")
    return OmegaConf.load(known[name])
