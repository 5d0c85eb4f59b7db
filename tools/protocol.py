"""The test prompts: image captions and phrases that no training saw, paired every way.

And those to choose settings by: single pairs of captions whose things no test names, and of other phrases.

`python tools/protocol.py` writes prompts/test_*.csv anew; a test holds the files to it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from images_that_speak.data.captions import captions
from images_that_speak.files import atomic_write
from images_that_speak.resources import ROOT, words

SIZES = (5, 10, 20)
WORDS = 6
LONGER = (12, 18)  # words of a phrase: how much can a picture say?
SEED = 2026
VALIDATION_SEED = 7
VALIDATION_PAIRS = 12


def phrases(n: int, length: int = WORDS, seed: int = SEED) -> list[str]:
    """`n` phrases of `length` different words of the closed vocabulary, in random order.

    Phrases share no word until the vocabulary is used up, so a small test covers many words.
    """
    rng = np.random.default_rng([seed, 1])
    pool: list[str] = []
    found: list[str] = []
    while len(found) < n:
        while len(pool) < length:
            pool += [str(word) for word in rng.permutation(words()) if word not in pool]
        found.append(" ".join(pool[:length]))
        pool = pool[length:]
    return found


def image_prompts(n: int, ground: str = "black", seed: int = SEED,
                  apart_from: Collection[int] = ()) -> list[str]:
    """`n` held-out captions of `n` different concepts, none that says only a name.

    Alternately one thing and several, since that is what people ask for; `ground` is "black" or
    "silhouette". apart_from: concepts that are left out.
    """
    rng = np.random.default_rng([seed, 2])
    pool = [c for c in captions("test")
            if c.ground == ground and c.template != "{}" and c.concept not in apart_from]
    pool = [pool[i] for i in rng.permutation(len(pool))]
    found: list[str] = []
    used: set[int] = set()
    while len(found) < n:
        wanted = ("one",) if len(found) % 2 == 0 else ("many", "two", "three")
        caption = next(c for c in pool if c.concept not in used and c.count in wanted)
        used.add(caption.concept)
        found.append(caption.text)
    return found


def concepts_of_tests() -> set[int]:
    """The concepts that some test's caption names."""
    texts = {(ground, text) for ground in ("black", "silhouette")
             for text in image_prompts(max(SIZES), ground)}
    return {c.concept for c in captions("test") if (c.ground, c.text) in texts}


def validation_table(length: int) -> str:
    """The csv of single pairs with phrases of `length` words, to choose settings by."""
    images = image_prompts(VALIDATION_PAIRS, seed=VALIDATION_SEED, apart_from=concepts_of_tests())
    return _csv(zip(images, phrases(VALIDATION_PAIRS, length, VALIDATION_SEED), strict=True))


def _csv(pairs: Iterable[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_prompt", "audio_prompt"])
    writer.writerows(pairs)
    return text.getvalue()


def table(n: int, ground: str = "black", length: int = WORDS) -> str:
    """The csv of all n × n pairs. The smaller tests are the first rows and columns of the larger."""
    largest = max(SIZES)
    spoken = phrases(largest, length)[:n]
    return _csv((image, phrase) for image in image_prompts(largest, ground)[:n] for phrase in spoken)


def files() -> dict[Path, str]:
    """Path → contents of every prompt file."""
    quick = SIZES[0]
    found = {f"test_{n}x{n}": table(n) for n in SIZES}
    found[f"test_silhouettes_{quick}x{quick}"] = table(quick, "silhouette")
    found |= {f"test_{length}_words_{quick}x{quick}": table(quick, length=length) for length in LONGER}
    found |= {f"validation/{length}_words": validation_table(length) for length in (WORDS, LONGER[-1])}
    return {ROOT / "prompts" / f"{name}.csv": text for name, text in found.items()}


if __name__ == "__main__":
    for path, text in files().items():
        atomic_write(path, text)
        print(f"{path.relative_to(ROOT)}: {len(text.splitlines()) - 1} pairs")
