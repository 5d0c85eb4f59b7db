"""One HTML file: the parts in page/, and the data as JSON inside it. It asks no server for anything."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ..errors import UserError
from ..figures import READ_BACK
from ..files import atomic_write
from ..scoring.text import PLAIN
from .differences import of_samples
from .folders import MACHINE, RunFolder, Sample, chosen, short_names, told, varied
from .transcript import align_all

OF_SAMPLES = ("image_prompt", "audio_prompt", "seed")
PARTS = Path(__file__).with_name("page")
USUAL_RATIO = 4.0  # width by height of the families' pictures, which the pages expect
EMBED_LIMIT = 200 * 2**20  # bytes; browsers take seconds to open more
MIME = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".bmp": "bmp"}  # of pictures that are no png
# Of the scores, beside figures.
SAID = ("heard", "rank", "taken_for")


def render(title: str, body: str, data: Any, scripts: Sequence[str], command: str = "",
           styles: Sequence[str] = ("base.css", "style.css"), policy: str = "") -> str:
    """A whole page. `body` is HTML; `data` is what the scripts (names in page/) find in `DATA`.

    policy: a content security policy, by which browsers refuse what the page should not do.
    """
    # "<" could end the script element from within a prompt.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")
    style = "".join((PARTS / name).read_text(encoding="utf-8") for name in styles)
    code = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in scripts)
    guard = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n' if policy else ""
    made = f"<footer>Made by <code>{html.escape(command)}</code></footer>" if command else ""
    return ("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" + guard +
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
            "<meta name=\"color-scheme\" content=\"light dark\">\n"
            f"<title>{html.escape(title)}</title>\n<link rel=\"icon\" href=\"data:,\">\n"
            f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n{made}\n"
            f"<script id=\"data\" type=\"application/json\">{text}</script>\n"
            f"<script>\n\"use strict\";\n(() => {{\n{code}\n}})();\n</script>\n</body>\n</html>\n")


def sample_data(runs: Sequence[RunFolder], page: Path, embed: bool = False) -> dict[str, Any]:
    """What gallery.js shows: {runs, keys, figures, base, samples}.

    `keys` are the settings in which the runs differ (`shown`: those that were chosen), `base` those that they
    share, `figures` the scores (`measured`: of metrics beside WER and CLIP). Pictures and sounds are
    named relative to `page`; with `embed` they are part of the data, sounds as FLAC, which loses nothing.
    Raises UserError when that would be more than a browser opens.
    """
    different = varied(runs)
    # What every sample tells of itself is no setting of its run to show and to filter by once more.
    shown = [key for key in chosen(runs, different) if key not in OF_SAMPLES]
    names = {**short_names(different), **short_names(shown)}
    shared = {key: value for key, value in (runs[0].config if runs else {}).items()
              if key not in different and key.split(".")[0] not in MACHINE}
    pairs = [(number, sample) for number, run in enumerate(runs) for sample in run.samples]
    if embed:
        size = sum(4 * _size(file) // 3 for _, sample in pairs for file in (sample.image, sample.sound))
        if size > EMBED_LIMIT:
            raise UserError(f"--embed: {len(pairs)} samples would make a page of about {size / 2**20:.0f} "
                            f"MiB (expected at most {EMBED_LIMIT / 2**20:.0f}); leave --embed out and keep "
                            "the run folders beside the page, or give fewer runs")
    words = align_all([(sample.audio_prompt or "", sample.scores.get("heard") or "") for _, sample in pairs],
                      [sample.scores.get("normaliser") or PLAIN for _, sample in pairs])
    return {
        "runs": [{"name": run.name, "base": url(run.path / "samples", page), "task": run.task,
                  "status": run.status,
                  "values": [_plain(told(key, values[number])) for key, values in different.items()]}
                 for number, run in enumerate(runs)],
        "keys": [{"key": key.removesuffix("._target_"), "short": names[key], "shown": key in shown}
                 for key in different],
        "figures": [{"key": figure.key, "name": figure.title, "falling": figure.falling,
                     "measured": figure not in READ_BACK}
                    for figure in of_samples(runs)
                    if any(sample.scores.get(figure.key) is not None for _, sample in pairs)],
        "base": {key: _plain(value) for key, value in shared.items()},
        "samples": [_sample_data(number, runs[number], sample, aligned, page, embed)
                    for (number, sample), aligned in zip(pairs, words, strict=True)],
    }


def _sample_data(number: int, run: RunFolder, sample: Sample, aligned: Sequence[Any], page: Path,
                 embed: bool) -> dict[str, Any]:
    shown = (*SAID, *(figure.key for figure in of_samples([run])))
    scores = {key: _rounded(sample.scores[key]) for key in shown if sample.scores.get(key) is not None}
    found = {"id": sample.id, "run": number, "image": sample.image_prompt, "audio": sample.audio_prompt,
             "seed": sample.seed, "scores": scores}
    if (ratio := _ratio(sample.image)) not in (None, USUAL_RATIO):
        found["ratio"] = ratio
    if "heard" in scores:
        found["words"] = aligned
    if embed:
        found |= {"picture": data_url(sample.image) or "data:,", "sound": data_url(sample.sound)}
        return found
    usual = run.path / "samples" / sample.id
    # The names that generate.py gives are known to the page: 10,000 times less text.
    if sample.image != usual / "image.png":
        found["picture"] = url(sample.image, page)
        found["spectrogram"] = url(sample.spectrogram, page) if sample.spectrogram else None
        found["sound"] = url(sample.sound, page) if sample.sound else None
        if sample.colour is not None:
            found["colour"] = url(sample.colour, page)
    else:
        if sample.colour is not None:
            found["colour"] = True
        found |= {name: None for name in ("spectrogram", "sound") if vars(sample)[name] is None}
    return found


def _ratio(picture: Path) -> float | None:
    """Width by height of a picture, of its header alone; None where it cannot be read."""
    try:
        with Image.open(picture) as image:
            return round(image.width / image.height, 4)
    except OSError:
        return None


def url(path: Path, page: Path) -> str:
    """`path` as a link from the page to be written at `page`."""
    return quote(os.path.relpath(path.resolve(), page.resolve().parent).replace(os.sep, "/"), safe="/+=,~")


def data_url(path: Path | None) -> str | None:
    """The file as a data: URL, a sound as FLAC; None where there is none."""
    if path is None or not path.exists():
        return None
    if path.suffix not in (".wav", ".flac"):
        kind = MIME.get(path.suffix.lower(), "png")
        return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()
    import soundfile

    wave, rate = soundfile.read(path, dtype="int16")
    packed = io.BytesIO()
    soundfile.write(packed, wave, rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(packed.getvalue()).decode()


def png_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write_page(path: Path, text: str) -> None:
    atomic_write(path, text)
    size = len(text.encode())
    print(f"{path} ({size / 2**20:.1f} MiB)" if size > 2**20 else f"{path} ({size / 2**10:.0f} KiB)")


def home(paths: Iterable[Path]) -> Path:
    """The nearest folder that holds all of `paths`; a single one is its own home."""
    return Path(os.path.commonpath([path.resolve() for path in paths]))


def _size(path: Path | None) -> int:
    if path is None or not path.exists():
        return 0
    # FLAC of our clips is a little over half of the wave.
    return path.stat().st_size // (2 if path.suffix == ".wav" else 1)


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def setting(value: Any) -> str:
    """A setting as it is shown."""
    named = {None: "none", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return named[value]
    return f"{value:.12g}" if isinstance(value, float) else str(_plain(value))


def _plain(value: Any) -> Any:
    """A setting as the page compares and shows it: a number, a text, yes or no, or null."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)
