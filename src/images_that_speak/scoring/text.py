"""The one text normaliser of scoring, used on what was asked for and on what was heard alike."""

from __future__ import annotations

import re
import unicodedata

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
            "nine": "ninth", "twelve": "twelfth"}
NUMBER = re.compile(r"(\d+)(?:\.(\d+))?(st|nd|rd|th)?")


def spell_number(number: int) -> str:
    """A non-negative integer below 10¹² in words: 342 → "three hundred forty two".

    Larger ones are spelled digit by digit.
    """
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    if number >= 10**12:
        return " ".join(ONES[int(digit)] for digit in str(number))
    for scale, name in SCALES:
        if number >= scale:
            rest = f" {spell_number(number % scale)}" if number % scale else ""
            return f"{spell_number(number // scale)} {name}{rest}"
    raise AssertionError("unreachable")


def _ordinal(words: str) -> str:
    head, _, last = words.rpartition(" ")
    last = ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{head} {last}".strip()


def _spell(match: re.Match[str]) -> str:
    whole, fraction, suffix = match.groups()
    words = spell_number(int(whole)) if len(whole) <= 12 else " ".join(ONES[int(digit)] for digit in whole)
    if suffix:
        words = _ordinal(words)
    if fraction:
        words += " point " + " ".join(ONES[int(digit)] for digit in fraction)
    return f" {words} "


def normalise(text: str) -> str:
    """Text → lower-case words of a–z and inner apostrophes, one space apart.

    Digits are spelled out ("7th" → "seventh"), accents dropped, hyphens and other marks turned into spaces,
    bracketed remarks of a recogniser ("[MUSIC]") removed. Never raises: a recogniser may write anything.

    >>> normalise("The 3 CATS—don’t run! [Music]")
    "the three cats don't run"
    """
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    text = "".join(letter for letter in text if not unicodedata.combining(letter)).lower()
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text).replace("&", " and ").replace("%", " percent ")
    text = re.sub(NUMBER.pattern, _spell, text, flags=re.ASCII)
    text = re.sub(r"[^a-z']+", " ", text)
    return " ".join(word for word in (part.strip("'") for part in text.split()) if word)
