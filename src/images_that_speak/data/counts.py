"""How many of a thing a prompt asks for, and the same prompt with that number as the captions say it."""

from __future__ import annotations

import re

from .captions import NUMBERS as SAID

COPIES = len(SAID) - 1  # the most that a caption says

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


def subject(prompt: str) -> str:
    """What a prompt names: "a drawing of two owls, grayscale" → "two owls"."""
    kind = "painting|drawing|picture|photo|lithograph|silhouette|sketch"
    named = re.sub(rf"\b(an?|the)\s+(\w+\s+)?({kind})s? of\b", " ", prompt.lower())
    return re.split(r",|\bon\b|\bin\b", named)[0].strip()


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
