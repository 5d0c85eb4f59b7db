"""Find the settings of a reader of speech on speech that is no test prompt.

    python benchmarks/tune_reader.py                      # pocketsphinx: the table of docs/measuring.md
    python benchmarks/tune_reader.py garbage=0,0.1 floor=40,50    # every combination of these
    python benchmarks/tune_reader.py --reader ctc doubt=0.02,0.1  # the other judge

Speaks six-word phrases of the word list (flite, two voices) and reads them as they are, through the mel
picture, in white noise, and with drawings beside and over the words; prints word error rate, insertions,
deletions and substitutions, and seconds a clip for each setting. Needs flite and the emoji font.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import jiwer
import numpy as np
import torch

from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture
from images_that_speak.audio.picture import quantise
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.data.pictures import PictureSampler
from images_that_speak.resources import words
from images_that_speak.scoring.ctc import CTCReader
from images_that_speak.scoring.heard import PocketsphinxReader
from images_that_speak.speech.tts import Flite

READERS = {"pocketsphinx": PocketsphinxReader, "ctc": CTCReader}
SEED = 20_261  # phrases and drawings of the tuning alone


def noisy(wave: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """`wave` in white noise; the ratio is that of the speech, not of the pauses around it."""
    loud = wave[np.abs(wave) > 0.01]
    level = np.sqrt(np.mean(loud**2)) * 10 ** (-decibels / 20)
    return (wave + level * rng.standard_normal(len(wave))).astype(np.float32)


def conditions(count: int) -> tuple[list[str], dict[str, list[np.ndarray]]]:
    """The phrases, and the clips of every condition in their order."""
    rng = np.random.default_rng(SEED)
    vocabulary, tts, log_mel = words(), Flite(), LogMel()
    griffin_lim = load_vocoder("griffin_lim")
    phrases, clips = [], {}
    for index in range(count):
        phrase = " ".join(rng.choice(vocabulary, 6, replace=False))
        spoken = tts.speak(phrase, ("slt", "rms")[index % 2]).wave
        start = int(rng.integers(0, MEL.samples - len(spoken)))
        wave = np.zeros(MEL.samples, np.float32)
        wave[start:start + len(spoken)] = spoken * (0.95 / np.abs(spoken).max())
        speech = logmel_to_picture(log_mel(torch.from_numpy(wave)[None]))[0].numpy()
        phrases.append(phrase)
        made = {"wave": wave} | {f"white noise {level} dB": noisy(wave, level, rng) for level in (20, 10)}
        first, last = start // MEL.hop, (start + len(spoken)) // MEL.hop
        pictures = {"mel picture": speech}
        for brightness in (0.45, 0.65):
            drawing = PictureSampler(SEED, (brightness, brightness), silhouettes=0).sample(index)[0] / 255
            beside = drawing.copy()
            beside[:, first:last] = 0
            pictures[f"drawing {brightness} beside"] = np.maximum(speech, beside)
            pictures[f"drawing {brightness} over"] = np.maximum(speech, drawing)
        decoded = griffin_lim.decode_picture(np.stack([quantise(p) for p in pictures.values()])).numpy()
        made |= dict(zip(pictures, decoded, strict=True))
        for name, clip in made.items():
            clips.setdefault(name, []).append(clip)
    return phrases, clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="name=value,…", help="settings of the reader")
    parser.add_argument("--reader", choices=READERS, default="pocketsphinx")
    parser.add_argument("--count", type=int, default=24, help="phrases")
    parser.add_argument("--cache", type=Path, help="npz that keeps the clips for the next call")
    options = parser.parse_args()
    if options.cache and options.cache.exists():
        stored = dict(np.load(options.cache))
        phrases = stored.pop("phrases").tolist()
        clips = {name: list(value) for name, value in stored.items()}
    else:
        phrases, clips = conditions(options.count)
        if options.cache:
            stacked = {name: np.stack(value) for name, value in clips.items()}
            np.savez(options.cache, phrases=phrases, **stacked)
    grid = {}
    for setting in options.settings:
        name, _, values = setting.partition("=")
        grid[name] = [json.loads(value) for value in values.split(",")]
    heading = " | ".join(["settings", *clips, "ins", "del", "sub", "s/clip", "slowest"])
    print(f"| {heading} |\n|{'---|' * (len(clips) + 6)}")
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        reader = READERS[options.reader](**chosen)
        rates, errors, seconds = [], np.zeros(3, int), []
        for waves in clips.values():
            heard = reader.read_many(waves)
            found = jiwer.process_words(phrases, [item.text for item in heard])
            rates.append(f"{found.wer:.2f}")
            errors += found.insertions, found.deletions, found.substitutions
            seconds += [item.seconds for item in heard]
        row = [" ".join(f"{k}={v}" for k, v in chosen.items()) or "defaults", *rates, *map(str, errors),
               f"{np.mean(seconds):.2f}", f"{max(seconds):.2f}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
