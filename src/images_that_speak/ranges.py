"""The range of every key that is a number: one definition for `validate` and for what is built from the key.

Never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UserError

SECONDS = 10.24  # of a picture; audio.mel, which knows it, imports torch


@dataclass(frozen=True)
class Range:
    """From `least` to `greatest`; with `above` and `below` these themselves are out. `expected`: in words."""

    least: float
    greatest: float
    expected: str
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies within; NaN does not."""
        return ((self.least < value if self.above else self.least <= value)
                and (value < self.greatest if self.below else value <= self.greatest))

    def wrong(self, key: str, value: float) -> str | None:
        """What is wrong with `key=value`, or None."""
        return None if self.holds(value) else f"{key}={value}: expected {self.expected}"


_START = Range(0, 1, "a share of the schedule, from 0 to below 1", below=True)
RANGES: dict[str, Range] = {
    "guidance.audio_weight": Range(0, 1, "the share of the speech branch, 0 to 1"),
    "guidance.image_start": _START,
    "guidance.audio_start": _START,
    "guidance.image_scale": Range(0, 100, "0 to 100"),
    "guidance.audio_scale": Range(0, 100, "0 to 100"),
    "guidance.rescale": Range(0, 1, "0 to 1"),
    "method.rho": Range(0, 1, "0 to 1"),
    "method.lr": Range(0, 1, "above 0, at most 1", above=True),
    "method.crops": Range(0, 64, "0 to 64"),
    "method.seconds": Range(0.05, 60, "seconds, 0.05 to 60"),
    "method.frame_rate": Range(1, 60, "frames a second, 1 to 60"),
    "method.decibels": Range(0, 146, "decibels, 0 to 146"),
    "phonemes.pause": Range(0, SECONDS, f"seconds between words, 0 to {SECONDS}"),
    "phonemes.rate": Range(0.25, 4, "how much faster than natural, 0.25 to 4"),
    "pitch": Range(0.5, 2, "times the voice's own, 0.5 to 2"),
    "port": Range(0, 65535, "a port from 1 to 65535, or 0 for any that is free"),
    "limits.words": Range(1, 100, "1 to 100"),
    "limits.characters": Range(1, 1000, "1 to 1000"),
    "limits.steps": Range(1, 1000, "1 to 1000"),
    "limits.waiting": Range(1, 1000, "1 to 1000"),
    "scene.size": Range(0.05, 1, "picture heights, 0.05 to 1"),
    "scene.brightness": Range(0.05, 1, "a brightness, 0.05 to 1"),
    "scene.margin": Range(0, SECONDS, f"seconds, 0 to {SECONDS}"),
    "strength": Range(0, 1, "a share, above 0, at most 1", above=True),
    "rate": Range(0.25, 4, "how much faster than natural, 0.25 to 4"),
    "picture.saturation": Range(0, 3, "0 to 3; 1 is what the photograph has"),
    "saturation": Range(0, 3, "0 to 3; 1 is what the colorizer says"),
    "num_samples": Range(1, 100_000, "a whole number of at least 1"),
    "batch_size": Range(1, 4096, "a whole number of at least 1"),
    "seed": Range(0, 2**32 - 1, "a whole number from 0 to 4294967295"),
    "callbacks.read_back.clips": Range(1, 100_000, "a whole number of at least 1"),
    "callbacks.read_back.every": Range(1, 100_000, "a whole number of at least 1"),
    "data.batch_size": Range(1, 100_000, "a whole number of at least 1"),
    "data.closed_fraction": Range(0, 1, "a share, 0 to 1"),
    "data.each": Range(1, 20, "a whole number of sentences, 1 to 20"),
    "data.other_each": Range(1, 8, "a whole number of sentences, 1 to 8"),
    "data.limit": Range(1, 10**9, "a whole number of at least 1, or null"),
    "data.over": Range(0, 1, "a share, 0 to 1"),
    "data.prompts": Range(1, 10**9, "a whole number of at least 1"),
    "data.ramp": Range(1, 10**9, "a whole number of steps of at least 1"),
    "data.share": Range(0, 1, "a share of the pairs, above 0 and below 1", above=True, below=True),
    "data.variants": Range(0, 1000, "a whole number from 0 to 1000"),
    "data.workers": Range(0, 4096, "a whole number of at least 0"),
    "model.condition_dropout": Range(0, 1, "a share of the conditions, 0 to 1"),
    "model.crop_until": Range(0, 1, "a share of the steps, 0 to 1"),
    "model.ground_weight": Range(0, 1, "0 to 1"),
    "model.held_out": Range(1, 100_000, "a whole number of words from 1 to 100000"),
    "model.noise": Range(0, 10, "deviations, 0 to 10"),
    "model.order": Range(2, 7, "a whole number from 2 to 7"),
    "model.rare": Range(1, 100_000, "a whole number of at least 1"),
    "model.prune": Range(0, 100, "nats, 0 to 100"),
    "model.rows": Range(1, 100_000, "a whole number of at least 1, or null"),
    "model.silence_weight": Range(0, 1, "0 to 1"),
    "trainer.accumulate": Range(1, 10**6, "a whole number of batches of at least 1"),
    "trainer.checkpoint_every": Range(1, 10**9, "a whole number of steps of at least 1"),
    "trainer.clip": Range(0, 10**9, "a norm above 0, or null", above=True),
    "trainer.ema_decay": Range(0, 1, "from 0 to below 1, or null", below=True),
    "trainer.log_every": Range(1, 10**9, "a whole number of steps of at least 1"),
    "trainer.validate_every": Range(1, 10**9, "a whole number of steps of at least 1"),
    "trainer.overfit": Range(1, 10_000, "a whole number of batches of at least 1, or null"),
    "bootstrap": Range(0, 1_000_000, "a whole number of at least 0"),
}


def check_ranges(values: Mapping[str, float]) -> None:
    """Raise UserError that names every value, by its key, that is out of its range."""
    found = [told for key, value in values.items() if (told := RANGES[key].wrong(key, value)) is not None]
    if found:
        raise UserError("\n".join(found))
