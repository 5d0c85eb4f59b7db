"""What evaluate.py asks of a metric beside WER and CLIP, and what it gives to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from ..figures import Figure

Scores = dict[str, float | None]


class Unfit(UserError):
    """What a metric cannot measure, for its shape or length: the clip has no figure, others may have."""


@dataclass(frozen=True)
class Clip:
    """A sample: picture (256, F) uint8, wave (T,) float32 at 16 kHz, and what its sample.json says."""

    name: str
    picture: np.ndarray
    wave: np.ndarray
    image_prompt: str | None = None
    audio_prompt: str | None = None
    record: dict[str, Any] | None = None


class Metric(ABC):
    """One metric, or several that share their work.

    Built without reading anything large; raises UserError then when a folder that it needs is not there.
    figures: what it measures; FIGURES (figures.py) holds those that ship. weights: what it stands on, "none"
    where it needs no weights. protocol: how it was measured. reference:
    what it compares with, or None.
    """

    figures: tuple[Figure, ...] = ()
    weights: str = "none"
    protocol: str = ""
    reference: str | None = None

    @classmethod
    def declared(cls, section: Mapping[str, Any]) -> tuple[Figure, ...]:
        """What one that is built from this section of a configuration will measure; without building it."""
        return cls.figures

    def load(self) -> None:  # noqa: B027  # nothing to load is the usual case
        """Load weights, and read a set that it compares with. Raises UserError when they cannot be had."""

    @abstractmethod
    def add(self, clips: Sequence[Clip]) -> list[Scores]:
        """The figures of each clip, None where there is none; empty for a metric of sets.

        Raises `Unfit`, and has counted none of them, when one cannot be measured.
        """

    def total(self) -> dict[str, float]:
        """Figures of all clips as a set; empty for a metric whose figures are means over clips."""
        return {}

    def counted(self) -> int | None:
        """How many files there were to compare with, or None."""
        return None
