"""How much what pocketsphinx hears depends on the phases that Griffin-Lim happens to begin with.

    python generate.py prompts=prompts/test_10x10.csv
    python benchmarks/phases.py logs/generate/<run> --seeds 0 1 2 3

The pictures of a run are played from several draws of the first phases, and read by both judges of speech.
Corpus word error rates with bootstrap intervals over prompts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from images_that_speak import config
from images_that_speak.audio.griffin_lim import GriffinLim
from images_that_speak.audio.picture import read_picture
from images_that_speak.files import read_json
from images_that_speak.prompts import read_pairs
from images_that_speak.scoring.judges import load_readers
from images_that_speak.scoring.statistics import ratio, resampling_weights, score_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--prompts", help="a csv: only its pairs are read")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    records = [(path.parent, read_json(path)) for path in sorted(options.run.glob("samples/*/sample.json"))]
    if options.prompts:
        wanted = {(pair.image_prompt, pair.audio_prompt) for pair in read_pairs(options.prompts)}
        records = [(folder, record) for folder, record in records
                   if (record["image_prompt"], record["audio_prompt"]) in wanted]
    texts = [record["audio_prompt"] for _, record in records]
    weights = resampling_weights([record["image_prompt"] for _, record in records], texts, 1000)
    readers = load_readers(config.compose("generate", ["reader=both"]).reader, "cpu", see=False)
    judges = [judge for judge in (readers.speech, readers.second) if judge is not None]
    print(f"{len(records)} samples of {options.run.name}")
    for seed in options.seeds:
        vocoder = GriffinLim(seed=seed)
        waves = [vocoder.decode_message(read_picture(folder / "image.png")[None])[0].numpy()
                 for folder, _ in tqdm(records, desc=f"seed {seed}", leave=False)]
        told = []
        for judge in judges:
            scores = [score_sample(text, heard.text, normaliser=judge.normaliser)
                      for text, heard in zip(texts, judge.read_many(waves), strict=True)]
            wrong = [s["insertions"] + s["deletions"] + s["substitutions"] for s in scores]
            told.append(f"{judge.name} {ratio(wrong, [s['words'] for s in scores], weights).percent()}")
        print(f"seed {seed}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
