"""The model of letters to sounds, fitted to a dictionary.

Every word is cut into pairs of one letter and zero to two phones by hard expectation-maximisation, and the
pairs are counted by an interpolated n-gram with modified Kneser-Ney smoothing (Chen & Goodman 1999).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from ..errors import UserError
from ..ranges import check_ranges
from ..speech.dictionary import dictionary
from ..speech.letters import BITS, CODES, END, LETTERS, START, LetterToSound

Pair = tuple[str, tuple[str, ...]]  # a letter and its phones

def align(lexicon: Sequence[tuple[str, Sequence[str]]],
          iterations: int = 6) -> list[list[tuple[int, ...]] | None]:
    """Cut each word's phones (codes into CODES) into one chunk of zero to two for every letter.

    Hard EM on −ln P(chunk | letter), from the association of letters and phones within words. A word with
    more than twice as many phones as letters gets None.
    """
    width, size = max(len(word) for word, _ in lexicon), len(CODES)
    height = max(len(phones) for _, phones in lexicon)
    letters = np.full((len(lexicon), width), -1, np.int64)
    sounds = np.full((len(lexicon), height + 2), size, np.int64)  # two of padding, for j − 2 at the start
    for row, (word, phones) in enumerate(lexicon):
        letters[row, :len(word)] = [LETTERS.index(letter) for letter in word]
        sounds[row, 2:2 + len(phones)] = [CODES[phone] for phone in phones]
    lengths = (letters >= 0).sum(1)
    targets = (sounds < size).sum(1)

    together = np.zeros((len(LETTERS), size))
    for code in range(size):
        has = (sounds == code).any(1)
        together[:, code] = np.bincount(letters[has][letters[has] >= 0], minlength=len(LETTERS))
    association = np.log((together + 1) * together.sum() / np.outer(together.sum(1) + 1, together.sum(0) + 1))
    one = np.pad(2 - association, ((0, 0), (0, 1)), constant_values=1e4)
    two = one[:, :, None] + one[:, None, :] + 2
    none = np.full(len(LETTERS), 3.0)

    for _ in range(iterations):
        cost = np.full((len(lexicon), height + 1), 1e6)
        cost[:, 0] = 0
        chosen = np.zeros((width, len(lexicon), height + 1), np.int8)
        for i in range(width):
            live = np.flatnonzero(letters[:, i] >= 0)
            letter, now = letters[live, i, None], cost[live]
            last, before = sounds[live, 1:height + 2], sounds[live, :height + 1]  # phones j and j − 1
            options = np.stack([
                now + none[letter],
                np.pad(now, ((0, 0), (1, 0)), constant_values=1e6)[:, :-1] + one[letter, last],
                np.pad(now, ((0, 0), (2, 0)), constant_values=1e6)[:, :-2] + two[letter, before, last],
            ])
            chosen[i, live] = options.argmin(0)
            cost[live] = options.min(0)
        counts0, counts1 = np.full(len(LETTERS), .1), np.full(one.shape, .01)
        counts2 = np.full(two.shape, .001)
        aligned = cost[np.arange(len(lexicon)), targets] < 1e4
        take = np.zeros((len(lexicon), width), np.int8)
        at = np.where(aligned, targets, 0)
        for i in range(width - 1, -1, -1):
            live = np.flatnonzero((i < lengths) & aligned)
            step = take[live, i] = chosen[i, live, at[live]]
            letter, j = letters[live, i], at[live] + 1  # column of phone j in `sounds`
            np.add.at(counts0, letter[step == 0], 1)
            np.add.at(counts1, (letter[step == 1], sounds[live[step == 1], j[step == 1]]), 1)
            np.add.at(counts2, (letter[step == 2], sounds[live[step == 2], j[step == 2] - 1],
                                sounds[live[step == 2], j[step == 2]]), 1)
            at[live] -= step
        total = counts0 + counts1[:, :-1].sum(1) + counts2.sum((1, 2))
        none, one, two = (-np.log(counts0 / total), -np.log(counts1 / total[:, None]),
                          -np.log(counts2 / total[:, None, None]))
        one[:, -1] = two[:, -1] = two[:, :, -1] = 1e4

    chunks: list[list[tuple[int, ...]] | None] = []
    for row in range(len(lexicon)):
        if not aligned[row]:
            chunks.append(None)
            continue
        ends = np.cumsum(take[row, :lengths[row]])
        codes = sounds[row, 2:].tolist()
        chunks.append([tuple(codes[end - step:end]) for end, step in zip(ends, take[row], strict=False)])
    return chunks


def train_letters(lexicon: Mapping[str, Sequence[str]], order: int = 7, rare: int = 8,
                  prune: float = 1.0) -> LetterToSound:
    """Fit the model on {word: phones}.

    rare: words holding a pair seen fewer times are left out. prune: n-grams that change the log probability
    by less nats than this are left out: a third of the size for half a point more of phone errors.
    """
    check_ranges({"model.order": order, "model.rare": rare, "model.prune": prune})
    words = [(word, phones) for word, phones in lexicon.items()
             if set(word) <= set(LETTERS) and 1 < len(word) <= 20 and 0 < len(phones) <= 20]
    rows = _pairs(words)
    count = Counter(pair for row in rows for pair in row)
    frequent = [pair for pair, times in count.most_common() if times >= rare]
    pairs = [("", ()), ("<s>", ()), ("</s>", ()), *frequent[:(1 << BITS) - 3]]
    ids = {pair: i for i, pair in enumerate(pairs)}
    rows_of_ids = [[ids[pair] for pair in row] for row in rows if all(pair in ids for pair in row)]
    return LetterToSound(pairs, _pruned(_kneser_ney(rows_of_ids, order), prune))


def _pairs(words: Sequence[tuple[str, Sequence[str]]]) -> list[list[Pair]]:
    """The letters of each word that could be aligned, each with its phones."""
    names = list(CODES)
    rows = []
    for (word, _), chunks in zip(words, align(words), strict=True):
        if chunks is not None:
            rows.append([(letter, tuple(names[code] for code in chunk))
                         for letter, chunk in zip(word, chunks, strict=True)])
    return rows


def _kneser_ney(rows: Sequence[Sequence[int]], order: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The tables of LetterToSound from rows of pair ids, start and end excluded."""
    stream = np.concatenate([[0] * (order - 2) + [START, *row, END] for row in rows]).astype(np.int64)
    predicted = (stream != 0) & (stream != START)
    stream, at = stream, np.flatnonzero(predicted)
    full = np.zeros(len(at), np.int64)
    for back in range(order - 1, -1, -1):
        full = (full << BITS) | stream[np.maximum(at - back, 0)]
    grams, counts = np.unique(full, return_counts=True)
    levels = [(grams, counts)]
    for n in range(order - 1, 0, -1):
        # Continuation counts: after how many different pairs a gram occurs; raw where a word begins with it.
        shorter = grams & ((1 << BITS * n) - 1)
        weight = np.where(shorter >> BITS * (n - 1) <= START, counts, 1)
        grams, inverse = np.unique(shorter, return_inverse=True)
        counts = np.bincount(inverse, weight).astype(np.int64)
        levels.insert(0, (grams, counts))

    tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for n, (grams, counts) in enumerate(levels, 1):
        if n > 1:
            # Keep grams whose oldest pair is real; the others are the shorter gram over again.
            real = (grams >> BITS * (n - 1)) != 0
            grams, counts = grams[real], counts[real]
        n1, n2, n3, n4 = (max(int((counts == k).sum()), 1) for k in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        discount = np.clip([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3],
                           0, [0, 1, 2, 3])
        off = discount[np.minimum(counts, 3)]
        contexts, inverse = np.unique(grams >> BITS, return_inverse=True)
        total = np.bincount(inverse, counts)
        left = np.bincount(inverse, off) / total  # probability mass handed to the shorter context
        if n == 1:
            lower = np.full(len(grams), 1 / len(grams))
        else:
            below, logp_below, backoff = tables[-1]
            lower = np.exp(logp_below[np.searchsorted(below, grams & ((1 << BITS * (n - 1)) - 1))])
            known = np.isin(below, contexts)
            backoff[known] = np.log(left[np.searchsorted(contexts, below[known])])
            if not known.any():
                raise UserError("letters: no words to learn from")
        logp = np.log((counts - off) / total[inverse] + left[inverse] * lower)
        if n == 1:
            # The start is never predicted, but it is a context, which needs a place for its backoff weight.
            grams, logp = np.insert(grams, 0, START), np.insert(logp, 0, -20.0)
        tables.append((grams, logp, np.zeros(len(grams))))
    return tables


def _pruned(tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
            threshold: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Leave out n-grams (n ≥ 3) that backing off predicts within `threshold` nats and no longer one needs."""
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    needed = np.zeros(0, np.int64)
    for n in range(len(tables), 0, -1):
        grams, logp, backoff = tables[n - 1]
        keep = np.ones(len(grams), bool)
        if n >= 3:
            below, logp_below, backoff_below = tables[n - 2]
            context = np.searchsorted(below, grams >> BITS)
            shorter = np.searchsorted(below, grams & ((1 << BITS * (n - 1)) - 1))
            predicted = logp_below[shorter] + np.where(
                below[np.minimum(context, len(below) - 1)] == grams >> BITS,
                backoff_below[np.minimum(context, len(below) - 1)], 0)
            keep = (np.abs(logp - predicted) > threshold) | np.isin(grams, needed)
        kept.insert(0, (grams[keep], logp[keep], backoff[keep]))
        needed = np.unique(kept[0][0] >> BITS)
    return kept


def error_rates(model: LetterToSound, lexicon: Mapping[str, Sequence[Sequence[str]]]) -> tuple[float, float]:
    """Phone and word error rate against the nearest of each word's pronunciations."""
    edits = phones = wrong = 0
    for word, variants in lexicon.items():
        said = model.pronounce(word)
        distance, length = min((Levenshtein.distance(variant, said), len(variant)) for variant in variants)
        edits, phones, wrong = edits + distance, phones + length, wrong + bool(distance)
    return edits / phones, wrong / len(lexicon)


def fit_dictionary(held_out: int, seed: int, **model: Any) -> tuple[LetterToSound, tuple[float, float]]:
    """The model of all words of the dictionary; and the error rates, on `held_out` words, of one without.

    model: arguments of `train_letters`.
    """
    check_ranges({"model.held_out": held_out})
    lexicon = {word: variants for word, variants in dictionary().items() if set(word) <= set(LETTERS)}
    words = sorted(lexicon)
    random.Random(seed).shuffle(words)
    unseen, rest = words[:held_out], words[held_out:]
    rates = error_rates(train_letters({w: lexicon[w][0] for w in rest}, **model),
                        {w: lexicon[w] for w in unseen})
    return train_letters({w: lexicon[w][0] for w in words}, **model), rates
