"""Imprint: what each branch draws alone, put together in pixels. The baseline that costs no joint denoising.

A picture is a spectrogram in decibels, so what is done to pixels is done to the sound: to multiply darkens
every sound by the same share of its distance from silence, and the larger of two pixels is the louder sound.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, maximum

from ..audio.mel import MEL
from ..ranges import check_ranges
from .composition import Composition, ImageOnly, SpeechOnly
from .family import Family
from .guidance import evaluations
from .method import Job, Method, Settings, counting_on, denoise
from .sampling import Callback

DECIBELS = MEL.log_range * 20 / math.log(10)  # from black to white


class _Imprinting(Method):
    """What the imprints share: two pictures, from the same noise, each from its branch alone."""

    name: ClassVar[str] = "imprint"
    unused: ClassVar[tuple[str, ...]] = ("composition", "guidance.audio_weight", "guidance.image_start",
                                         "guidance.audio_start")

    def calls(self, settings: Settings) -> int:
        return 2 * settings.steps + math.prod(settings.compose.speech_draws)

    def evaluations(self, settings: Settings) -> int:
        return sum(evaluations(compose, settings.guidance, None, settings.steps)
                   for compose in _alone(settings))

    def __call__(self, family: Family, settings: Settings, jobs: Sequence[Job],
                 callback: Callback | None = None, kept: Path | None = None) -> Tensor:
        image, speech = (denoise(family, settings, compose, jobs, counting_on(callback, done))
                         for compose, done in zip(_alone(settings), (0, settings.steps), strict=True))
        return self.imprint(image, speech)

    @abstractmethod
    def imprint(self, image: Tensor, speech: Tensor) -> Tensor:
        ...


def _alone(settings: Settings) -> tuple[Composition, Composition]:
    """Each branch by itself; the speech in as many draws as the composition would make."""
    return ImageOnly(), SpeechOnly(*settings.compose.speech_draws)


@dataclass(frozen=True)
class Imprint(_Imprinting):
    """speech · (1 − ρ(1 − image)), as published (Images that Sound, Chen et al. 2024, baselines).

    rho: ρ in [0, 1], how much of the speech's brightness a black picture takes away.
    """

    rho: float = 0.5

    def __post_init__(self) -> None:
        check_ranges({"method.rho": self.rho})

    def imprint(self, image: Tensor, speech: Tensor) -> Tensor:
        """Pictures (B, 256, 1024) in [0, 1] each → the same."""
        return speech * (1 - self.rho * (1 - image))


@dataclass(frozen=True)
class ImprintMax(_Imprinting):
    """max(speech, image − k dB): the louder of the two, the picture k decibels softer than it was drawn.

    decibels: k in [0, 146.0]; a picture unit, from black to white, is 146.0 dB.
    """

    decibels: float = 20.0

    def __post_init__(self) -> None:
        check_ranges({"method.decibels": self.decibels})

    def imprint(self, image: Tensor, speech: Tensor) -> Tensor:
        """Pictures (B, 256, 1024) in [0, 1] each → the same."""
        return maximum(speech, image - self.decibels / DECIBELS)
