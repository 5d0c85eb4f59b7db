"""Where the things of a picture go: beside the words, so that both stay whole.

The speech is planned before anything is drawn, so the columns that it leaves free are known; a family whose
image branch takes scenes (networks/scene.py) is told to draw there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..audio.mel import MEL
from ..errors import UserError
from ..networks.scene import COPIES

HEIGHT, WIDTH = MEL.n_mels, MEL.frames
NUMBERS = {word: number for number, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty".split())} | {
    "no": 0, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "hundreds": 100, "thousand": 1000,
    "thousands": 1000, "million": 10**6}
# "a pair of owls" is two; "a pair of scissors" is one, for the painter knows it as one thing.
GROUPS = {"pair": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4, "quintet": 5, "dozen": 12, "dozens": 24,
          "score": 20}
ONE_PAIR = ("scissors", "glasses", "spectacles", "trousers", "pants", "jeans", "shorts", "pliers", "tongs",
            "binoculars", "headphones", "shoes", "boots", "socks", "gloves")
SMALLEST = 0.4  # least side of a square, in heights: smaller drawings are not told apart
MANY = 3  # at most so many copies for a bare plural


def subject(prompt: str) -> str:
    """What a prompt names: "a drawing of two owls, grayscale" → "two owls"."""
    kind = "painting|drawing|picture|photo|lithograph|silhouette|sketch"
    named = re.sub(rf"\b(an?|the)\s+(\w+\s+)?({kind})s? of\b", " ", prompt.lower())
    return re.split(r",|\bon\b|\bin\b", named)[0].strip()


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


def asked_for(prompt: str) -> int | None:
    """The number of copies that a prompt names ("2 owls", "a pair of owls"), or None where it names none.

    Only a number before a noun counts: not that of "route 66", of "a two-headed dragon" or of "a 3D cube".
    """
    words = re.findall(r"[a-z0-9][a-z0-9'’.-]*", subject(prompt))
    for at, word in enumerate(words[:-1]):
        after = words[at + 1]
        if word in GROUPS and (after == "of" or word in ("couple", "dozen")):
            things = [other for other in words[at + 1:] if other != "of"]
            if word != "pair" or not things or things[-1] not in ONE_PAIR:
                if words[max(at - 2, 0):at] == ["half", "a"]:
                    return GROUPS[word] // 2
                return GROUPS[word] * (_number(words[at - 1]) or 1 if at else 1)
        elif word == "pairs" and at and (number := _number(words[at - 1])) is not None:
            return number if words[-1] in ONE_PAIR else 2 * number
        elif (number := _number(word)) is not None and after not in (*GROUPS, "pairs"):
            # "a two headed dragon" is one; "a hundred dragons" are many.
            if not (at and words[at - 1] in ("a", "an") and number < 100):
                return number
    return None


def _number(word: str) -> int | None:
    """The number that a word or digits say, or None."""
    return int(word) if re.fullmatch(r"\d{1,6}", word) else NUMBERS.get(word)


def spelled(prompt: str) -> str:
    """`prompt` with its number as the painter's captions say it: "2 owls", "a pair of owls" → "two owls"."""
    number = asked_for(prompt)
    if number is None or number < 2:
        return prompt
    word = list(NUMBERS)[min(number, COPIES)]
    if re.search(rf"\b{word}\b(?! (pairs?|dozen|of))", prompt.lower()):
        return prompt
    things = "|".join(sorted((*GROUPS, "pairs"), key=len, reverse=True))
    numbers = "|".join([r"\d{1,6}", *NUMBERS])
    group = rf"(half )?(an? |({numbers}) )?({things})( of)?(?= )"
    found, times = re.subn(rf"\b{group}", word, prompt, count=1, flags=re.IGNORECASE)
    if times and not prompt.lower().endswith(ONE_PAIR):
        return found
    return re.sub(rf"\b(an? )?({numbers})\b(?= )", word, prompt, count=1, flags=re.IGNORECASE)


def beyond(prompt: str) -> str | None:
    """What is to be said of a prompt that asks for more copies than the painter draws, or for none."""
    number = asked_for(prompt)
    if number is None or 1 <= number <= COPIES:
        return None
    return (f"image_prompt={prompt!r}: asks for {number}; the painter draws 1 to {COPIES} copies, and draws "
            f"{min(max(number, 1), COPIES)}")


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

    size: largest side of a copy in picture heights, (0, 1]. brightness: of the brightest part of a drawing,
    (0, 1]; it is heard too, 0.1 is 15 dB. beside_speech: keep to the columns that the speech leaves free,
    `margin` seconds away from it, as long as the copies fit there.
    """

    size: float = 0.92
    brightness: float = 0.45
    beside_speech: bool = True
    margin: float = 0.15

    def __post_init__(self) -> None:
        for name in ("size", "brightness"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"scene.{name}={getattr(self, name)}: expected a number in (0, 1]")
        if not 0 <= self.margin <= MEL.seconds:
            raise UserError(f"scene.margin={self.margin}: expected seconds in [0, {MEL.seconds}]")

    def plan(self, prompt: str, seed: int, activity: np.ndarray | None = None) -> np.ndarray:
        """Squares (COPIES, 5) as networks.scene.FIELDS, determined by the arguments alone.

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
