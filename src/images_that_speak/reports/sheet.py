"""A contact sheet: some samples of a run in one picture, for a page or a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..files import atomic_path
from .caption import PAPER, draw_caption, open_picture
from .folders import RunFolder, Sample

SHRINK = 2  # the sheet is so many times smaller than its pictures
GAP = 24  # pixels around a picture, before that


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
    """Write a png of `count` samples with what was asked and heard.

    Raises UserError when the runs hold no sample, or a count below 1.
    """
    if count < 1 or columns < 1:
        raise UserError(f"--count {count} --columns {columns}: expected at least 1")
    shown = choose([sample for run in runs for sample in run.samples if sample.image.exists()], count)
    if not shown:
        raise UserError(f"{runs[0].path}: no sample in it (expected samples/<sample_id>/ as generate.py "
                        "writes)")
    cells = [cell(sample) for sample in shown]
    columns = min(columns, len(cells))
    rows = [cells[first:first + columns] for first in range(0, len(cells), columns)]
    # Pictures may be of different shapes: columns are as wide as the widest, rows as high as their highest.
    width = max(one.width for one in cells) + GAP
    heights = [max(one.height for one in row) + GAP for row in rows]
    sheet = Image.new("RGB", (columns * width + GAP, sum(heights) + GAP), PAPER)
    for number, row in enumerate(rows):
        for column, one in enumerate(row):
            sheet.paste(one, (GAP + column * width, GAP + sum(heights[:number])))
    with atomic_path(path) as temporary:
        sheet.reduce(SHRINK).save(temporary, "png", optimize=True)
    print(path)


def cell(sample: Sample) -> Image.Image:
    """A sample's picture over its caption."""
    picture = open_picture(sample.image)
    caption = draw_caption(sample, picture.width)
    found = Image.new("RGB", (picture.width, picture.height + caption.height))
    found.paste(picture, (0, 0))
    found.paste(caption, (0, picture.height))
    return found
