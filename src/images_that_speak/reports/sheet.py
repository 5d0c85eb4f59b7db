"""A contact sheet: some samples of a run in one picture, for a page or a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..files import atomic_path
from .alignment import align
from .folders import RunFolder, Sample

WIDTH, HEIGHT, GAP, LINE = 768, 192, 12, 18  # pixels of a picture, around it, and of a line below it
GROUND, TEXT, DIM, WRONG = "#101010", "#f0f0f0", "#a8a8a8", "#ff9d7a"


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples, as different as there are, and none for its score.

    Image prompts and phrases in turn: of the k-th image prompt the sample with the k-th phrase, then, where
    more are wanted, with the phrase after that.
    """
    images = list(dict.fromkeys(sample.image_prompt for sample in samples))
    phrases = list(dict.fromkeys(sample.audio_prompt for sample in samples))
    # Asked for by pairs, a csv has one phrase for each image prompt: then in the order they stand in.
    turn = {(images[k % len(images)], phrases[(k + k // len(images)) % len(phrases)]): None
            for k in range(len(images) * len(phrases))}
    first: dict[tuple[str | None, str | None], Sample] = {}
    for sample in samples:
        first.setdefault((sample.image_prompt, sample.audio_prompt), sample)
    chosen = [first[pair] for pair in turn if pair in first]
    return [*chosen, *(sample for sample in samples if sample not in chosen)][:count]


def write_sheet(runs: Sequence[RunFolder], path: Path, count: int = 12, columns: int = 2) -> None:
    """Write a png of `count` samples with what was asked and heard; a wrong word is coloured.

    Raises UserError when the runs hold no sample, or a count below 1.
    """
    if count < 1 or columns < 1:
        raise UserError(f"--count {count} --columns {columns}: expected at least 1")
    shown = choose([sample for run in runs for sample in run.samples if sample.image.exists()], count)
    if not shown:
        raise UserError(f"{runs[0].path}: no sample in it (expected samples/<sample_id>/ as generate.py "
                        "writes)")
    columns = min(columns, len(shown))
    cell = HEIGHT + 3 * LINE + GAP
    sheet = Image.new("RGB", (columns * (WIDTH + GAP) + GAP, -(-len(shown) // columns) * cell + GAP), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, sample in enumerate(shown):
        x, y = GAP + index % columns * (WIDTH + GAP), GAP + index // columns * cell
        with Image.open(sample.image) as picture:
            sheet.paste(picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), (x, y))
        y += HEIGHT + 2
        draw.text((x, y), str(sample.image_prompt or ""), TEXT, font)
        words = align(sample.audio_prompt or "", str(sample.scores.get("heard") or ""))
        _words(draw, font, (x, y + LINE), "asked", [(word, DIM) for _, word, _ in words])
        if "heard" in sample.scores:
            _words(draw, font, (x, y + 2 * LINE), "heard",
                   [(word, DIM if kind == "=" else WRONG) for kind, _, word in words])
    with atomic_path(path) as temporary:
        sheet.save(temporary, "png", optimize=True)
    print(path)


def _words(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
           place: tuple[int, int], label: str, words: Sequence[tuple[str, str]]) -> None:
    x, y = place
    for word, colour in ((f"{label}:", DIM), *words):
        draw.text((x, y), word, colour, font)
        x += int(draw.textlength(f"{word} ", font)) if word else 0
