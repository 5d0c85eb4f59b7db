"""From what was asked for and what was heard and seen to figures with intervals, without torch.

Corpus rates pool the errors of all samples over the words of all prompts. Intervals are percentile bootstraps
over prompts, not over samples: samples that share a prompt succeed or fail together, and the question is how
the figure would change with other prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

from ..figures import FIGURES, READ_BACK, Figure
from .text import PLAIN, normalise

JOINT_WER = 0.25  # a sample succeeds when its picture is found and its WER is at most this


@dataclass(frozen=True)
class Errors:
    """Edits that turn the reference into what was heard; `total` counts the reference's words."""

    insertions: int
    deletions: int
    substitutions: int
    total: int

    @property
    def rate(self) -> float:
        """Edits a word; above 1 where more was inserted than asked for."""
        return (self.insertions + self.deletions + self.substitutions) / self.total


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bootstrap interval; `low` and `high` are None where there is one prompt only."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def percent(self) -> str:
        """As a percentage: "8.3 % [5.0, 12.1]"."""
        text = f"{100 * self.value:.1f} %"
        return text if self.low is None or self.high is None else (
            f"{text} [{100 * self.low:.1f}, {100 * self.high:.1f}]")


def word_errors(asked: str, heard: str, normaliser: str = PLAIN) -> Errors | None:
    """Word edits after normalising both sides alike; None when `asked` has no words."""
    return _errors(normalise(asked, normaliser), normalise(heard, normaliser))


def corpus_wer(asked: Sequence[str], heard: Sequence[str], normaliser: str = PLAIN) -> float:
    """Σ edits / Σ words over all texts. Raises ValueError when nothing was asked for."""
    every = [word_errors(*texts, normaliser) for texts in zip(asked, heard, strict=True)]
    known = [found for found in every if found is not None]
    return ratio([found.rate * found.total for found in known], [found.total for found in known]).value


def character_errors(asked: str, heard: str, normaliser: str = PLAIN) -> Errors | None:
    """Character edits (spaces count) after normalising; None when `asked` has no words."""
    reference, hypothesis = normalise(asked, normaliser), normalise(heard, normaliser)
    if not reference:
        return None
    found = jiwer.process_characters(reference, hypothesis)
    return Errors(found.insertions, found.deletions, found.substitutions, len(reference))


def phoneme_errors(asked: str, heard: str) -> Errors | None:
    """Edits between the dictionary pronunciations of both texts, plainly normalised, for what is written in
    digits has none; None when `asked` has no words."""
    return _errors(phones_of(asked), phones_of(heard))


def phones_of(text: str) -> str:
    """The phones of `text`, one space apart; a word that cannot be pronounced counts as one phone."""
    from ..errors import UserError
    from ..speech.phonemes import text_to_phones

    phones: list[str] = []
    for word in normalise(text).split():
        try:
            phones += [phone for spoken in text_to_phones(word) for phone in spoken]
        except UserError:
            phones.append(word)
    return " ".join(phones)


def _errors(reference: str, hypothesis: str) -> Errors | None:
    if not reference:
        return None
    found = jiwer.process_words(reference, hypothesis)
    return Errors(found.insertions, found.deletions, found.substitutions, len(reference.split()))


def resampling_weights(image_prompts: Sequence[Any], audio_prompts: Sequence[Any], resamplings: int,
                       seed: int = 0) -> np.ndarray | None:
    """(resamplings, N): how often each of N samples counts in each bootstrap resampling.

    Where image and audio prompts are crossed (a picture's prompt comes with several phrases and a phrase with
    several pictures), both are resampled, and a sample counts as often as its image prompt times as often
    as its audio prompt (the pigeonhole bootstrap, Owen 2007). Otherwise pairs of prompts are resampled. None
    when there is but one pair.
    """
    pairs = list(zip(image_prompts, audio_prompts, strict=True))
    sizes = len(set(image_prompts)), len(set(audio_prompts)), len(set(pairs))
    if resamplings < 1 or sizes[2] < 2:
        return None
    crossed = sizes[2] > max(sizes[:2])
    rng = np.random.default_rng(seed)
    weights = np.ones((resamplings, len(pairs)))
    for factor in (image_prompts, audio_prompts) if crossed else (pairs,):
        names = {name: index for index, name in enumerate(dict.fromkeys(factor))}
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamplings)
        weights *= draws[:, [names[name] for name in factor]]
    return weights


