"""Sounds that are no speech in photographs: what each still sounds like when the picture is played.

    python -m images_that_speak.data.sound_corpus data/sounds
    python benchmarks/sounds_in_pictures.py data/sounds --out logs/benchmarks/sounds

`generate.py image=… speech=SOUND` for every recording of the packs that are held out, in each style; what a
picture plays is given to the nearest of the other packs' recordings (cosine of standardised features: MFCC,
and Whisper base's encoder), which is right when it is of the same label; and to the nearest of the held-out
recordings, which is right when it is the one in the picture. Beside it the recording itself, and its log-mel
picture alone, played. Neither the styles nor the features were chosen by it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from images_that_speak import config
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.sound_features import SoundFeatures, sound_checked
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.audio.wave import read_wave, write_wave
from images_that_speak.data.sound_pictures import read_sound, read_sound_pairs
from images_that_speak.files import write_json
from images_that_speak.generate import generate
from images_that_speak.resources import ROOT
from images_that_speak.runs import latest
from images_that_speak.scoring.sound_embedding import WhisperEmbedding
from images_that_speak.speaking.jobs import plan_jobs
from images_that_speak.speaking.voices import speech_of_wave

STYLES = ("balanced", "clearer_picture", "clearer_speech")


def classified(listen: SoundFeatures, waves: list[np.ndarray], known: np.ndarray, labels: list[str],
               asked: list[str]) -> list[bool]:
    """Whether the nearest known recording of each sound is of its label."""
    mean, std = known.mean(0), known.std(0) + 1e-6
    heard = (np.stack([listen(sound_checked(wave, "played")) for wave in waves]) - mean) / std
    scaled = (known - mean) / std
    heard, scaled = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (heard, scaled))
    return [labels[i] == label for i, label in zip((heard @ scaled.T).argmax(1), asked, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "logs/benchmarks/sounds")
    parser.add_argument("--held-out", nargs="+", default=["gcompris", "ovos"])
    parser.add_argument("--image", default=str(ROOT / "docs/media/photographs/coffee.jpg"))
    options = parser.parse_args()
    pairs, listen = read_sound_pairs(options.root), WhisperEmbedding()
    apart = [pair for pair in pairs if pair.source in options.held_out]
    known = [pair for pair in pairs if pair.source not in options.held_out
             and pair.label in {other.label for other in apart}]
    vectors = np.stack([listen(read_sound(pair.sound)) for pair in known])
    labels, asked = [pair.label for pair in known], [pair.label for pair in apart]
    folder = options.out / "sounds"
    waves = []
    for i, pair in enumerate(apart):  # cut to what a picture may say
        waves.append(read_sound(pair.sound)[: MEL.samples - 20 * MEL.hop])
        write_wave(folder / f"{i:03d}.wav", waves[-1])
    vocoder = load_vocoder("griffin_lim")
    alone = [vocoder.decode_message(speech_of_wave(wave).picture[None])[0].numpy() for wave in waves]
    names = [str(pair.sound) for pair in apart]
    own = np.stack([listen(sound_checked(wave, "recording")) for wave in waves])

    def both(played: list[np.ndarray]) -> dict[str, list[bool]]:
        return {"label": classified(listen, played, vectors, labels, asked),
                "recording": classified(listen, played, own, names, names)}

    found = {"recordings": both(waves), "log-mel pictures": both(alone)}
    for style in STYLES:
        cfg = config.compose("generate", [f"image={options.image}", f"speech={folder}", f"style={style}",
                                          "reader=none", "device=cpu", f"paths.logs={options.out / 'runs'}"])
        generate(cfg)
        run = latest(cfg, "generate")
        played = [read_wave(run / "samples" / job.sample_id / "speech.wav") for job in plan_jobs(cfg)]
        found[style] = both(played)
    for name, right in found.items():
        print(f"{name}: label {sum(right['label'])}, recording {sum(right['recording'])} of {len(asked)}")
    write_json(options.out / "classified.json", {"asked": asked, **found})


if __name__ == "__main__":
    main()
