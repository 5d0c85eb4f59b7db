"""How fast vocoders play a 10.24 s picture, and how true to it, beside torchaudio's Griffin-Lim of 32 rounds.

    python benchmarks/vocoder.py
    python benchmarks/vocoder.py --corpus data/pocket_speech --clips 12 --vocoder logs/train/…/weights/vocoder

Speed is CPU seconds of the process on one thread, which other load disturbs least, the best of `--repeats`,
as a ratio to that in the same run. The sizes without trained weights here are timed only. With a
corpus, its test clips are played from their 8-bit pictures: mean |mel(played) − mel| in nats; mel-cepstral
distortion, multi-resolution STFT distance, PESQ and STOI (where their packages are installed) against the
wave the picture was made from; and the corpus word error rate of the pocketsphinx reader, whose vocabulary is
the word list and every word of these clips.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchaudio

from images_that_speak.audio.distance import (
    available,
    mel_cepstral_distortion,
    mel_error,
    multi_resolution_stft_distance,
    pesq,
    stoi,
)
from images_that_speak.audio.griffin_lim import FastGriffinLim, GriffinLim
from images_that_speak.audio.hifigan import VARIANTS, HiFiGAN
from images_that_speak.audio.mel import MEL, LogMel, picture_to_logmel
from images_that_speak.audio.vocoder import Vocoder, load_vocoder
from images_that_speak.audio.vocos import Vocos
from images_that_speak.data.manifest import Corpus
from images_that_speak.scoring.heard import PocketsphinxReader
from images_that_speak.scoring.statistics import corpus_wer

COLUMNS = ("mel, nats", "MCD, dB", "STFT conv.", "STFT log", "PESQ", "STOI")


class Torchaudio(GriffinLim):
    """The baseline: 32 rounds of torchaudio's fast Griffin-Lim, from random phases."""

    def __init__(self, iterations: int = 32):
        super().__init__(iterations)
        self.rounds = torchaudio.transforms.GriffinLim(MEL.n_fft, iterations, MEL.win, MEL.hop, power=1,
                                                       momentum=0.99)

    def forward(self, logmel: torch.Tensor) -> torch.Tensor:
        magnitude = self.magnitude(logmel)
        # A frame of torchaudio's is centred half a hop earlier.
        magnitude = torch.cat([magnitude[..., :1], magnitude, magnitude[..., -1:]], dim=-1)
        torch.manual_seed(0)
        return self.rounds(magnitude)[:, MEL.hop // 2:][:, :logmel.shape[2] * MEL.hop]


def seconds(vocoder: Vocoder, picture: torch.Tensor, repeats: int) -> float:
    """Fewest CPU seconds that playing one picture took."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        vocoder.decode_picture(picture)
        taken.append(time.process_time() - began)
    return min(taken)


def distances(sound: torch.Tensor, wave: torch.Tensor, picture: torch.Tensor,
              analysis: LogMel) -> list[float]:
    """The figures of one clip, in the order of `COLUMNS`: waves (1, T), picture (1, 256, F) uint8."""
    return [float(mel_error(sound, picture_to_logmel(picture.float() / 255), analysis)),
            float(mel_cepstral_distortion(sound, wave, analysis=analysis)),
            *map(float, multi_resolution_stft_distance(sound, wave)),
            float(pesq(sound, wave)) if available("pesq") else float("nan"),
            float(stoi(sound, wave)) if available("pystoi") else float("nan")]


def truth(corpus: Corpus, vocoders: dict[str, Vocoder]) -> None:
    """Print how true each vocoder plays the corpus' pictures, and what is heard of the waves themselves."""
    analysis, reader = LogMel(), PocketsphinxReader()
    texts = corpus.table["text"].tolist()
    reader.extend(texts)
    waves = [corpus.wave(i) for i in range(len(corpus))]

    def rate(sounds: list[np.ndarray]) -> float:
        return corpus_wer(texts, [heard.text for heard in reader.read_many(sounds)])

    print(f"\n{len(texts)} clips, {sum(len(text.split()) for text in texts)} words\n{'':24s}"
          + "".join(f"{name:>11s}" for name in (*COLUMNS, "WER")))
    print(f"{'the waves themselves':24s}" + " " * 11 * len(COLUMNS) + f"{rate(waves):11.3f}")
    for name, vocoder in vocoders.items():
        figures, played = [], []
        for i, wave in enumerate(waves):
            picture = torch.from_numpy(np.array(corpus.picture(i)))[None]
            sound = vocoder.decode_picture(picture)
            figures.append(distances(sound, torch.from_numpy(wave)[None], picture, analysis))
            played.append(sound[0].numpy())
        row = [*np.nanmean(figures, axis=0), rate(played)]
        print(f"{name:24s}" + "".join(f"{value:11.3f}" for value in row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocoder", type=Path, nargs="*", default=[], help="folders of trained vocoders")
    parser.add_argument("--corpus", type=Path, default=None, help="a corpus, for how true they play")
    parser.add_argument("--clips", type=int, default=12, help="test clips of it")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained: dict[str, Vocoder] = {"torchaudio, 32 rounds": Torchaudio(), "griffin_lim": GriffinLim(),
                                   "griffin_lim_fast": FastGriffinLim()}
    for number, path in enumerate(options.vocoder, 1):
        vocoder = load_vocoder(path)
        trained[f"{number} {vocoder.architecture}, trained"] = vocoder
        print(f"{number} is {path}")
    untrained: dict[str, Callable[[], Vocoder]] = {
        **{f"hifigan {name}": partial(HiFiGAN.variant, name, weight_norm=False) for name in VARIANTS},
        "vocos": Vocos}
    picture = torch.randint(0, 200, (1, MEL.n_mels, MEL.frames), dtype=torch.uint8)
    base = seconds(trained["torchaudio, 32 rounds"], picture, options.repeats)
    print(f"torchaudio's Griffin-Lim plays {MEL.seconds:.2f} s in {base:.2f} CPU seconds\n"
          f"{'':24s}{'parameters':>12s}{'speed ÷ torchaudio':>21s}{'× real time':>13s}")
    for name in [*trained, *untrained]:
        vocoder = trained[name] if name in trained else untrained[name]().eval()
        taken = base if name == "torchaudio, 32 rounds" else seconds(vocoder, picture, options.repeats)
        size = sum(p.numel() for p in vocoder.parameters())
        print(f"{name:24s}{size:12,d}{base / taken:21.2f}{MEL.seconds / taken:13.1f}", flush=True)
    if options.corpus:
        corpus = Corpus.open(options.corpus, "test")
        corpus.table = corpus.table.head(options.clips)
        truth(corpus, trained)


if __name__ == "__main__":
    main()
