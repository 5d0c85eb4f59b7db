"""Everyday nouns and the ImageNet classes that each may be, and the noun that a caption is about."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ..files import read_json

FILE = Path(__file__).with_name("imagenet_nouns.json")
IRREGULAR = {"mice": "mouse", "geese": "goose", "wolves": "wolf", "oxen": "ox", "calves": "cow",
             "butterflies": "butterfly", "hippos": "hippo"}


@cache
def noun_classes() -> dict[str, tuple[int, ...]]:
    """{noun: the numbers (0–999) of the ImageNet classes that a picture of it may be taken for}."""
    return {noun: tuple(classes) for noun, classes in read_json(FILE).items()}


def caption_noun(caption: str) -> str | None:
    """The first noun of a caption that has ImageNet classes; of those that begin there, the longest.

    None where it has none. Plurals count as their noun.

    >>> caption_noun("A drawing of two polar bears on a white ground")
    'polar bear'
    """
    known = noun_classes()
    words = re.findall(r"[a-z-]+", caption.lower().replace("'s", " "))
    longest = max(len(noun.split()) for noun in known)
    for start in range(len(words)):
        for length in range(min(longest, len(words) - start), 0, -1):
            *before, last = words[start:start + length]
            for form in _singulars(last):
                noun = " ".join([*before, form])
                if noun in known:
                    return noun
    return None


def _singulars(word: str) -> list[str]:
    """What `word` may be the plural of, itself first."""
    found = [word, IRREGULAR.get(word, "")]
    if word.endswith("ies"):
        found.append(word[:-3] + "y")
    if word.endswith("es"):
        found.append(word[:-2])
    if word.endswith("s"):
        found.append(word[:-1])
    return [form for form in found if form]
