"""What is said of a picture: names with articles, plurals and counts, in templates that tell the ground.

About a tenth of the (concept, template, count) combinations is held out by a stable hash: no training picture
carries them, so a test prompt is a new sentence about things that were seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from .emoji import Concept, concepts

GROUNDS = ("black", "silhouette")
# Bare templates tell nothing of the ground and mean the common kind, on black.
TEMPLATES = {
    "black": (
        "a painting of {}, grayscale",
        "a drawing of {}, grayscale",
        "a picture of {}, grayscale",
        "a lithograph of {}",
        "{} on black",
        "{} on a black background",
        "{}, grayscale",
        "{}",
    ),
    "silhouette": (
        "a silhouette of {}",
        "a silhouette of {}, grayscale",
        "a dark silhouette of {} on a light background",
        "{} in silhouette",
    ),
}
NUMBERS = ("", "one", "two", "three", "four", "five")
# "one": one copy; "many": two to five copies under the bare plural; else the number that is said.
COUNTS = ("one", "many", "two", "three", "four", "five")
HELD_OUT = 0.1


@dataclass(frozen=True)
class Caption:
    """One caption: the index of its concept, the ground, the template and the count that it says."""

    concept: int
    ground: str
    template: str
    count: str

    @property
    def text(self) -> str:
        """The sentence ("a drawing of two owls, grayscale")."""
        return self.template.format(phrase(concepts()[self.concept], self.count))

    @property
    def copies(self) -> tuple[int, int]:
        """The least and the most copies that the caption is true of."""
        return (2, 5) if self.count == "many" else (NUMBERS.index(self.count),) * 2

    @property
    def held_out(self) -> bool:
        """Whether the caption is kept from training; stable over versions of the concept table."""
        key = f"{concepts()[self.concept].name}|{self.template}|{self.count}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") < HELD_OUT * 2**32


def phrase(concept: Concept, count: str) -> str:
    """The noun phrase: "an owl", "owls", "two owls"."""
    if count == "one":
        return concept.singular
    return concept.plural if count == "many" else f"{count} {concept.plural}"


@lru_cache(maxsize=4)
def captions(split: str | None = None) -> tuple[Caption, ...]:
    """All captions, or those of "train" or "test" (held out), in a fixed order."""
    if split not in (None, "train", "test"):
        raise ValueError(f"split={split!r} (expected 'train', 'test' or None)")
    return tuple(c for c in _all_captions() if split is None or c.held_out == (split == "test"))


def _all_captions() -> Iterator[Caption]:
    for index, concept in enumerate(concepts()):
        for ground in GROUNDS if concept.outline else ("black",):
            for template, count in product(TEMPLATES[ground], COUNTS):
                yield Caption(index, ground, template, count)


def test_captions(n: int, seed: int = 0) -> list[str]:
    """`n` held-out captions of `n` different concepts, easy and hard in turn.

    Easy: one or many, on black. Hard: an exact number, and every second of these a silhouette where the
    concept has one held out. Raises ValueError when `n` exceeds the number of concepts.
    """
    if not 1 <= n <= len(concepts()):
        raise ValueError(f"n={n} (expected 1 to {len(concepts())}, the number of concepts)")
    rng = np.random.default_rng([seed, 20])
    test = captions("test")
    kinds = ("easy", "counted", "easy", "silhouette")

    def kind(caption: Caption) -> str:
        if caption.ground == "silhouette":
            return "silhouette"
        return "easy" if caption.count in ("one", "many") else "counted"

    by_concept: dict[int, list[Caption]] = {}
    for caption in test:
        by_concept.setdefault(caption.concept, []).append(caption)
    chosen: list[str] = []
    order = [int(index) for index in rng.permutation(list(by_concept))]
    while len(chosen) < n and order:
        wanted = kinds[len(chosen) % len(kinds)]
        fits = [i for i in order if any(kind(c) == wanted for c in by_concept[i])]
        index = (fits or order)[0]
        order.remove(index)
        options = [c for c in by_concept[index] if kind(c) == wanted] or by_concept[index]
        chosen.append(options[rng.integers(len(options))].text)
    return chosen


# pytest would collect it by its name wherever a test imports it.
test_captions.__test__ = False  # type: ignore[attr-defined]
