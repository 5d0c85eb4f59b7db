"""Whether what is said is what is drawn, and what listening costs.

    python benchmarks/speech_to_image.py quality --utterances data/spoken_nouns --split test
    python benchmarks/speech_to_image.py quality --people /usr/share/tuxpaint/stamps
    python benchmarks/speech_to_image.py cost

One utterance of each noun is drawn by each way; the pocket CLIP names each drawing among all 128 nouns, and
among 20 of them (the right one and 19 by lot; with --people, among all nouns that people said). Intervals:
bootstrap over nouns. The first row draws the noun's caption, which is what the image branch can do at best.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from images_that_speak import config
from images_that_speak.data.emoji import concepts
from images_that_speak.data.nearest import canonical
from images_that_speak.data.utter import read_utterances
from images_that_speak.diffusion.composition import ImageOnly
from images_that_speak.diffusion.estimate import parameters
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.method import Job, denoise
from images_that_speak.diffusion.planning import read_settings
from images_that_speak.prompts import Pair
from images_that_speak.scoring.seen import load_picture_reader
from images_that_speak.speaking.voices import read_recording

WAYS = {"text": "joint", "bottleneck": "speech_to_image", "mapping": "speech_mapping",
        "cascade": "speech_cascade"}
NAMES = [thing.name for thing in concepts()]
BATCH = 16


def utterances(root: Path, split: str, seed: int) -> list[tuple[Path, str]]:
    """One utterance of each noun."""
    found: dict[str, list[Path]] = {}
    for one in read_utterances(root, split):
        found.setdefault(one.noun, []).append(root / one.file)
    rng = np.random.default_rng(seed)
    return [(files[rng.integers(len(files))], noun) for noun, files in found.items()]


def people(root: Path) -> list[tuple[Path, str]]:
    """What people say in a folder of Tux Paint's stamps, where it is a noun of the painter's."""
    by_caption = {thing.singular: thing.name for thing in concepts()}
    found = []
    for path in sorted(root.rglob("*_desc.ogg")):
        beside = path.with_name(path.name.replace("_desc.ogg", ".txt"))
        told = beside.read_text(encoding="utf-8").splitlines()[0] if beside.is_file() else ""
        if told and (noun := by_caption.get(canonical(told) or "")) is not None:
            found.append((path, noun))
    return found


def chosen(way: str, options: argparse.Namespace) -> list[str]:
    """Overrides of generate.py that choose a way."""
    folder = {"bottleneck": options.bottleneck, "mapping": options.mapping}.get(way)
    return [f"method={WAYS[way]}", "device=cpu", *([f"method.bottleneck={folder}"] if folder else []),
            *([f"method.asr={options.asr}"] if way == "cascade" else []),
            *(["composition=image_only"] if way == "text" else [])]


def drawn(way: str, said: Sequence[tuple[Path, str]], options: argparse.Namespace) -> np.ndarray:
    """(N, 256, 1024) drawings of the utterances; the same seed and place for every way."""
    cfg = config.compose("generate", chosen(way, options))
    layout = config.instantiate(cfg.family)
    settings = read_settings(cfg, layout)
    scenes = config.instantiate(cfg.scene)
    jobs = [Job(Pair(f"{concepts()[NAMES.index(noun)].singular}", ""), number,
                scene=tuple(map(tuple, scenes.plan("a thing", number).tolist())), recording=path)
            for number, (path, noun) in enumerate(said)]
    family = Family.load(layout, ("image", "vae"))
    pictures = [(denoise(family, settings, ImageOnly(), batch) if way == "text"
                 else settings.method(family, settings, batch)).numpy()
                for batch in (jobs[start: start + BATCH] for start in range(0, len(jobs), BATCH))]
    if options.keep is not None:
        from PIL import Image

        options.keep.mkdir(parents=True, exist_ok=True)
        for picture, (_, noun) in zip(np.concatenate(pictures), said, strict=True):
            Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(
                options.keep / f"{way}-{noun}.png")
    return np.concatenate(pictures)


def interval(hits: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    means = hits[rng.integers(0, len(hits), (2000, len(hits)))].mean(1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return f"{100 * hits.mean():5.1f} ({low:.0f}–{high:.0f})"


def quality(options: argparse.Namespace) -> None:
    said = (people(options.people) if options.people
            else utterances(options.utterances, options.split, options.seed))
    reader = load_picture_reader("pocket", None)
    captions = [thing.singular for thing in concepts()]
    own = np.array([NAMES.index(noun) for _, noun in said])
    rng = np.random.default_rng(options.seed)
    sets = np.stack([np.unique(own) if options.people else np.concatenate(
        [[noun], rng.choice(np.delete(np.arange(len(NAMES)), noun), 19, replace=False)]) for noun in own])
    print(f"{len(said)} utterances, {len(set(own))} nouns; {reader.name}; chance "
          f"{100 / sets.shape[1]:.1f} and {100 / len(NAMES):.1f} %")
    print(f"| drawn from | right among {sets.shape[1]}, % | among {len(NAMES)}, % |\n|---|---|---|")
    for way in options.ways:
        pictures = drawn(way, said, options)
        table = np.concatenate([reader.similarities(list(pictures[start: start + BATCH]), captions).numpy()
                                for start in range(0, len(pictures), BATCH)])
        few = np.take_along_axis(table, sets, 1).argmax(1)
        right = np.array([row[best] == noun for row, best, noun in zip(sets, few, own, strict=True)])
        print(f"| {way} | {interval(right)} | {interval(table.argmax(1) == own)} |", flush=True)


def cost(options: argparse.Namespace) -> None:
    """CPU time, operations and parameters of all that comes before the image UNet."""
    from images_that_speak.listening.speech_to_image import SpeechToImage, written

    cfg = config.compose("generate", chosen("bottleneck", options))
    layout = config.instantiate(cfg.family)
    family = Family.load(layout, ("image",))
    path, _ = (people(options.people) if options.people else utterances(options.utterances, "test", 0))[0]
    wave = read_recording(path)
    scene = tuple(map(tuple, config.instantiate(cfg.scene).plan("a thing", 0).tolist()))
    jobs = [Job(Pair("", ""), 0, scene=scene, recording=path)]
    print(f"{len(wave) / 16_000:.1f} s of speech, {torch.get_num_threads()} thread(s)")
    print("| way | CPU ms | GFLOP | parameters, M |\n|---|---|---|---|")
    for name in ("bottleneck", "mapping", "cascade"):
        method: SpeechToImage = config.instantiate(config.compose("generate", chosen(name, options)).method)
        if name == "cascade":
            heard = written(method.asr)
            operations, own = whisper_cost(80, len(heard.read(wave).text.split()) + 4, True)
            own += parameters(family.conditioners["image"].text)
        else:
            conditioner, encoder = method.listener(family)
            features = encoder.features(wave)[None]
            operations, own = whisper_cost(80, 0, False, features.shape[1] + 50)
            network, frames = conditioner.text.bottleneck, features.shape[1]
            c = network.config
            block = c.depth * (12 * c.width + 2 * frames) + c.features + c.width  # of a feature, in widths
            operations += 2 * frames * c.width * (block + c.tokens / c.ratio)
            own += parameters(network)
        method.condition(family, jobs)
        times = []
        for _ in range(10):
            began = time.process_time()
            method.condition(family, jobs)
            times.append(time.process_time() - began)
        print(f"| {name} | {1000 * np.median(times):.0f} | {operations / 1e9:.2f} | {own / 1e6:.1f} |")


def whisper_cost(mels: int, words: int, decodes: bool, features: int = 1500, width: int = 384, layers: int = 4
                 ) -> tuple[float, int]:
    """Operations and parameters of Whisper tiny, by its published shape: of the encoder, and of the decoder
    where it writes `words` tokens one by one (each token attends to all features)."""
    block = 12 * width * width
    weights = layers * block + 3 * width * (mels + width)
    flops = 2 * features * (layers * block + 6 * width * width) + layers * 4 * features * features * width
    if decodes:
        table = 51864 * width
        weights += layers * 16 * width * width + table
        flops += layers * 4 * features * width * width + words * 2 * (layers * 14 * width * width + table
                                                                      + layers * 2 * features * width)
    return float(flops), weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "cost"))
    parser.add_argument("--utterances", type=Path, default=Path("data/spoken_nouns"))
    parser.add_argument("--split", default="test", help="train, sentences, voices or test")
    parser.add_argument("--people", type=Path, default=None, help="folder of Tux Paint's stamps instead")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--bottleneck", help="folder of the bottleneck, in place of the one that ships")
    parser.add_argument("--mapping", help="folder of the mapping")
    parser.add_argument("--asr", default="tiny", help="Whisper of the cascade: tiny or packages")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the drawings")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with torch.inference_mode():
        {"quality": quality, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
