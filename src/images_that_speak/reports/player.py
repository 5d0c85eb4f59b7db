"""A page that plays any picture, in a browser and without a server: docs/play.html."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from .page import PARTS, render, write_page

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
ROWS = 512  # of an example: more are seen, but not heard
EXAMPLES_LIMIT = 4 * 2**20  # bytes of all examples
# The page could not send a picture anywhere if it tried. The worker is made from a part of the page.
POLICY = ("default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; "
          "style-src 'unsafe-inline'; img-src blob: data:; connect-src blob:")


def write_player(path: Path, pictures: Path | None = None) -> None:
    """Write the page to `path`, with the pictures of a folder (jpg, png, webp) as examples.

    Raises UserError on a folder that is missing or holds no pictures, on a picture that cannot be read, and
    when they are too many for a page.
    """
    examples = _examples(pictures) if pictures else []
    body = (PARTS / "play.html").read_text(encoding="utf-8")
    decoder = "".join((PARTS / name).read_text(encoding="utf-8") for name in ("lattice.js", "decoder.js"))
    body += f'<script id="decoder" type="text/plain">\n"use strict";\n{decoder}</script>'
    write_page(path, render("Hear a picture", body, {"examples": examples}, ["play.js"],
                            styles=["base.css", "play.css"], policy=POLICY))


def _examples(folder: Path) -> list[dict[str, str]]:
    if not folder.is_dir():
        raise UserError(f"--pictures {folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"--pictures {folder}: no pictures (expected {', '.join(SUFFIXES)})")
    packed = [_packed(path) for path in paths]
    size = sum(len(picture) for picture in packed)
    if size > EXAMPLES_LIMIT:
        raise UserError(f"--pictures {folder}: {len(paths)} pictures of {size / 2**20:.1f} MiB together "
                        f"(expected at most {EXAMPLES_LIMIT / 2**20:.0f}); give fewer or smaller ones")
    return [{"name": path.stem.replace("_", " "),
             "picture": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"}
            for path, picture in zip(paths, packed, strict=True)]


def _packed(path: Path) -> bytes:
    """A picture as a jpg of at most ROWS rows; a jpg that is no larger stays as it is: it is the message."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG" and image.height <= ROWS:
                return path.read_bytes()
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable picture ({error})") from error
    ground = Image.new("RGBA", upright.size, "black")
    flat = Image.alpha_composite(ground, upright).convert("RGB")
    if flat.height > ROWS:
        flat = flat.resize((max(1, round(flat.width * ROWS / flat.height)), ROWS), Image.Resampling.BOX)
    file = io.BytesIO()
    flat.save(file, format="JPEG", quality=88)
    return file.getvalue()