def ratio(numerators: Sequence[float], denominators: Sequence[float],
          weights: np.ndarray | None = None) -> Interval:
    """Σ numerators / Σ denominators with the 95 % percentile interval of `weights` (resamplings, N).

    A mean is the ratio to ones. Raises ValueError when the denominators add up to nothing.
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    if not bottom.sum() > 0:
        raise ValueError("the denominators add up to nothing")
    value = float(top.sum() / bottom.sum())
    if weights is None:
        return Interval(value)
    tops, bottoms = weights @ top, weights @ bottom
    kept = bottoms > 0  # a crossed resampling of few pairs can miss every sample
    low, high = np.percentile(tops[kept] / bottoms[kept], (2.5, 97.5))
    return Interval(value, float(low), float(high))


def wilson(successes: int, trials: int) -> Interval:
    """A share and its 95 % score interval (Wilson 1927), which has a width also where all or none succeed."""
    z = 1.959963984540054
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def totals(rows: Sequence[Mapping[str, Any]], resamplings: int = 1000, seed: int = 0,
           more: Sequence[str] = ()) -> dict[str, Interval | int]:
    """Figures of a table of samples.

    Args:
        rows: one a sample, as `score_sample` makes them, with `image_prompt` and `audio_prompt`.
        more: keys of the rows whose mean over samples is told besides.

    Returns a dict, in the order of the printed table: `samples`; corpus `wer`, `second_wer`, `cer`, `per`;
    `invented`, words heard that nobody said a word asked for: insertions, and all that was heard where
    nothing was to be said; `second_invented`, by the second judge; `insertions`, `deletions` and
    `substitutions` a word; `wer_capped`, the mean of min(1, WER);
    `evaluations`, UNet passes a sample; what is seen, `joint` among it.
    A figure that no sample has is left out.
    """
    found: dict[str, Interval | int] = {"samples": len(rows)}
    rows = [{**row, "wer_capped": None if row.get("wer") is None else min(1.0, row["wer"])} for row in rows]
    for figure in (*READ_BACK, *(FIGURES.get(key) or Figure(key, key) for key in more)):
        chosen = [row for row in rows if row.get(figure.key) is not None]
        tops, bottoms = ([count(row) for row in chosen] for count in (figure.weighed, figure.weight))
        if sum(bottoms) > 0:
            weights = resampling_weights([row.get("image_prompt") for row in chosen],
                                         [row.get("audio_prompt") for row in chosen], resamplings, seed)
            found[figure.key] = ratio(tops, bottoms, weights)
    if isinstance(passes := found.get("evaluations"), Interval):
        found["evaluations"] = round(passes.value)
    return found


def score_sample(audio_prompt: str | None, heard: str, clip: float | None = None,
                 top1: bool | None = None, second_heard: str | None = None, normaliser: str = PLAIN,
                 second_normaliser: str = PLAIN) -> dict[str, Any]:
    """What sample.json says of a sample that was read back; what cannot be said is None.

    `wer`, `cer` and `per` are rates; `words`, `characters` and `phones` the reference's lengths;
    `insertions`, `deletions` and `substitutions` count words. `invented`: words heard that were not said,
    the insertions; all of them where nothing was to be said (`audio_prompt` is empty). `joint`: the right
    picture found, and WER ≤ 0.25. `second_wer`, `second_words`, `second_invented`: of what a second judge
    heard. `normaliser`: of `scoring.text`, as each judge wants it.
    """
    scores: dict[str, Any] = {"heard": heard, "second_heard": second_heard, "normaliser": normaliser}
    word = word_errors(audio_prompt, heard, normaliser) if audio_prompt else None
    for name, unit, found in (
        ("wer", "words", word),
        ("cer", "characters", character_errors(audio_prompt, heard, normaliser) if audio_prompt else None),
        ("per", "phones", phoneme_errors(audio_prompt, heard) if audio_prompt else None),
    ):
        scores[name] = found.rate if found else None
        scores[unit] = found.total if found else None
    for name in ("insertions", "deletions", "substitutions"):
        scores[name] = vars(word)[name] if word else None
    scores["invented"] = _invented(audio_prompt, heard, word, normaliser)
    second = invented = None
    if second_heard is not None:
        second = word_errors(audio_prompt, second_heard, second_normaliser) if audio_prompt else None
        invented = _invented(audio_prompt, second_heard, second, second_normaliser)
    scores["second_wer"] = second.rate if second else None
    scores["second_words"] = second.total if second else None
    scores["second_invented"] = invented
    scores["clip"], scores["top1"] = clip, top1
    scores["joint"] = bool(top1 and word.rate <= JOINT_WER) if word and top1 is not None else None
    return scores


def _invented(asked: str | None, heard: str, errors: Errors | None, normaliser: str) -> int | None:
    """Words heard that were not said; None where nobody knows what was."""
    if errors is not None:
        return errors.insertions
    return None if asked is None else len(normalise(heard, normaliser).split())
