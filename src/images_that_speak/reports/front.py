"""Which runs no other run beats in both WER and CLIP, and how much of the plane they leave behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]  # (WER, lower is better; CLIP, higher is better)


def on_front(wer: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """(…, N) WER and CLIP of N runs → (…, N) whether no other is as good in both and better in one.

    Runs that are alike in both stand on the front together.
    """
    as_good = (wer[..., :, None] <= wer[..., None, :]) & (clip[..., :, None] >= clip[..., None, :])
    better = (wer[..., :, None] < wer[..., None, :]) | (clip[..., :, None] > clip[..., None, :])
    return np.asarray(~(as_good & better).any(axis=-2))


def front(points: Sequence[Point]) -> list[int]:
    """The indices of the points on the front, from the lowest WER to the highest CLIP.

    >>> front([(0.5, 20), (0.3, 10), (0.6, 15)])
    [1, 0]
    """
    if not points:
        return []
    wer, clip = np.asarray(points, float).T
    return sorted(map(int, np.flatnonzero(on_front(wer, clip))), key=lambda index: points[index])


def hypervolume(points: Sequence[Point], reference: Point = (1.0, 0.0)) -> float:
    """The area between the points and `reference`, the worst (WER, CLIP) that counts: WER × CLIP.

    A point counts as far as it is better than the reference in both.

    >>> hypervolume([(0.5, 20)])
    10.0
    """
    area, reached = 0.0, reference[1]
    for wer, clip in sorted(points[index] for index in front(points)):
        if wer < reference[0] and clip > reached:
            # From the lowest WER up, each adds the strip of CLIP that those before did not reach.
            area += (reference[0] - wer) * (clip - reached)
            reached = clip
    return area
