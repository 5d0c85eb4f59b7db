"""Speech under pictures, as `composition=modulation` has them, by settings of chance: for judges to learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..audio.mel import logmel_to_picture, picture_to_logmel
from ..errors import UserError
from .modulation import Modulation, loudness


@dataclass(frozen=True)
class JoinedByChance:
    """Joins a share of windows of speech with a drawing, each by settings of its own."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"data.join.share={self.share}: expected 0 to 1")

    @torch.no_grad()
    def __call__(self, rng: np.random.Generator, logmel: np.ndarray, drawing: np.ndarray) -> np.ndarray:
        """Speech (256, F) in nats and a drawing (256, F) in [0, 1] → the log-mel (256, F) of both.

        Power is averaged as playing and hearing again would, which is a fifth of the work.
        """
        voice = logmel_to_picture(torch.from_numpy(np.ascontiguousarray(logmel, np.float32))[None])
        picture = torch.from_numpy(np.ascontiguousarray(drawing, np.float32))[None]
        return picture_to_logmel(loudness(by_chance(rng)(picture, voice)))[0].numpy()


def by_chance(rng: np.random.Generator) -> Modulation:
    """Settings around those of the styles: half of them in dots, half by bands."""
    dots = rng.random() < 0.5
    shadow = rng.uniform(0.1, 0.4)
    return Modulation(
        brightness=rng.uniform(0.5, 0.68) if dots else rng.uniform(0.35, 0.55),
        shading=rng.uniform(0, 0.2) if dots else rng.uniform(0.1, 0.5),
        contested=rng.uniform(0, 0.3), silence=rng.uniform(0, 1), detail=rng.uniform(0.6, 1.3),
        voice_db=rng.uniform(-2, 4), valleys=rng.uniform(0.4, 1), soften_rows=rng.uniform(0, 3),
        soften_columns=rng.uniform(0, 1), rounds=int(rng.integers(1, 5)),
        dots=int(rng.integers(4, 13)) if dots else 0, shadow=shadow, light=shadow + rng.uniform(0.15, 0.4))
