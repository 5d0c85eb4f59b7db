"""How well the picture reader names pictures that nobody was trained on.

    python benchmarks/picture_reader.py --sets 10 --corpus data/pocket_speech

Each set is 20 held-out captions of different concepts, one new rendering each, read with the 25-crop
protocol and told from the other 19. The same pictures are read again with noise, faint, and under real speech
(the brighter of the two, as when both branches keep what they draw). Nothing but speech and nothing at all
give the score that a picture without a drawing gets. Needs the emoji font.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from images_that_speak.data.captions import captions, test_captions
from images_that_speak.data.pictures import PictureSampler
from images_that_speak.scoring.seen import load_picture_reader

SEED = 1_000_003  # no training uses it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=10, help="sets of 20 prompts")
    parser.add_argument("--model", default="pocket", help="pocket, a folder or a model name of open_clip")
    parser.add_argument("--pretrained", default=None, help="with a model name: tag, file or folder")
    parser.add_argument("--corpus", type=Path, default=None, help="a corpus, for pictures under real speech")
    options = parser.parse_args()
    reader = load_picture_reader(options.model, options.pretrained)
    by_text = {caption.text: caption for caption in captions("test")}
    sampler = PictureSampler()
    sets = [test_captions(20, seed=SEED + number) for number in range(options.sets)]
    texts = [text for chosen in sets for text in chosen]
    rng = np.random.default_rng(SEED)
    clean = [sampler.draw(np.random.default_rng([SEED, i]), by_text[t]) / 255 for i, t in enumerate(texts)]
    conditions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "clean": lambda picture: picture,
        "faint (x 0.5)": lambda picture: picture * 0.5,
        "noise (sd 0.1)": lambda picture: np.clip(picture + rng.normal(0, 0.1, picture.shape), 0, 1),
    }
    if options.corpus is not None:
        spoken = sorted((options.corpus / "spectrograms").glob("*.npy"))
        if not spoken:
            parser.error(f"--corpus {options.corpus}: holds no spectrograms/*.npy")

        def speech() -> np.ndarray:
            return np.load(spoken[rng.integers(len(spoken))]).astype(np.float32) / 255

        conditions["under speech"] = lambda picture: np.maximum(picture, speech())
        conditions["speech, half each"] = lambda picture: 0.5 * picture + 0.5 * speech()
        conditions["nothing but speech"] = lambda picture: speech()
    conditions["nothing"] = lambda picture: np.zeros_like(picture)
    print(f"{reader.name}: {len(texts)} pictures, told from 19 others (chance 5 %)")
    print(f"{'':20}  top-1 %   own score   others")
    for name, change in conditions.items():
        hits, own, others = [], [], []
        for number, chosen in enumerate(sets):
            pictures = [change(p).astype(np.float32) for p in clean[20 * number : 20 * number + 20]]
            table = reader.similarities(pictures, chosen).numpy()
            right = np.diag(table)
            hits += list((table >= right[:, None]).sum(1) == 1)
            own.append(right.mean())
            others.append((table.sum() - right.sum()) / (table.size - len(right)))
        print(f"{name:20}  {100 * np.mean(hits):6.1f}   {np.mean(own):9.1f}   {np.mean(others):6.1f}")
        if name == "clean":
            hard = {ground: np.mean([h for h, t in zip(hits, texts, strict=True)
                                     if by_text[t].ground == ground]) for ground in ("black", "silhouette")}
            print("".join(f"  {ground:18}  {100 * share:6.1f}\n" for ground, share in hard.items()), end="")


if __name__ == "__main__":
    main()
