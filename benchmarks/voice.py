"""How near a LoRA comes to the voice it was trained for, and whether its words are still heard.

    python -m images_that_speak.data data.root=data/pocket_awb data.voices=[awb] data.prompts=400
    python -m images_that_speak.data data.root=data/pocket_awb_test data.voices=[awb] data.prompts=20 \
        data.seed=99 data.words_per_prompt=[6,6] data.extra_words=0
    python benchmarks/voice.py data/pocket_awb_test logs/train/<run>/weights …

The clips of the first folder are said again by the speech branch alone, each phone at the time it has in
the clip: without a LoRA in each of the family's voices, then with each LoRA named. Distance: mean absolute
difference from the clip's picture in dB over the frames in which phones sound, each frame's mean taken out,
so that what is left is the shape of the spectrum. The clips themselves, through the autoencoder, are what a
perfect LoRA would reach. Intervals are bootstraps over clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from images_that_speak import config
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.data.manifest import Corpus
from images_that_speak.diffusion.family import Family, activity
from images_that_speak.diffusion.planning import Job, batches, generate_batch, read_settings
from images_that_speak.errors import UserError
from images_that_speak.prompts import Pair
from images_that_speak.scoring.judges import load_readers
from images_that_speak.scoring.statistics import ratio, resampling_weights, score_sample

DECIBELS = 146.0  # of one unit of the picture


def distance(made: torch.Tensor, real: torch.Tensor, sounding: torch.Tensor) -> float:
    """Mean |difference| in dB of (256, F) pictures over the frames (F,) bool, each frame's mean taken out."""
    gap = (made - real)[:, sounding]
    return float((gap - gap.mean(0, keepdim=True)).abs().mean()) * DECIBELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("lora", type=Path, nargs="*", help="weights/ folders of LoRA trainings")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--mix", type=int, nargs="*", default=[], metavar="K",
                        help="where speech is lost: the first K latent channels from the clips and the rest "
                        "from the base's first voice, and the other way round")
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus)
    texts = [str(text) for text in corpus.table["text"]]
    plans = [tuple(corpus.phones(i)) for i in range(len(corpus))]
    real = torch.stack([torch.from_numpy(np.asarray(corpus.picture(i), np.float32)) / 255
                        for i in range(len(corpus))])
    sounding = activity(plans) > 0.5
    readers = load_readers(config.compose("generate", ["reader=both"]).reader, "cpu", see=False)
    judges = [judge for judge in (readers.speech, readers.second) if judge is not None]
    for judge in judges:
        judge.extend(texts)
    vocoder = load_vocoder("griffin_lim")
    weights = resampling_weights([str(i) for i in range(len(texts))], [str(i) for i in range(len(texts))],
                                 1000)

    def row(name: str, pictures: torch.Tensor) -> None:
        pictures = (pictures * 255).round() / 255
        waves = list(vocoder.decode_picture(pictures.numpy()).numpy())
        errors = []
        for judge in judges:
            scores = [score_sample(text, item.text, normaliser=judge.normaliser)
                      for text, item in zip(texts, judge.read_many(waves), strict=True)]
            errors.append(ratio([s["insertions"] + s["deletions"] + s["substitutions"] for s in scores],
                                [s["words"] for s in scores], weights).percent())
        far = [distance(*three) for three in zip(pictures, real, sounding, strict=True)]
        print(f"| {name} | {' | '.join(errors)} | {ratio(far, [1.0] * len(far), weights)} |", flush=True)

    print(f"{len(texts)} clips of {options.corpus}, {options.steps} steps, {MEL.n_mels} bands\n")
    print("| said by |", "".join(f" WER ({judge.name}) |" for judge in judges), "distance, dB |")
    print("|---|" + "---|" * (len(judges) + 1))
    row("the voice itself, its picture", real)
    base = config.compose("generate", ["composition=speech_only", f"steps={options.steps}"])
    layout = config.instantiate(base.family)
    family = Family.load(layout, ("vae",), device="cpu")
    row("and through the autoencoder", family.decode(family.encode(real)))
    loras = [(path, None) for path in options.lora]
    for lora, voice in [*((None, voice) for voice in layout.voices), *loras]:
        cfg = config.compose("generate", ["composition=speech_only", f"steps={options.steps}",
                                          f"voice={voice or 'null'}",
                                          *([f"family.lora={lora}"] if lora else [])])
        layout = config.instantiate(cfg.family)
        settings = read_settings(cfg, layout)
        family = Family.load(layout, ("speech", "vae"), device="cpu")
        jobs = [Job(Pair("", text), 0, plan) for text, plan in zip(texts, plans, strict=True)]
        made = [generate_batch(family, settings, batch)
                for batch in tqdm(list(batches(jobs, 4)), desc=str(lora or voice), leave=False)]
        row(f"`{lora.parent.name}`" if lora else f"the base, voice {voice}", torch.cat(made))
        if lora is None and voice == layout.voices[0]:
            said, spoken = family.encode(torch.cat(made)), family.encode(real)
            for k in options.mix:
                for name, first, rest in (("the clip's", spoken, said), ("the base's", said, spoken)):
                    latent = torch.cat([first[:, :k], rest[:, k:]], 1)
                    row(f"{name} first {k} channels, the other's rest", family.decode(latent))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
