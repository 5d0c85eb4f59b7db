"""The one text normaliser of scoring, used on what was asked for and on what was heard alike."""

from __future__ import annotations

import re
import unicodedata

from ..errors import UserError
from ..speech.normalisation import normalise_text


def normalise(text: str) -> str:
    """Text → lower-case words of a–z and inner apostrophes, one space apart; empty when nothing is left.

    As `speech.normalisation.normalise_text` ("Dr." is "doctor", digits are spelled, punctuation goes), but it
    never raises, for a recogniser may write anything: foreign letters are dropped, and so are a recogniser's
    remarks in brackets ("[MUSIC]").

    >>> normalise("The 3 CATS—don’t run! [Music]")
    "the three cats don't run"
    """
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
