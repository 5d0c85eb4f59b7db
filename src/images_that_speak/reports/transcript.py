"""What was asked for beside what was heard, word by word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jiwer

from ..scoring.text import PLAIN, normalise

# (kind, asked, heard): "=" right, "s" another word, "d" not heard (heard is ""), "i" heard besides (asked
# is "").
Word = tuple[str, str, str]


def align(asked: str, heard: str, normaliser: str = PLAIN) -> list[Word]:
    """The words of both texts in the alignment by which WER counts, after the reader's normaliser.

    >>> align("happy baby music", "happy maybe")
    [('=', 'happy', 'happy'), ('s', 'baby', 'maybe'), ('d', 'music', '')]
    """
    return align_all([(asked, heard)], [normaliser])[0]


def align_all(pairs: Sequence[tuple[str, str]], normalisers: Iterable[str] = ()) -> list[list[Word]]:
    """`align` for many pairs at once, which is faster; each by its normaliser, all by "plain" without."""
    by = list(normalisers) or [PLAIN] * len(pairs)
    texts = [(normalise(asked, name), normalise(heard, name))
             for (asked, heard), name in zip(pairs, by, strict=True)]
    spoken = [(asked, heard) for asked, heard in texts if asked]
    found: Iterator[Any] = iter(())
    if spoken:
        output = jiwer.process_words([asked for asked, _ in spoken], [heard for _, heard in spoken])
        found = iter(zip(output.references, output.hypotheses, output.alignments, strict=True))
    return [_words(*next(found)) if asked else [("i", "", word) for word in heard.split()]
            for asked, heard in texts]


def _words(asked: list[str], heard: list[str], chunks: list[jiwer.AlignmentChunk]) -> list[Word]:
    words: list[Word] = []
    for chunk in chunks:
        left = asked[chunk.ref_start_idx:chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx:chunk.hyp_end_idx]
        if chunk.type == "delete":
            words += [("d", word, "") for word in left]
        elif chunk.type == "insert":
            words += [("i", "", word) for word in right]
        else:
            kind = "=" if chunk.type == "equal" else "s"
            words += [(kind, a, b) for a, b in zip(left, right, strict=True)]
    return words
