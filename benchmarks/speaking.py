"""Speaking photographs: words misheard by Whisper base against what EfficientNet-Lite2 sees.

    python benchmarks/speaking.py cutouts       # 20 cut-outs of Tux Paint, a sentence each
    python benchmarks/speaking.py photographs   # GCompris's animals, full frame, unpacked by itself
    python benchmarks/speaking.py folder --photographs DIR
    python benchmarks/speaking.py figure        # all that was measured, as docs/frontier.png

Every method is `generate.py` with its overrides; the judges chose and steered nothing (the styles were
chosen with Whisper tiny.en and Lite0, on words/speaking_nouns_validation.csv and the sentences of
prompts/validation). Finished rows are kept under logs/benchmarks and not measured again. Cut-outs: told from
the nouns of the other 19, in colour and gray. Full frames: whether the unmixed photograph's first class is
among the first five. Intervals are bootstraps over pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from images_that_speak import config
from images_that_speak.audio.wave import read_wave
from images_that_speak.files import atomic_path, read_text, write_json
from images_that_speak.generate import generate
from images_that_speak.resources import ROOT
from images_that_speak.runs import latest
from images_that_speak.scoring.efficientnet import EfficientNetReader, agree, told_apart
from images_that_speak.scoring.faster_whisper import FasterWhisperReader
from images_that_speak.scoring.statistics import Interval, ratio, resampling_weights, word_errors
from images_that_speak.speaking.jobs import plan_jobs

STAMPS = Path("/usr/share/tuxpaint/stamps")
RCC = Path("/usr/share/gcompris-qt/rcc")
# The three styles, what one change to the balanced one does, and the bands that it was before.
BANDS = ["composition.dots=0", "composition.brightness=0.45", "composition.shading=0.35",
         "composition.detail=0.9", "composition.voice_db=1.5"]
METHODS: dict[str, list[str]] = {
    "clearer_speech": ["style=clearer_speech"],
    "balanced": [],
    "clearer_picture": ["style=clearer_picture"],
    "four cells a dot": ["composition.dots=4"],
    "bands": BANDS,
    "bands, brisk": [*BANDS, "rate=1.25"],
    "bands, not levelled": [*BANDS, "composition.rounds=0"],
    "bands, voiced": [*BANDS, "composition.soften_rows=0", "composition.soften_columns=0",
                      "composition.valleys=1"],
    "flite": ["voice=flite"],
}


def unpack_animals(rcc: Path, out: Path) -> list[Path]:
    """The photographs of GCompris's farm and world animals, which lie in its resource files as webp."""
    found = []
    for name in ("explore_farm_animals", "explore_world_animals"):
        data, at = (rcc / f"{name}.rcc").read_bytes(), 0
        while (at := data.find(b"RIFF", at)) >= 0:
            size = struct.unpack("<I", data[at + 4:at + 8])[0] + 8
            if data[at + 8:at + 12] != b"WEBP":
                at += 4
                continue
            image = Image.open(io.BytesIO(data[at:at + size]))
            if min(image.size) >= 200 and image.mode == "RGB":
                path = out / f"{name}_{len(found):02d}.webp"
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data[at:at + size])
                found.append(path)
            at += size
    return found


