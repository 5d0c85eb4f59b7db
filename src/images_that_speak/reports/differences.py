"""How one run differs from another on the samples that both have, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import objectives
from ..scoring.statistics import Interval, ratio, resampling_weights
from .folders import Sample

Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A figure of many samples, Σ top / Σ bottom over those that have `key`. `better`: −1 where less is."""

    key: str
    name: str
    better: int
    rate: bool
    top: Callable[[Scores], float]
    bottom: Callable[[Scores], float] = lambda scores: 1.0


def _rate(key: str, name: str, unit: str) -> Metric:
    return Metric(key, name, -1, True, lambda scores: scores[key] * scores[unit], lambda scores: scores[unit])


def _count(key: str) -> Metric:
    return Metric(key, key, -1, True, lambda scores: scores[key], lambda scores: scores["words"])


def _mean(key: str, name: str, better: int, rate: bool) -> Metric:
    return Metric(key, name, better, rate, lambda scores: float(scores[key]))


def _second_words(scores: Scores) -> float:
    """The reference's words as the second judge's normaliser counts them; once both had the same."""
    return scores.get("second_words") or scores["words"]


METRICS = (
    _rate("wer", "WER", "words"),
    Metric("second_wer", "WER, second judge", -1, True,
           lambda scores: scores["second_wer"] * _second_words(scores), lambda scores: _second_words(scores)),
    _rate("cer", "CER", "characters"), _rate("per", "PER", "phones"),
    *(_count(key) for key in ("invented", "insertions", "deletions", "substitutions")),
    _mean("clip", "CLIP", 1, False), _mean("top1", "top-1", 1, True),
    _mean("joint", "joint success", 1, True), _mean("evaluations", "network passes", -1, False),
    *(_mean(key, name, 1 if objectives.larger_is_better(key) else -1, False)
      for key, name in objectives.OF_SAMPLES.items()),
)


def shared(a: Sequence[Sample], b: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """The samples of both runs that have the same sample_id: the same prompts and the same seed."""
    other = {sample.id: sample for sample in b}
    return [(sample, other[sample.id]) for sample in a if sample.id in other]


def totals_of(samples: Sequence[Sample], metric: Metric, resamplings: int = 1000) -> Interval | None:
    """The figure of a run with its interval; None where no sample has it."""
    kept = [sample for sample in samples if _has(sample.scores, metric)]
    if not kept:
        return None
    weights = resampling_weights([sample.image_prompt for sample in kept],
                                 [sample.audio_prompt for sample in kept], resamplings)
    return ratio([metric.top(s.scores) for s in kept], [metric.bottom(s.scores) for s in kept], weights)


def difference(pairs: Sequence[tuple[Sample, Sample]], metric: Metric,
               resamplings: int = 1000) -> Interval | None:
    """The second run's figure less the first's on `pairs`, with a 95 % paired bootstrap interval.

    Prompts are resampled, for both runs alike, so that what a prompt does to both cancels. None where no pair
    has the figure.
    """
    kept = [(a, b) for a, b in pairs if _has(a.scores, metric) and _has(b.scores, metric)]
    if not kept:
        return None
    tops = np.array([[metric.top(side.scores) for side in pair] for pair in kept], float)  # (N, 2)
    bottoms = np.array([[metric.bottom(side.scores) for side in pair] for pair in kept], float)
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


def verdict(found: Interval, metric: Metric) -> str:
    """"better", "worse", "the same", or "undecided" where the interval holds 0."""
    if found.low is None or found.high is None:
        return "undecided"
    if found.low == found.high == 0:
        return "the same"
    if found.low <= 0 <= found.high:
        return "undecided"
    return "better" if (found.value > 0) == (metric.better > 0) else "worse"


def _has(scores: Scores, metric: Metric) -> bool:
    if scores.get(metric.key) is None:
        return False
    try:
        return metric.bottom(scores) > 0
    except (KeyError, TypeError):
        return False
