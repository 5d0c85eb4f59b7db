"""The most likely words behind frame-wise phone probabilities, when only the words of a list can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpokenWord:
    """A word and its frames [start, end)."""

    text: str
    start: int
    end: int


class WordLoop:
    """Viterbi search over any sequence of the words of a lexicon, with blanks before, between and after them.

    A word is its phones in order. A phone takes one or more frames, blanks may follow it, and entering a word
    costs −ln(insertion / number of words). All clips and all words go through a frame together.

    Args:
        lexicon: for each word its pronunciations, each the symbols' numbers, at least one.
        insertion: factor paid for each word, in (0, 1]; smaller hears fewer words.
        blank: the number of CTC's blank.
    """

    def __init__(self, lexicon: Mapping[str, Sequence[Sequence[int]]], insertion: float = 0.01,
                 blank: int = 0):
        spoken = [(word, phones) for word, variants in lexicon.items() for phones in variants]
        lengths = np.array([len(phones) for _, phones in spoken])
        if not len(lengths) or lengths.min() < 1:
            raise ValueError("a lexicon needs words, and a word needs phones")
        self.texts = [word for word, _ in spoken]
        self.blank = blank
        self.penalty = float(np.log(insertion / len(lexicon)))
        # The phones of all pronunciations in one row; `last` and `first` are where each begins and ends.
        self.phones = np.array([phone for _, phones in spoken for phone in phones])
        self.last = lengths.cumsum() - 1
        self.first = self.last - lengths + 1

    def decode(self, log_probs: np.ndarray) -> list[list[SpokenWord]]:
        """(B, T, symbols) log-probabilities → for each clip its words in order."""
        clips, frames, _ = log_probs.shape
        rows = np.arange(clips)
        nowhere = np.full((clips, len(self.phones)), -np.inf)
        # Best scores of paths that now sound a phone, or pause after it inside a word; where that word began.
        sound, pause = nowhere, nowhere
        sound_start = pause_start = np.zeros(nowhere.shape, np.int32)
        # Best score of paths between words, and the last frame of the word before: −1 is none.
        between, ended = np.zeros(clips), np.full(clips, -1, np.int32)
        word, start, before = (np.zeros((clips, frames), np.int32) for _ in range(3))
        for t in range(frames):
            emitted, blank = log_probs[:, t, self.phones], log_probs[:, t, self.blank]
            here = np.maximum(sound, pause)
            here_start = np.where(pause > sound, pause_start, sound_start)
            come, come_start = np.roll(here, 1, 1), np.roll(here_start, 1, 1)
            come[:, self.first] = (between + self.penalty)[:, None]
            come_start[:, self.first] = t
            stays = sound >= come
            sound_start = np.where(stays, sound_start, come_start)
            sound = np.where(stays, sound, come) + emitted
            pause, pause_start = here + blank[:, None], here_start
            pause[:, self.last] = -np.inf  # after a word's last phone there is no word to be inside of
            best = sound[:, self.last].argmax(1)
            at = self.last[best]
            word[:, t], start[:, t], before[:, t] = best, sound_start[rows, at], ended
            rest, done = between + blank, sound[rows, at]
            ended = np.where(done > rest, t, ended)
            between = np.maximum(done, rest)
        return [self._trace(*found) for found in zip(ended.tolist(), word, start, before, strict=True)]

    def _trace(self, end: int, word: np.ndarray, start: np.ndarray, before: np.ndarray) -> list[SpokenWord]:
        """Back from the last frame of the last word."""
        words: list[SpokenWord] = []
        while end >= 0:
            begun = int(start[end])
            words.append(SpokenWord(self.texts[word[end]], begun, int(end) + 1))
            end = int(before[begun])
        return words[::-1]
