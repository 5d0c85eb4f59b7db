"""Text → phonemes: lower-case ARPAbet without stress, as flite prints it.

The dictionary is cmudict's first pronunciation with its unstressed AH as "ax", which is what flite says for
the whole pocket vocabulary and for 92 % of random dictionary words. A word that the dictionary lacks goes to
the letter-to-sound model (letters.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from ..errors import UserError
from .dictionary import ARPABET, entries, fold
from .letters import LetterToSound

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

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ("", " thousand", " million", " billion", " trillion")
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
            "nine": "ninth", "twelve": "twelfth"}
SIGNS = {"&": " and ", "%": " percent ", "+": " plus ", "=": " equals ", "@": " at ", "$": " dollars ",
         "€": " euros ", "£": " pounds ", "°": " degrees "}


def spell_number(digits: str) -> str:
    """A run of digits in words; more than 15 of them, or a leading zero, are read one by one.

    >>> spell_number("1042")
    'one thousand forty two'
    """
    if len(digits) > 15 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(ONES[int(digit)] for digit in digits)
    number, words = int(digits), []
    if number == 0:
        return ONES[0]
    for scale in range((len(digits) - 1) // 3, -1, -1):
        group = number // 1000**scale % 1000
        hundreds, rest = divmod(group, 100)
        if hundreds:
            words.append(f"{ONES[hundreds]} hundred")
        if rest >= 20:
            words.append(TENS[rest // 10])
            rest %= 10
        if rest:
            words.append(ONES[rest])
        if group:
            words[-1] += SCALES[scale]
    return " ".join(words)


def spell_ordinal(digits: str) -> str:
    """The ordinal of a run of digits: "21" → "twenty first"."""
    *head, last = spell_number(digits).split()
    last = ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return " ".join([*head, last])


def normalise_text(text: str) -> str:
    """Lower-case English words with single spaces: digits spelled, punctuation gone, apostrophes kept inside.

    Raises UserError when nothing is left to say, or at a letter outside a–z.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = re.sub("[’ʼ`´‘]", "'", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)  # 1,000
    plain = re.sub(r"\$\s?(\d+(?:\.\d+)?)", r"\1 dollars", plain)
    plain = re.sub(r"([€£])\s?(\d+(?:\.\d+)?)", r"\2\1", plain)
    plain = re.sub(r"([0-9]+)(?:st|nd|rd|th)\b", lambda m: f" {spell_ordinal(m[1])} ", plain)
    plain = re.sub(r"([0-9]+)\.([0-9]+)",
                   lambda m: f" {spell_number(m[1])} point {' '.join(ONES[int(d)] for d in m[2])} ", plain)
    plain = re.sub("[0-9]+", lambda m: f" {spell_number(m[0])} ", plain)
    for sign, word in SIGNS.items():
        plain = plain.replace(sign, word)
    foreign = sorted({c for c in plain if unicodedata.category(c)[0] in "LMN" and not "a" <= c <= "z"})
    if foreign:
        closest = "".join(c for c in unicodedata.normalize("NFKD", plain) if c.isascii())
        hint = f" Did you mean {' '.join(closest.split())!r}?" if re.search("[a-z]", closest) else ""
        named = ", ".join(repr(letter) for letter in foreign)
        raise UserError(f"text {text!r}: {named} (expected English words: the letters a to z, digits and "
                        f"punctuation).{hint}")
    words = (word.strip("'") for word in re.sub("[^a-z']+", " ", plain).split())
    plain = " ".join(word for word in words if word)
    if not plain:
        raise UserError(f"text {text!r}: nothing to say (expected at least one English word)")
    return plain


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
    words = [list(word_to_phones(word)) for word in normalise_text(text).split()]
    for word, following in zip(words, words[1:], strict=False):
        if word == ["dh", "ax"] and following[0] in VOWELS:
            word[1] = "iy"  # the apple
    return words


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
