"""Where the things of a picture go: beside the words, so that both stay whole.

The speech is planned before anything is drawn, so the columns that it leaves free are known; a family whose
image branch takes scenes (networks/scene.py) is told to draw there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..audio.mel import MEL
from ..data.counts import asked_for, subject
from ..networks.squares import COPIES
from ..ranges import check_ranges

HEIGHT, WIDTH = MEL.n_mels, MEL.frames
SMALLEST = 0.4  # least side of a square, in heights: smaller drawings are not told apart
MANY = 3  # at most so many copies for a bare plural


def copies_of(prompt: str) -> tuple[int, int]:
    """The least and the most copies that a prompt asks for, from 1 to COPIES.

    A number counts, in words or digits, and so does "a pair of"; "a" or "an" is one, a noun phrase that ends
    in s without an article is some; the rest is one.
    """
    number = asked_for(prompt)
    if number is not None:
        return (min(max(number, 1), COPIES),) * 2
    words = re.sub(r"[^a-z ]", " ", subject(prompt)).split()
    if not words or words[0] in ("a", "an", "the"):
        return 1, 1
    plural = words[-1].endswith("s") or any(word.endswith("s") for word in words[:-1] if "of" in words)
    irregular = words[-1] in ("deer", "sheep", "fish", "snowmen", "cacti", "leaves", "children", "people")
    return (2, MANY) if plural or irregular else (1, 1)


def free_intervals(activity: np.ndarray | None, margin: int, least: int) -> list[tuple[int, int]]:
    """(F,) speech activity → the runs of columns without speech, `margin` away from it and `least` long."""
    if activity is None:
        return [(0, WIDTH)]
    busy = np.convolve(activity > 0, np.ones(2 * margin + 1), "same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[1], busy, [1]]).astype(int)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= least]


@dataclass(frozen=True)
class Scenes:
    """How scenes are planned.

    size: largest side of a copy in picture heights. brightness: of the brightest part of a drawing; it is
    heard too, 0.1 is 15 dB. beside_speech: keep to the columns that the speech leaves free, `margin` seconds
    away from it, as long as the copies fit there. Raises UserError on what is out of `ranges.RANGES`.
    """

    size: float = 0.92
    brightness: float = 0.45
    beside_speech: bool = True
    margin: float = 0.15

    def __post_init__(self) -> None:
        check_ranges({"scene.size": self.size, "scene.brightness": self.brightness,
                      "scene.margin": self.margin})

    def plan(self, prompt: str, seed: int, activity: np.ndarray | None = None) -> np.ndarray:
        """Squares (COPIES, 5) as networks.squares.FIELDS, determined by the arguments alone.

        The copies are as large as `size` and the free columns let them be; a bare plural takes as many as fit
        at full size, at least two. Where not even small ones fit beside the speech they may lie anywhere.
        """
        rng = np.random.default_rng(seed)
        low, high = copies_of(prompt)
        margin = round(self.margin * MEL.sample_rate / MEL.hop)
        smallest = round(min(SMALLEST, self.size) * HEIGHT)
        free = free_intervals(activity if self.beside_speech else None, margin, smallest)
        if sum((b - a) // smallest for a, b in free) < low:
            free = [(0, WIDTH)]
        side, copies = round(self.size * HEIGHT), high
        while copies > low and sum((b - a) // side for a, b in free) < copies:
            copies -= 1
        while sum((b - a) // side for a, b in free) < copies and side > smallest:
            side -= 4
        # Copies go one by one to where there is most room left, by lot where it is about the same.
        counts = [0] * len(free)
        for _ in range(copies):
            counts[int(np.argmax([(b - a) / (n + 1) + rng.uniform(0, side / 2) - 1e9 * ((b - a) // side <= n)
                                  for (a, b), n in zip(free, counts, strict=True)]))] += 1
        mirrored = bool(rng.random() < 0.5)
        squares = np.zeros((COPIES, 5), np.float32)
        number = 0
        for (a, b), n in zip(free, counts, strict=True):
            # The room left over is shared around the copies, a little unevenly.
            shares = rng.uniform(0.6, 1.4, n + 1)
            gaps = (b - a - n * side) * shares / shares.sum()
            at = float(a)
            for k in range(n):
                at += gaps[k]
                zoom = side * rng.uniform(0.93, 1.0) / HEIGHT
                middle = 0.5 + (rng.uniform(-0.5, 0.5)) * (1 - zoom)
                squares[number] = ((at + side / 2) / HEIGHT, middle, zoom, mirrored, self.brightness)
                at += side
                number += 1
        return squares
