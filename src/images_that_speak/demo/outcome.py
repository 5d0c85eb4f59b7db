"""What a request gives, and the files of it that the page links to."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from ..packages import installed
from ..reports.folders import Sample
from ..scoring.text import PLAIN

PICTURE, SPECTROGRAM, SOUND, FILM = "picture.png", "spectrogram.png", "speech.wav", "film.mp4"
KEPT = 200  # results whose files are kept, of all visitors


@dataclass(frozen=True)
class Spoken:
    """A picture that was played, and what was heard of it.

    picture: (H, W) or (H, W, 3) uint8, as it is seen. message: (256, F) in [0, 1], what of it is played.
    wave: (T,) in [-1, 1]. image_prompt: what was drawn, None of photographs. audio_prompt: what it was to
    say, None where nobody knows. heard: None where nobody listens. wer: word error rate, of words as
    `normaliser` writes them; clip: CLIP score of picture and prompt. notes: what was shown or said otherwise
    than it was asked. chance: whether another seed gives another picture.
    """

    picture: np.ndarray
    message: np.ndarray
    wave: np.ndarray
    image_prompt: str | None
    audio_prompt: str | None
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    heard: str | None = None
    wer: float | None = None
    clip: float | None = None
    reader: str | None = None
    normaliser: str = PLAIN
    notes: tuple[str, ...] = ()
    chance: bool = True

    def thumbnail(self, height: int = 128) -> Image.Image:
        """The picture, small."""
        image = Image.fromarray(self.picture).convert("RGB")
        image.thumbnail((4 * height, height))
        return image


class Shelf:
    """The files of what was made, in a folder that goes with the process; the oldest make room.

    A result's name cannot be guessed, so that visitors find none but their own.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="images-that-speak-")
        self._samples: OrderedDict[str, Sample] = OrderedDict()
        self._filming = Lock()

    def put(self, spoken: Spoken) -> str:
        """Write the files of a result; its name."""
        from ..audio.picture import colour_map, write_png
        from ..audio.wave import write_wave

        name = secrets.token_urlsafe(16)
        folder = Path(self._folder.name) / name
        folder.mkdir()
        write_png(folder / PICTURE, spoken.picture)
        colour_map(spoken.message).save(folder / SPECTROGRAM)
        write_wave(folder / SOUND, spoken.wave)
        scores = {"heard": spoken.heard, "wer": spoken.wer, "clip": spoken.clip,
                  "normaliser": spoken.normaliser}
        self._samples[name] = Sample(name, folder / PICTURE, folder / SPECTROGRAM, folder / SOUND,
                                     spoken.image_prompt, spoken.audio_prompt, scores=scores)
        while len(self._samples) > KEPT:
            oldest, _ = self._samples.popitem(last=False)
            shutil.rmtree(Path(self._folder.name) / oldest, ignore_errors=True)
        return name

    def file(self, name: str, which: str) -> Path | None:
        """A file of a result, or None where there is none; the film is made when it is first asked for."""
        sample = self._samples.get(name)
        if sample is None or which not in (PICTURE, SPECTROGRAM, SOUND, FILM):
            return None
        path = sample.image.with_name(which)
        if which == FILM and films() and not path.exists():
            from ..reports.video import write_video

            with self._filming:
                if not path.exists():
                    write_video(path, sample)
        return path if path.is_file() else None


def films() -> bool:
    """Whether films can be made."""
    return installed("av")
