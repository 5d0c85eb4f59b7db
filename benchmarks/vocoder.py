"""How fast vocoders play a 10.24 s picture, and how true to it.

    python benchmarks/vocoder.py
    python benchmarks/vocoder.py --corpus data/pocket_speech --clips 12 --vocoder logs/train/…/weights/vocoder

Speed is CPU seconds of the process on one thread, which other load disturbs least, the best of `--repeats`,
as a ratio to Griffin-Lim in the same run. The sizes without trained weights here are timed only. With a
corpus, its test clips are played from their 8-bit pictures: mean |mel(played) − mel| in nats, the
multi-resolution STFT distance to the wave the picture was made from, and the corpus word error rate of the
pocketsphinx reader, whose vocabulary is the word list and every word of these clips.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from images_that_speak.audio.distance import mel_error, multi_resolution_stft_distance
from images_that_speak.audio.griffin_lim import GriffinLim
from images_that_speak.audio.hifigan import VARIANTS, HiFiGAN
from images_that_speak.audio.mel import MEL, LogMel, picture_to_logmel
from images_that_speak.audio.vocoder import Vocoder, load_vocoder
from images_that_speak.audio.vocos import Vocos
from images_that_speak.data.manifest import Corpus
from images_that_speak.scoring.heard import PocketsphinxReader
from images_that_speak.scoring.statistics import word_errors


def seconds(vocoder: Vocoder, picture: torch.Tensor, repeats: int) -> float:
    """Fewest CPU seconds that playing one picture took."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        vocoder.decode_picture(picture)
        taken.append(time.process_time() - began)
    return min(taken)


def word_error_rate(texts: list[str], waves: list[np.ndarray], reader: PocketsphinxReader) -> float:
    heard = reader.read_many(waves)
    errors = [word_errors(text, sound.text) for text, sound in zip(texts, heard, strict=True)]
    known = [e for e in errors if e is not None]
    return sum(e.rate * e.total for e in known) / sum(e.total for e in known)


def truth(corpus: Corpus, vocoders: dict[str, Vocoder]) -> None:
    """Print how true each vocoder plays the corpus' pictures, and what is heard of the waves themselves."""
    analysis, reader = LogMel(), PocketsphinxReader()
    texts = corpus.table["text"].tolist()
    reader.extend(texts)
    waves = [corpus.wave(i) for i in range(len(corpus))]
    print(f"\n{len(texts)} clips\n{'':24s}{'mel, nats':>10s}{'STFT conv.':>11s}{'STFT log':>10s}{'WER':>8s}")
    print(f"{'the waves themselves':55s}{word_error_rate(texts, waves, reader):8.3f}")
    for name, vocoder in vocoders.items():
        figures, played = [], []
        for i, wave in enumerate(waves):
            picture = torch.from_numpy(np.array(corpus.picture(i)))[None]
            sound = vocoder.decode_picture(picture)
            error = mel_error(sound, picture_to_logmel(picture.float() / 255), analysis)
            figures.append([float(error), *map(float, multi_resolution_stft_distance(sound, torch.from_numpy(wave)[None]))])
            played.append(sound[0].numpy())
        mel, convergence, logarithm = np.mean(figures, axis=0)
        rate = word_error_rate(texts, played, reader)
        print(f"{name:24s}{mel:10.3f}{convergence:11.3f}{logarithm:10.3f}{rate:8.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocoder", type=Path, nargs="*", default=[], help="folders of trained vocoders")
    parser.add_argument("--corpus", type=Path, default=None, help="a corpus, for how true they play")
    parser.add_argument("--clips", type=int, default=12, help="test clips of it")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained: dict[str, Vocoder] = {"griffin_lim": GriffinLim(),
                                   "griffin_lim, 16 rounds": GriffinLim(iterations=16),
                                   **{path.name: load_vocoder(path) for path in options.vocoder}}
    untrained: dict[str, Callable[[], Vocoder]] = {
        **{f"hifigan {name}": partial(HiFiGAN.variant, name, weight_norm=False) for name in VARIANTS},
        "vocos": Vocos}
    picture = torch.randint(0, 200, (1, MEL.n_mels, MEL.frames), dtype=torch.uint8)
    base = seconds(trained["griffin_lim"], picture, options.repeats)
    print(f"Griffin-Lim plays {MEL.seconds:.2f} s in {base:.2f} CPU seconds\n"
          f"{'':24s}{'parameters':>12s}{'speed ÷ Griffin-Lim':>21s}{'× real time':>13s}")
    for name in [*trained, *untrained]:
        vocoder = trained[name] if name in trained else untrained[name]().eval()
        taken = base if name == "griffin_lim" else seconds(vocoder, picture, options.repeats)
        size = sum(p.numel() for p in vocoder.parameters())
        print(f"{name:24s}{size:12,d}{base / taken:21.2f}{MEL.seconds / taken:13.1f}", flush=True)
    if options.corpus:
        corpus = Corpus.open(options.corpus, "test")
        corpus.table = corpus.table.head(options.clips)
        truth(corpus, trained)


if __name__ == "__main__":
    main()
