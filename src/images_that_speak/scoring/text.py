"""The normalisers of scoring: the one of a reader is used on what was asked for and on what it heard alike.

"plain": lower-case words, as they are said. For readers that hear the words of a list.
"whisper": the same, and then OpenAI's English normaliser (Whisper, appendix C), as transformers has it, with
the spellings that OpenAI publishes beside it (spellings.json, MIT). For readers that write English as people
do: "don't" is "do not", "grey" is "gray", "third" is "3rd".
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..files import read_json
from ..speech.normalisation import normalise_text

PLAIN, WHISPER = "plain", "whisper"
SPELLINGS = Path(__file__).with_name("spellings.json")
# Contractions that people type without their apostrophe and that are no words of their own.
BARE = ("aint arent couldnt didnt doesnt dont hadnt hasnt havent im isnt ive mustnt shouldnt theyll theyre "
        "theyve thats wasnt werent weve whats wouldnt youll youre youve").split()
_BARE = re.compile(rf"\b({'|'.join(BARE)})\b", re.IGNORECASE)


def normalise(text: str, normaliser: str = PLAIN) -> str:
    """Text → words, one space apart, as `normaliser` writes them; empty when nothing is left.

    "plain": lower-case words of a–z and inner apostrophes, as `speech.normalisation.normalise_text` ("Dr." is
    "doctor", digits are spelled, punctuation goes), but it never raises, for a recogniser may write anything:
    foreign letters are dropped, and so are a recogniser's remarks in brackets ("[MUSIC]").

    >>> normalise("The 3 CATS—don’t run! [Music]")
    "the three cats don't run"
    >>> normalise("The three cats—dont run! [Music]", "whisper")
    'the 3 cats do not run'
    """
    if normaliser == WHISPER:
        return _whisper(text)
    if normaliser != PLAIN:
        raise UserError(f"normaliser={normaliser!r}: expected {PLAIN} or {WHISPER}."
                        f"{nearest(str(normaliser), (PLAIN, WHISPER))}")
    text = re.sub(r"\[[^\]]*\]", " ", text)
    try:
        return normalise_text(text)
    except UserError:  # letters that English does not know, or nothing to say
        letters = unicodedata.normalize("NFKD", text)
    kept = "".join(" " if ord(letter) > 127 and unicodedata.category(letter)[0] in "LN" else letter
                   for letter in letters if unicodedata.category(letter)[0] != "M")
    try:
        return normalise_text(kept)
    except UserError:  # nothing left to say
        return ""


def _whisper(text: str) -> str:
    def with_apostrophe(found: re.Match[str]) -> str:
        word = found[0]
        ends = ("nt", "re", "ve", "ll", "m", "s")
        end = next(end for end in ends if word.lower().endswith(end))
        return f"{word[:-1]}'{word[-1]}" if end == "nt" else f"{word[:-len(end)]}'{end}"

    return " ".join(_english()(_BARE.sub(with_apostrophe, normalise(text))).split())


@cache
def _english() -> Any:
    # Only those who need it wait for transformers, nearly a second.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer(read_json(SPELLINGS))
