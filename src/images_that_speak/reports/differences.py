"""How one run differs from another on the samples that both have, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..figures import Figure
from ..scoring.statistics import Interval, ratio, resampling_weights
from .folders import RunFolder, Sample


def of_samples(runs: Sequence[RunFolder]) -> list[Figure]:
    """The figures that samples of `runs` may have, in the order of tables."""
    found = {key: figure for run in runs for key, figure in run.figures.items() if figure.of == "sample"}
    return list(found.values())


def shared(a: Sequence[Sample], b: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """The samples of both runs that have the same sample_id: the same prompts and the same seed."""
    other = {sample.id: sample for sample in b}
    return [(sample, other[sample.id]) for sample in a if sample.id in other]


def totals_of(samples: Sequence[Sample], figure: Figure, resamplings: int = 1000) -> Interval | None:
    """The figure of a run with its interval; None where no sample has it."""
    kept = [sample for sample in samples if figure.weight(sample.scores) > 0]
    if not kept:
        return None
    weights = resampling_weights([sample.image_prompt for sample in kept],
                                 [sample.audio_prompt for sample in kept], resamplings)
    return ratio([figure.weighed(s.scores) for s in kept], [figure.weight(s.scores) for s in kept], weights)


def difference(pairs: Sequence[tuple[Sample, Sample]], figure: Figure,
               resamplings: int = 1000) -> Interval | None:
    """The second run's figure less the first's on `pairs`, with a 95 % paired bootstrap interval.

    Prompts are resampled, for both runs alike, so that what a prompt does to both cancels. None where no pair
    has the figure.
    """
    kept = [(a, b) for a, b in pairs if figure.weight(a.scores) > 0 and figure.weight(b.scores) > 0]
    if not kept:
        return None
    tops = np.array([[figure.weighed(side.scores) for side in pair] for pair in kept], float)  # (N, 2)
    bottoms = np.array([[figure.weight(side.scores) for side in pair] for pair in kept], float)
    before, after = tops.sum(0) / bottoms.sum(0)
    weights = resampling_weights([a.image_prompt for a, _ in kept], [a.audio_prompt for a, _ in kept],
                                 resamplings)
    if weights is None:
        return Interval(float(after - before))
    weighted = weights @ bottoms
    filled = (weighted > 0).all(1)  # a crossed resampling of few pairs can miss every sample
    rates = (weights @ tops)[filled] / weighted[filled]
    low, high = np.percentile(rates[:, 1] - rates[:, 0], (2.5, 97.5))
    return Interval(float(after - before), float(low), float(high))


def verdict(found: Interval, figure: Figure) -> str:
    """"better", "worse", "the same", or "undecided" where the interval holds 0."""
    if found.low is None or found.high is None:
        return "undecided"
    if found.low == found.high == 0:
        return "the same"
    if found.low <= 0 <= found.high:
        return "undecided"
    return "better" if (found.value > 0) == figure.falling else "worse"
