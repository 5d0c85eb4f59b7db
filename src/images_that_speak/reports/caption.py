"""Words under a picture: what it shows, what it says, and what was heard, drawn as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..errors import UserError
from ..scoring.text import PLAIN
from .folders import Sample
from .transcript import align

# The pages' colours on a dark ground.
PAPER, INK, QUIET = "#131415", "#e9e7e2", "#a19d95"
WRONG, MISSING, ADDED = "#ff8f84", "#e9ba62", "#8fb8ff"
LINE, TOP, SIDE, LABEL = 37, 9, 24, 88  # pixels: of a line, above the first, at either side, of a label
LARGEST, SMALLEST = 24, 11  # pixels of the letters
WRAPPED, ROWS = 20, 3  # pixels of the letters and most rows of a line that is too long for a narrow picture
NARROWEST, WIDEST = 480, 2048  # pixels of a picture over a caption


@dataclass(frozen=True)
class Piece:
    """A word in a colour, underlined or not, for colour alone does not reach everyone."""

    text: str
    colour: str = INK
    marked: bool = False


def pieces(asked: str, heard: str, normaliser: str = PLAIN) -> list[Piece]:
    """What was heard, word by word: another word underlined, a missing one in brackets, a further one after
    a plus."""
    shown = {"=": lambda a, b: Piece(b), "s": lambda a, b: Piece(b, WRONG, True),
             "d": lambda a, b: Piece(f"[{a}]", MISSING), "i": lambda a, b: Piece(f"+{b}", ADDED)}
    return [shown[kind](a, b) for kind, a, b in align(asked, heard, normaliser)]


def lines(sample: Sample) -> list[tuple[str, list[Piece], str]]:
    """(label, words, figure) of each line; a line of which nothing is known is left out."""
    scores = sample.scores
    found = []
    if sample.image_prompt:
        clip = scores.get("clip")
        found.append(("shows", [Piece(sample.image_prompt)], "" if clip is None else f"CLIP {clip:.1f}"))
    if sample.audio_prompt:
        found.append(("says", [Piece(sample.audio_prompt)], ""))
    if scores.get("heard") is not None:
        wer = scores.get("wer")
        normaliser = scores.get("normaliser") or PLAIN
        words = pieces(sample.audio_prompt or "", scores["heard"], normaliser) or [Piece("nothing", QUIET)]
        found.append(("heard", words, "" if wer is None else f"WER {100 * wer:.0f} %"))
    return found


def open_picture(path: Path) -> Image.Image:
    """A picture in RGB, upright, brought to a width that a caption goes under.

    Raises UserError where it cannot be read.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a readable picture ({error})") from error
    if picture.width < NARROWEST:
        times = -(-NARROWEST // picture.width)
        return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    if picture.width > WIDEST:
        return picture.resize((WIDEST, max(1, round(picture.height * WIDEST / picture.width))),
                              Image.Resampling.LANCZOS)
    return picture


def draw_caption(sample: Sample, width: int) -> Image.Image:
    """A strip of three lines, `width` pixels wide and 3 · LINE + 2 · TOP high.

    Under a narrow picture a line that is too long takes several rows, and the strip is higher.
    """
    room = width - 2 * SIDE - LABEL - 110
    rows = [(label if not number else "", row, figure if not number else "")
            for label, words, figure in lines(sample) for number, row in enumerate(_wrapped(words, room))]
    strip = Image.new("RGB", (width, max(3, len(rows)) * LINE + 2 * TOP), PAPER)
    draw = ImageDraw.Draw(strip)
    quiet = ImageFont.load_default(17)
    for number, (label, words, figure) in enumerate(rows):
        base = TOP + number * LINE + 27
        draw.text((SIDE, base), label, QUIET, quiet, anchor="ls")
        draw.text((width - SIDE, base), figure, QUIET, quiet, anchor="rs")
        _draw_words(draw, words, SIDE + LABEL, base, room)
    return strip


def _wrapped(words: list[Piece], room: float) -> list[list[Piece]]:
    """Words as rows: one where they fit in the smallest letters, else at most `ROWS` of larger ones."""
    if ImageFont.load_default(SMALLEST).getlength(" ".join(word.text for word in words)) <= room:
        return [words]
    font = ImageFont.load_default(WRAPPED)
    rows: list[list[Piece]] = [[]]
    for word in words:
        text = " ".join(piece.text for piece in [*rows[-1], word])
        if rows[-1] and font.getlength(text) > room and len(rows) < ROWS:
            rows.append([])
        rows[-1].append(word)
    return rows


def _draw_words(draw: ImageDraw.ImageDraw, words: list[Piece], left: float, base: int, room: int) -> None:
    """Words on one line, as large as they fit; what does not fit in the smallest letters is cut off."""
    sizes = range(LARGEST, SMALLEST - 1, -1)
    text = " ".join(word.text for word in words)
    fonts = (ImageFont.load_default(size) for size in sizes)
    font = next((f for f in fonts if f.getlength(text) <= room), ImageFont.load_default(SMALLEST))
    end = left + room
    for word in words:
        length = font.getlength(word.text)
        shown = word.text
        while shown and left + font.getlength(shown + "…") > end and left + length > end:
            shown = shown[:-1]
        if shown != word.text:
            draw.text((left, base), shown + "…", word.colour, font, anchor="ls")
            return
        draw.text((left, base), shown, word.colour, font, anchor="ls")
        if word.marked:
            draw.line((left, base + 5, left + length, base + 5), word.colour, 2)
        left += length + font.getlength(" ")