def squared(path: Path, out: Path) -> Path:
    """A cut-out in the middle of a transparent square, which is what the judge looks at."""
    image = Image.open(path).convert("RGBA")
    square = Image.new("RGBA", (max(image.size),) * 2)
    square.alpha_composite(image, tuple((max(image.size) - side) // 2 for side in image.size))
    with atomic_path(out / path.name) as temporary:
        square.save(temporary)
    return out / path.name


def pairs_of(options: argparse.Namespace, work: Path) -> list[tuple[Path, str, str]]:
    """(photograph, noun or "", sentence) of a set, one sentence a photograph."""
    lines = read_text(options.sentences).splitlines()
    sentences = [line for line in lines if line and not line.startswith("#")]
    if options.set == "cutouts":
        rows = list(csv.DictReader(io.StringIO(read_text(options.nouns))))
        things = [(squared(options.stamps / row["image"], work / "squares"), row["noun"]) for row in rows]
    elif options.set == "photographs":
        things = [(path, "") for path in unpack_animals(options.rcc, work / "animals")]
    else:
        things = [(path, "") for path in sorted(options.photographs.iterdir())]
    return [(*thing, sentences[i % len(sentences)]) for i, thing in enumerate(things[:options.most])]


def make(name: str, overrides: list[str], pairs: list[tuple[Path, str, str]], work: Path) -> list[Path]:
    """The sample folders of a method, in the order of the pairs."""
    table = work / "pairs.csv"
    with atomic_path(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("image", "image_prompt", "audio_prompt"), *pairs])
    voice = [] if any(text.startswith("voice=") for text in overrides) else ["voice=hibari"]
    cfg = config.compose("generate", [f"prompts={table}", "reader=none", "device=cpu", *voice, *overrides,
                                      f"paths.logs={work / 'runs'}"])
    generate(cfg)
    run = latest(cfg, "generate")
    return [run / "samples" / job.sample_id for job in plan_jobs(cfg)]


def measure(folders: list[Path], pairs: list[tuple[Path, str, str]], ear: FasterWhisperReader,
            eye: EfficientNetReader) -> list[dict]:
    """A row for each sample: errors, words, and what is seen in colour and gray."""
    mixed = [np.asarray(Image.open(folder / "image.png").convert("RGB")) for folder in folders]
    plain = [np.asarray(Image.open(folder / "photograph.jpg").convert("RGB")) for folder in folders]
    gray = [np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")) for pixels in mixed]
    looks = {"colour": eye.probabilities(mixed), "gray": eye.probabilities(gray)}
    unmixed = eye.probabilities(plain)
    heard = ear.read_many([read_wave(folder / "speech.wav") for folder in folders])
    rows = []
    nouns = [noun for _, noun, _ in pairs]
    told = {key: told_apart(look, nouns).ranks for key, look in
            {**looks, "unmixed": unmixed}.items()} if all(nouns) else {}
    for i, (_, noun, sentence) in enumerate(pairs):
        errors = word_errors(sentence, heard[i].text, ear.normaliser)
        row = {"noun": noun, "sentence": sentence, "heard": heard[i].text,
               "errors": errors.rate * errors.total, "words": errors.total}
        for key, look in looks.items():
            found = agree(look[i], unmixed[i])
            row |= {f"{key}_top1": bool(found.top1), f"{key}_top5": bool(found.top5)}
        row |= {f"{key}_noun": bool(ranks[i] == 1) for key, ranks in told.items()}
        rows.append(row)
    return rows


def share(rows: list[dict], top: str, below: str | None = None) -> Interval:
    """A sum over a sum (or the mean) in per cent, with its bootstrap interval over pictures."""
    weights = resampling_weights(list(range(len(rows))), [""] * len(rows), 1000, 0)
    return ratio([100 * float(row[top]) for row in rows],
                 [float(row[below]) if below else 1.0 for row in rows], weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("cutouts", "photographs", "folder", "figure"))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--stamps", type=Path, default=STAMPS)
    parser.add_argument("--rcc", type=Path, default=RCC)
    parser.add_argument("--nouns", type=Path, default=ROOT / "words/speaking_nouns.csv")
    parser.add_argument("--sentences", type=Path, default=ROOT / "prompts/speaking_sentences.txt")
    parser.add_argument("--judge", default="packages", help="packages (Whisper base); tiny chooses")
    parser.add_argument("--eye", default="lite2", help="lite2, or lite0 to choose with")
    parser.add_argument("--most", type=int, default=1000, help="pictures at most")
    parser.add_argument("--logs", type=Path, default=ROOT / "logs/benchmarks/speaking")
    options = parser.parse_args()
    if options.set == "figure":
        return figure(options.logs, ROOT / "docs/frontier.png")
    work = options.logs / options.set
    work.mkdir(parents=True, exist_ok=True)
    pairs = pairs_of(options, work)
    ear, eye = FasterWhisperReader(options.judge, cpu_threads=1), EfficientNetReader(options.eye)
    for name in options.methods:
        kept = work / f"{name}-{options.judge}.json"
        if not kept.exists():
            write_json(kept, measure(make(name, METHODS[name], pairs, work), pairs, ear, eye))
        rows = json.loads(read_text(kept))
        found = [("WER", share(rows, "errors", "words"))]
        found += [(key.replace("_", " "), share(rows, key)) for key in rows[0]
                  if key.endswith(("_noun", "_top5", "_top1"))]
        print(f"| {name} | " + " | ".join(f"{key} {value.value:.1f} [{value.low:.1f}, {value.high:.1f}]"
                                          for key, value in found) + " |", flush=True)


def figure(logs: Path, out: Path) -> None:
    """WER against what is seen, cut-outs and full frames apart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, kind, key, label in zip(axes, ("cutouts", "photographs"), ("noun", "top5"),
                                      ("noun told from 19 others, %", "first class still among five, %"),
                                      strict=True):
        for path in sorted((logs / kind).glob("*-packages.json")):
            rows = json.loads(read_text(path))
            name = path.name.removesuffix("-packages.json")
            heard = share(rows, "errors", "words").value
            for colour, marker in (("colour", "o"), ("gray", "s")):
                seen = share(rows, f"{colour}_{key}").value
                axis.plot(seen, heard, marker, color="tab:orange" if colour == "colour" else "0.4")
                axis.annotate(name, (seen, heard), fontsize=7, xytext=(4, 3), textcoords="offset points")
        axis.set_xlabel(f"EfficientNet-Lite2: {label}")
        axis.set_title({"cutouts": "20 cut-outs", "photographs": "full-frame photographs"}[kind])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("WER, Whisper base, any word, %")
    drawn.suptitle("Pictures that speak in the same cells: orange in colour, gray squares in gray")
    drawn.tight_layout()
    with atomic_path(out) as temporary:
        drawn.savefig(temporary, dpi=110)
    print(out)


if __name__ == "__main__":
    main()
