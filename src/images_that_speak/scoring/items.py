"""What there is to read back: the samples of a run, or anyone's pictures, with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..audio.picture import is_copy
from ..errors import UserError
from ..files import file_hash, names_apart
from ..prompts import Pair, read_pairs
from ..runs.sample import Sample, is_sample, samples_of
from ..values import ENDINGS_READ

# The photograph that a sample was made from, beside its picture.
PHOTOGRAPHS = ("photograph", "source")
PHOTOGRAPH_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Item:
    """One picture to read back. `record` is its sample.json, where it has one.

    vocoder: what plays it; None leaves it to whoever reads. broken: why it cannot be read, if that is known.
    """

    name: str
    picture: Path
    wave: Path | None = None
    image_prompt: str | None = None
    audio_prompt: str | None = None
    record: dict[str, Any] | None = None
    folder: Path | None = None
    vocoder: Any = None
    broken: str | None = None

    @property
    def sample(self) -> Sample | None:
        """The sample that it is, where its record could be read."""
        return None if self.folder is None or self.record is None else Sample(self.folder, self.record)

    @property
    def run(self) -> Path | None:
        """The run folder whose sample it is."""
        run = self.folder.parent.parent if self.folder is not None else None
        return run if run is not None and (run / "run.json").is_file() else None

    @property
    def unmixed(self) -> Path | None:
        """The photograph that it was made from: the copy in its folder, else where its record says.

        What lies at the record's path counts only while it is still the same file.
        """
        if self.folder is None:
            return None
        for name in PHOTOGRAPHS:
            for ending in PHOTOGRAPH_ENDINGS:
                if (path := self.folder / f"{name}{ending}").is_file():
                    return path
        source = (self.record or {}).get("source")
        if not isinstance(source, dict) or not source.get("path") or not source.get("sha"):
            return None
        path, sha = Path(source["path"]), str(source["sha"])
        return path if path.is_file() and file_hash(path, len(sha)) == sha else None


def find_run(run: str | Path) -> list[Item]:
    """The samples of a run folder. Raises UserError when it holds none."""
    folders = samples_of(run)
    if not folders:
        raise UserError(f"run={run}: holds no sample (expected samples/<id>/sample.json, as generate.py "
                        "writes)")
    return [item_of(folder) for folder in folders]


def item_of(folder: Path) -> Item:
    """The item of a sample's folder; one that is broken leaves the others to be read."""
    try:
        record = Sample.read(folder).record
    except UserError as error:
        return Item(folder.name, folder / "image.png", folder=folder, broken=str(error))
    return Item(folder.name, folder / "image.png", folder / "speech.wav", record.get("image_prompt") or None,
                record.get("audio_prompt") or None, record, folder)


def named_apart(items: Sequence[Item]) -> list[Item]:
    """`items`, the samples of several runs among them told apart by their folders."""
    folders = [item.folder for item in items if item.folder is not None]
    names = dict(zip(folders, names_apart(folders), strict=True))
    return [item if item.folder is None else replace(item, name=names[item.folder]) for item in items]


def find_pictures(pictures: str | Path, prompts: str | Path | None = None) -> list[Item]:
    """The pictures of a folder and its subfolders, or one picture: of any size, of `ENDINGS_READ`.

    The published layout writes `x_img.png`, `x_spec.png`, `x.npy` and `x.wav`, of which the gray png is read:
    an npy only where no picture has its name. Of a sample's folder image.png is read. Prompts come from the
    csv `prompts` (columns file, image_prompt, audio_prompt; `file` with or without ending, and without its
    folder where it stands for all pictures of that name), else from the sample.json beside a picture, else
    there are none. Raises UserError when the folder holds no picture, or when the csv names a file that is
    not there.
    """
    given = Path(pictures)
    root = given.parent if given.is_file() else given
    items = []
    for path in [given] if given.is_file() else _pictures_below(given):
        if path.name == "image.png" and is_sample(path.parent):
            item = item_of(path.parent)
        else:
            key = path.with_name(path.stem.removesuffix("_img"))
            sounds = [key.with_name(key.name + ending) for ending in (".wav", ".flac")]
            wave = next((sound for sound in sounds if sound.exists()), None)
            item = Item(str(path.relative_to(root)), path, wave)
        items.append(item)
    items = named_apart(items)
    if prompts is None:
        return items
    pairs: dict[str | None, Pair] = {}
    for pair in read_pairs(prompts, ("file", "image_prompt", "audio_prompt")):
        if pairs.setdefault(pair.file, pair) != pair:
            raise UserError(f"prompts={prompts}: names {pair.file!r} twice, with different prompts")
    named, used = [], set()
    for item in items:
        path = item.picture.relative_to(root)
        bare = path.with_suffix("")
        # With its folder first: another folder may hold a picture of the same name.
        names = (str(path), str(bare), str(bare).removesuffix("_img"), path.name, bare.name,
                 bare.name.removesuffix("_img"))
        file = next((name for name in names if name in pairs), None)
        if file is not None:
            used.add(file)
            item = replace(item, image_prompt=pairs[file].image_prompt, audio_prompt=pairs[file].audio_prompt)
        named.append(item)
    if unused := [file for file in pairs if file not in used]:
        missing = ", ".join(map(repr, unused[:5]))
        raise UserError(f"prompts={prompts}: no picture in {root} for {missing}")
    return named


def _pictures_below(root: Path) -> list[Path]:
    """The pictures in a folder, those left out that show another one once more (see `find_pictures`)."""
    found: dict[tuple[Path, str], Path] = {}
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() not in ENDINGS_READ or hidden or is_copy(path) or not path.is_file():
            continue
        if is_sample(path.parent) and path.stem != "image":
            continue  # the photograph that a sample was made from, and what reports made of it
        found[path.with_name(path.stem.removesuffix("_img")), path.suffix.lower()] = path
    # The 8-bit file is what is seen.
    drawn = {stem for stem, ending in found if ending != ".npy"}
    if not found:
        raise UserError(f"pictures={root}: holds no picture (expected {', '.join(ENDINGS_READ)} files)")
    return [path for (stem, ending), path in found.items() if ending != ".npy" or stem not in drawn]
