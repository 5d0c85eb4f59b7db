"""What is wrong, in the words of the page: its fields in place of configuration keys and paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DRAWN, PHOTOGRAPH, SAID, RECORDING = "What is drawn", "Photograph", "What it says", "Your voice"
STYLE, VOICE, SPEED, FIT, SEED, STEPS = "Style", "Voice", "Speed", "Fit", "Seed", "Denoising steps"
IMAGE_SCALE, AUDIO_SCALE, WEIGHT = "Picture guidance", "Speech guidance", "Speech weight"
COLOUR, PICTURE = "In colour", "Picture"
FIELDS = {
    "image_prompt": DRAWN, "image": PHOTOGRAPH, "audio_prompt": SAID, "speech": RECORDING, "style": STYLE,
    "voice": VOICE, "rate": SPEED, "picture.fit": FIT, "picture.colour": COLOUR, "seed": SEED, "steps": STEPS,
    "guidance.image_scale": IMAGE_SCALE, "guidance.audio_scale": AUDIO_SCALE, "guidance.audio_weight": WEIGHT}
# Texts: their value stands in the field and need not be repeated.
LONG = ("image_prompt", "audio_prompt", "image", "speech")
# Ways out that a page does not have.
ELSEWHERE = (", or cut it into several pictures with sentences=FILE",
             " (strict=true)", " python -m images_that_speak.drawings lists them all.")
_KEY = re.compile(r"(?<![\w./])(" + "|".join(map(re.escape, sorted(FIELDS, key=len, reverse=True)))
                  + r""")=(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s:,;)]*)""")
_BARE = re.compile(r"^(" + "|".join(map(re.escape, sorted(FIELDS, key=len, reverse=True))) + r"): ")


def in_fields(text: str, files: Mapping[str, str] | None = None) -> list[str]:
    """The lines of an error or a note, naming fields. files: {path on the server: field that it is in}."""
    return list(dict.fromkeys(_line(line, files or {}) for line in text.splitlines()))


def _line(line: str, files: Mapping[str, str]) -> str:
    line = line.removeprefix("note: ")
    for way in ELSEWHERE:
        line = line.replace(way, "")
    for path, name in files.items():
        shown = f"{name} ({Path(path).name})"
        for written in (f"image={path}", f"speech={path}", path):
            line = line.replace(written, shown)
    line = _KEY.sub(_named, line)
    line = _BARE.sub(lambda found: f"{FIELDS[found[1]]}: ", line)
    return line[:1].upper() + line[1:]


def _named(found: re.Match[str]) -> str:
    key, value = found[1], found["value"]
    # What follows the value tells what is wrong with it, or it is a way out: "Speed 1.3 is fast enough".
    return FIELDS[key] if key in LONG or not value else f"{FIELDS[key]} {value.strip(chr(39))}"


def lines_of(texts: Iterable[str], files: Mapping[str, str] | None = None) -> list[str]:
    """`in_fields` of several notes."""
    return list(dict.fromkeys(line for text in texts for line in in_fields(text, files)))
