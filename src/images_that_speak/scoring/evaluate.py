"""Reading pictures back: what is seen in them, what is heard when they are played, and how sure that is.

`evaluate(cfg)` reads a run folder of generate.py or any folder of pictures; `read_back(folders, …)` is what
generate.py calls on its own samples at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from ..audio.mel import MEL
from ..audio.picture import is_copy, quantise, read_picture, read_pixels
from ..audio.wave import as_stored, read_wave
from ..config import instantiate
from ..errors import UserError, nearest
from ..figures import SEEN, as_json
from ..files import alone_in, file_hash, names_apart, read_json, write_json
from ..kept import kept, stamp
from ..prompts import Pair, read_pairs
from ..runs import as_made, open_run
from ..values import ENDINGS_READ, PICTURE_READERS
from .ctc import CTCReader
from .efficientnet import EfficientNetReader
from .heard import SILENT, SpeechReader
from .metric import Clip, Metric, Scores, Unfit
from .seen import PictureJudge, Shown, load_picture_reader
from .statistics import Interval, score_sample, totals
from .stored import stored_rows
from .tables import (
    METRIC_COLUMNS,
    SAMPLE_COLUMNS,
    TOTAL_COLUMNS,
    print_table,
    shown_figure,
    total_row,
    write_table,
)
from .text import PLAIN, normalise

SOURCES = ("picture", "wav")
# What a name in the place of a section `reader.picture` stands for.
EYES: dict[str, Any] = dict(zip(PICTURE_READERS, (load_picture_reader, EfficientNetReader), strict=True))
SHORTEST = 0.1  # seconds; no word is shorter
CHUNK = 8  # samples decoded at once: bounds the memory, not the result
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


@dataclass(frozen=True)
class Readers:
    """`speech` hears, `picture` sees (None: nobody looks). `source`: what is heard, "picture" or "wav".

    `second`: another judge of speech, whose WER is told beside the first one's and enters no other figure;
    `second_picture`: likewise of pictures. What both say has "second_" before its name.
    """

    speech: SpeechReader
    picture: PictureJudge | None = None
    source: str = "picture"
    second: SpeechReader | None = None
    second_picture: PictureJudge | None = None

    @property
    def eyes(self) -> list[PictureJudge]:
        """The readers of pictures."""
        return [eye for eye in (self.picture, self.second_picture) if eye is not None]

    @property
    def names(self) -> dict[str, str | None]:
        """Who judges, as results tell it."""
        judges = {"speech_reader": self.speech, "second_reader": self.second, "picture_reader": self.picture,
                  "second_picture_reader": self.second_picture}
        return {key: None if judge is None else judge.name for key, judge in judges.items()}

    def named(self, columns: Mapping[str, str]) -> dict[str, str]:
        """`columns` of a table, with the judges' names where there are two."""
        names: dict[str, str] = {}
        if self.picture and self.second_picture:
            names |= {key: heading.replace("second", self.second_picture.name)
                      for key, heading in columns.items() if key.startswith("second_")}
            names |= {key: f"{columns[key]} ({self.picture.name})" for key in (figure.key for figure in SEEN)
                      if f"second_{key}" in columns}
        if self.second is None:
            return {key: names.get(key, heading) for key, heading in columns.items()}
        first, second = self.speech.name, self.second.name
        names |= {"heard": f"heard ({first})", "second_heard": f"heard ({second})", "wer": f"WER ({first})",
                 "second_wer": f"WER ({second})", "invented": f"invented ({first})",
                 "second_invented": f"invented ({second})"}
        return {key: names.get(key, heading) for key, heading in columns.items()}


@dataclass
class Report:
    """`rows`: a dict for each sample that was read; `items`: what each row is of. `left_out`: {name: why}.

    `measured`: the keys that metrics beside WER and CLIP have in the rows, by the metric's name; `seen`:
    those of readers of pictures beside `SCORES`. `notes`: for the user. `unfit`: what a metric could not
    measure, {(its name, why): names}.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    measured: dict[str, list[str]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unfit: dict[tuple[str, str], list[str]] = field(default_factory=dict)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Read back what `cfg` (configs/evaluate.yaml) names, print the tables, and return the result.

    The pictures of a run are played by its own vocoder, unless `cfg` has another (see `runs.as_made`); so
    are those of each run that `cfg.pictures` holds.
    Writes samples.csv, samples.md, totals.csv, totals.md and result.json into a run folder of its own (with
    metrics also metrics.csv and metrics.md), and the scores into the sample.json of samples that have one.
    Files that cannot be read are named and left out. Raises UserError when none can be read.
    """
    cfg = as_made(cfg)
    items = find_run(cfg.run) if cfg.run else find_pictures(cfg.pictures, cfg.prompts)
    with open_run(cfg, "evaluate") as run:
        if run.result is not None:
            return run.result
        metrics = load_metrics(cfg)
        readers = with_second_opinion(load_readers(cfg.reader, cfg.device), items, cfg.device)
        configs = made_by(cfg, items)
        if readers.source == "picture":
            items = with_vocoders(items, configs)
        report = read_items(items, readers, metrics=metrics, name_seen=cfg.pictures is not None)
        own = [key for keys in report.measured.values() for key in keys]
        figures = totals(report.rows, int(cfg.bootstrap), int(cfg.seed), own)
        sets = {name: metric.total() if name in report.measured else {} for name, metric in metrics.items()}
        for row, item in zip(report.rows, report.items, strict=True):
            if item.record is not None and item.folder is not None:
                write_scores(item.folder, item.record, row, [*report.seen, *own])
        # Before the tables: logger=csv has a samples.csv too, of which the evaluation's own takes the place.
        run.log_samples(item.folder for item in items if item.record is not None and item.folder is not None)
        lines = [total_row(Path(cfg.run or cfg.pictures).name, figures)]
        lines += stored_rows(list(configs.values()), readers.speech.name)
        columns = readers.named(SAMPLE_COLUMNS), readers.named(TOTAL_COLUMNS)
        told = metric_rows(metrics, report, figures, sets)
        write_table(run.dir / "samples", report.rows, {**columns[0], **{key: key for key in own}})
        write_table(run.dir / "totals", lines, columns[1])
        tell(report)
        print_table(report.rows, columns[0])
        print_table(lines, columns[1])
        if metrics:
            write_table(run.dir / "metrics", told, METRIC_COLUMNS)
            # What they stand on would not fit the terminal; it is in the files.
            print_table(told, dict(list(METRIC_COLUMNS.items())[:4]))
        print(f"tables and result: {run.dir}")
        return run.finish({**plain_totals(figures), **unscored(report.rows),
                           **{key: value for found in sets.values() for key, value in found.items()},
                           **({"metrics": told} if metrics else {}), **own_figures(metrics), **readers.names,
                           "normaliser": readers.speech.normaliser, "source": readers.source,
                           "left_out": [{"file": file, "error": error}
                                        for file, error in report.left_out.items()]})


def read_back(folders: Sequence[str | Path], reader: Any, vocoder: Any = None, device: str = "cpu",
              resamplings: int = 1000, seed: int = 0, quiet: bool = False,
              metrics: Mapping[str, Metric] | None = None) -> dict[str, Any]:
    """Read sample folders back, write the scores into each sample.json, and return the totals.

    Args:
        folders: sample folders, each with image.png, speech.wav and sample.json.
        reader: the configuration section `reader`, or `Readers`. When the picture reader cannot be loaded, a
            note says so and nothing is said of what is seen.
        vocoder: plays the pictures; None reads speech.wav, which generate.py decodes from the 8-bit picture.
        metrics: by name, loaded; what each measures beside.

    Returns `plain_totals`, and what `metrics` say of the set. Raises UserError when no folder can be read.
    """
    items = _named_apart([_sample_item(Path(folder)) for folder in folders])
    notes = []
    if isinstance(reader, Readers):
        readers = reader
    else:
        try:
            readers = load_readers(reader, device)
        except UserError as error:
            readers = load_readers(reader, device, see=False)
            notes.append(f"what is seen is not scored: {error}")
        readers = with_second_opinion(readers, items, device)
    if vocoder is None:
        readers = replace(readers, source="wav")
    report = read_items(items, readers, vocoder, metrics)
    report.notes += notes
    own = [key for keys in report.measured.values() for key in keys]
    if not quiet:
        tell(report)
    for row, item in zip(report.rows, report.items, strict=True):
        assert item.record is not None and item.folder is not None
        write_scores(item.folder, item.record, row, [*report.seen, *own])
    sets = {key: value for metric in (metrics or {}).values() for key, value in metric.total().items()}
    return (plain_totals(totals(report.rows, resamplings, seed, own)) | sets | unscored(report.rows)
            | own_figures(metrics or {}))


def own_figures(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What a result.json says of the figures of metrics of one's own, for the tables and pages to come."""
    return as_json(figure for metric in metrics.values() for figure in metric.figures)


# --- what there is to read


def find_run(run: str | Path) -> list[Item]:
    """The samples of a run folder. Raises UserError when it holds none."""
    folders = sorted(path.parent for path in (Path(run) / "samples").glob("*/sample.json"))
    if not folders:
        raise UserError(f"run={run}: holds no sample (expected samples/<id>/sample.json, as generate.py "
                        "writes)")
    return [_sample_item(folder) for folder in folders]


def _sample_item(folder: Path) -> Item:
    try:
        record = read_json(folder / "sample.json")
        if not isinstance(record, dict):
            raise UserError(f"{folder / 'sample.json'}: expected a JSON object")
    except UserError as error:  # one that is broken leaves the others to be read
        return Item(folder.name, folder / "image.png", folder=folder, broken=str(error))
    return Item(folder.name, folder / "image.png", folder / "speech.wav", record.get("image_prompt"),
                record.get("audio_prompt"), record, folder)


def _named_apart(items: Sequence[Item]) -> list[Item]:
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
        if path.name == "image.png" and (path.parent / "sample.json").exists():
            item = _sample_item(path.parent)
        else:
            key = path.with_name(path.stem.removesuffix("_img"))
            sounds = [key.with_name(key.name + ending) for ending in (".wav", ".flac")]
            wave = next((sound for sound in sounds if sound.exists()), None)
            item = Item(str(path.relative_to(root)), path, wave)
        items.append(item)
    items = _named_apart(items)
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
        if (path.parent / "sample.json").is_file() and path.stem != "image":
            continue  # the photograph that a sample was made from, and what reports made of it
        found[path.with_name(path.stem.removesuffix("_img")), path.suffix.lower()] = path
    # The 8-bit file is what is seen.
    drawn = {stem for stem, ending in found if ending != ".npy"}
    if not found:
        raise UserError(f"pictures={root}: holds no picture (expected {', '.join(ENDINGS_READ)} files)")
    return [path for (stem, ending), path in found.items() if ending != ".npy" or stem not in drawn]


# --- reading


def load_readers(section: Any, device: str = "cpu", see: bool = True) -> Readers:
    """The readers of a configuration section `reader`; without a picture reader when `see` is false.

    Raises UserError when one cannot be loaded.
    """
    if OmegaConf.is_config(section):
        section = OmegaConf.to_container(section, resolve=True)
    source = section.get("source", "picture")
    if source not in SOURCES:
        raise UserError(f"reader.source={source!r}: expected one of {', '.join(SOURCES)}")

    def build(part: Mapping[str, Any] | None) -> Any:
        if part is None:
            return None
        given = {**part, "device": _device(device)} if "device" in part else dict(part)
        # Among the arguments may be files: they count by their content.
        files = [stamp(value) for value in given.values() if isinstance(value, str)]
        reader = kept(("reader", repr(given), *files), lambda: instantiate(given))
        if isinstance(reader, SpeechReader):
            reader.forget()
        return reader

    second = section.get("second") or {}
    eyes = [build(picture_section(part["picture"])) for part in (section, second)
            if see and part.get("picture") is not None]
    # Two choices of a reader mostly have the same eye, and it looks once.
    eyes = list({eye.name: eye for eye in reversed(eyes)}.values())[::-1]
    return Readers(build(section["speech"]), eyes[0] if eyes else None, source, build(second.get("speech")),
                   eyes[1] if len(eyes) > 1 else None)


def picture_section(part: Mapping[str, Any] | str) -> dict[str, Any]:
    """A reader of pictures as a section; a name stands for one with the settings that it is made with."""
    if not isinstance(part, str):
        return dict(part)
    if part not in EYES:
        raise UserError(f"reader.picture={part}: expected one of {', '.join(EYES)}, null or a section."
                        f"{nearest(part, EYES)}")
    return {"_target_": f"{EYES[part].__module__}.{EYES[part].__qualname__}", "device": ""}


def load_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of the section `metrics` by name, loaded. Raises UserError when one cannot be had."""
    metrics = build_metrics(cfg)
    for metric in metrics.values():
        metric.load()
    return metrics


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """The metrics of the section `metrics`, their weights not yet loaded."""
    section: Any = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(section, dict)
    return {name: instantiate(_on_device(part, cfg.device))
            for name, part in (section["metrics"] or {}).items()}


def _on_device(node: Any, device: str) -> Any:
    """A section with every `device` in it filled with the one that is used."""
    if not isinstance(node, dict):
        return node
    return {key: _device(device) if key == "device" else _on_device(value, device)
            for key, value in node.items()}


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def made_by(cfg: DictConfig, items: Sequence[Item]) -> dict[Path | None, DictConfig]:
    """{run: `cfg` as that run was made} for every run that `items` are samples of; None: of those of none."""
    runs = dict.fromkeys(item.run for item in items)
    return {run: cfg if run is None else as_made(cfg, run) for run in runs}


def with_vocoders(items: Sequence[Item], configs: Mapping[Path | None, DictConfig]) -> list[Item]:
    """`items`, each with the vocoder of its own run: `vocoder.path`, or the family's. Each is loaded once."""
    from ..audio.vocoder import load_vocoder

    paths = {run: vocoder_of(cfg) for run, cfg in configs.items()}
    device = _device(next(iter(configs.values())).device)

    def load(path: str) -> Any:
        return kept(("vocoder", stamp(path), device), lambda: load_vocoder(path).to(device))

    loaded = {path: load(path) for path in dict.fromkeys(paths.values())}
    return [replace(item, vocoder=loaded[paths[item.run]]) for item in items]


def vocoder_of(cfg: DictConfig) -> str:
    """The vocoder that plays pictures: `vocoder.path`, or the family's."""
    return str(OmegaConf.select(cfg, "vocoder.path") or instantiate(cfg.family).vocoder)


def says_one_word(item: Item) -> bool:
    """Whether the phrase of an item is a single word."""
    return item.audio_prompt is not None and len(normalise(item.audio_prompt).split()) == 1


def with_second_opinion(readers: Readers, items: Sequence[Item], device: str = "cpu") -> Readers:
    """`readers`, with the CTC recogniser beside a single judge where the family's own voices say one word.

    Of 25 such words it heard all, pocketsphinx 18 and Whisper base 17. Other voices it was not taught: where
    a sample's record names one, or there is no record, `readers` stay as they are.
    """
    made = [item for item in items if item.record is not None and "voice" not in item.record]
    if not any(map(says_one_word, made)) or readers.second or isinstance(readers.speech, CTCReader):
        return readers
    return replace(readers, second=CTCReader(device=_device(device)))


def read_items(items: Sequence[Item], readers: Readers, vocoder: Any = None,
               metrics: Mapping[str, Metric] | None = None, name_seen: bool = False) -> Report:
    """Read every item; those that cannot be read are left out by name. Raises UserError when none can.

    vocoder: plays the items that have none of their own. metrics: by name; each measures every item that was
    read. name_seen: say of pictures without a prompt which known thing they are nearest to.

    A sample that is silent counts, as one in which no word was heard: leaving it out would flatter the rest.
    """
    report = Report()
    added: dict[str, None] = {}
    for judge in (readers.speech, readers.second):
        if judge is not None:
            added |= dict.fromkeys(judge.extend(item.audio_prompt for item in items if item.audio_prompt))
    if added:
        report.notes.append("not in the closed vocabulary, listened for besides: " + ", ".join(added))
    if any(map(says_one_word, items)):
        report.notes.append("a single word gives a listener no context, and is misheard more often than a "
                            "sentence (docs/measuring.md has how often, judge by judge)")
    captioned = any(item.image_prompt for item in items)
    eyes = [eye for eye in readers.eyes if captioned or name_seen or not eye.needs_caption]
    looks: list[list[Any]] = [[] for _ in eyes]
    silent = []
    metrics = metrics or {}
    measured: list[dict[str, Any]] = []
    with tqdm(total=len(items), unit="picture", desc="reading back", leave=False) as bar:
        for chunk in _chunks(items, CHUNK):
            good, pictures, waves = _load(chunk, readers, vocoder, report, eyes, bool(metrics))
            if good:
                again = readers.second.read_many(waves) if readers.second else [None] * len(waves)
                for item, wave, heard, other in zip(good, waves, readers.speech.read_many(waves), again,
                                                    strict=True):
                    if float(np.abs(wave).max()) < SILENT:
                        silent.append(item.name)
                    report.rows.append({"name": item.name, "heard": heard.text,
                                        "second_heard": other and other.text})
                for eye, found in zip(eyes, looks, strict=True):
                    found += eye.look(pictures)
                measured += _measure(metrics, good, pictures, waves, report)
                report.items += good
            bar.update(len(chunk))
    if not report.items:
        raise UserError("nothing could be read back:\n" + "\n".join(report.left_out.values()))
    if silent:
        report.notes.append(f"silent, counted as nothing heard: {', '.join(silent[:5])}"
                            + (f" and {len(silent) - 5} more" if len(silent) > 5 else ""))
    for (name, why), unfit in report.unfit.items():
        report.notes.append(f"metrics={name}: no figure of {', '.join(unfit[:5])}"
                            + (f" and {len(unfit) - 5} more" if len(unfit) > 5 else "") + f" ({why})")
    seen = _seen(report.items, eyes, looks)
    report.seen = list(dict.fromkeys(key for row in seen for key in row if key not in SCORES))
    report.notes += _about_seen(seen)
    report.rows = [
        {"name": item.name, "image_prompt": item.image_prompt, "audio_prompt": item.audio_prompt,
         **score_sample(item.audio_prompt, row["heard"], found.get("clip"), found.get("top1"),
                        row["second_heard"], readers.speech.normaliser,
                        readers.second.normaliser if readers.second else PLAIN),
         "evaluations": (item.record or {}).get("evaluations"), "rank": found.get("rank"),
         "taken_for": found.get("taken_for"),
         **{key: found.get(key) for key in report.seen},
         **readers.names, "picture_reader": eyes[0].name if eyes else None,
         "second_picture_reader": eyes[1].name if len(eyes) > 1 else None, "source": readers.source, **more,
         "file": str(item.picture)}
        for item, row, found, more in zip(report.items, report.rows, seen, measured, strict=True)]
    return report


def _load(chunk: Sequence[Item], readers: Readers, vocoder: Any, report: Report, eyes: Sequence[PictureJudge],
          measured: bool) -> tuple[list[Item], list[Shown], list[np.ndarray]]:
    """The items of a chunk that can be read, their pictures (where they are wanted) and their waves."""
    good: list[Item] = []
    pictures: list[Shown] = []
    waves: list[np.ndarray] = []
    wanted = bool(eyes) or measured or readers.source == "picture"
    coloured = any(eye.needs_colour for eye in eyes)
    for item in chunk:
        try:
            if item.broken is not None:
                raise UserError(item.broken)
            picture = _shown(item, coloured) if wanted else None
            if readers.source == "wav":
                waves.append(_sound(item))
        except UserError as error:
            report.left_out[item.name] = str(error)
            continue
        good.append(item)
        if picture is not None:
            pictures.append(picture)
    if good and readers.source == "picture":
        vocoder = chunk[0].vocoder or vocoder
        if vocoder is None:
            raise UserError("reader.source=picture: needs a vocoder")
        waves = _played(vocoder, [picture.luminance for picture in pictures])
    return good, pictures, waves


def _played(vocoder: Any, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the sound files of pictures (256, F) hold, those of one width played together.

    Their level and their 16 bits count, too: what is read from a picture is what is read from its file.
    """
    waves: dict[int, np.ndarray] = {}
    for width in dict.fromkeys(picture.shape[1] for picture in pictures):
        alike = [index for index, picture in enumerate(pictures) if picture.shape[1] == width]
        sounds = vocoder.decode_message(np.stack([pictures[index] for index in alike])).cpu()
        waves |= {index: as_stored(wave) for index, wave in zip(alike, np.asarray(sounds), strict=True)}
    return [waves[index] for index in range(len(pictures))]


def _shown(item: Item, coloured: bool) -> Shown:
    """The picture of an item; `coloured`: as it is, and the photograph in it, besides."""
    luminance = read_picture(item.picture)
    seconds = luminance.shape[1] * MEL.hop / MEL.sample_rate
    if seconds < SHORTEST:
        raise UserError(f"{item.picture}: plays for {seconds:.2f} s (expected at least {SHORTEST} s: a "
                        "picture at least a twenty-fifth as wide as high)")
    if not coloured:
        return Shown(luminance)
    # An npy has no colours.
    colour = None if item.picture.suffix.lower() == ".npy" else read_pixels(item.picture)
    return Shown(luminance, colour, read_pixels(item.unmixed) if item.unmixed else None)


def _sound(item: Item) -> np.ndarray:
    """The sound file beside a picture."""
    if item.wave is None:
        raise UserError(f"{item.picture}: no sound file beside it (reader.source=picture plays the picture)")
    wave = read_wave(item.wave)
    if len(wave) < SHORTEST * MEL.sample_rate:
        raise UserError(f"{item.wave}: {len(wave) / MEL.sample_rate:.3f} s (expected at least {SHORTEST} s; "
                        "cut short?)")
    return wave


def _measure(metrics: Mapping[str, Metric], items: Sequence[Item], pictures: Sequence[Shown],
             waves: Sequence[np.ndarray], report: Report) -> list[dict[str, Any]]:
    """What the metrics say of each item; the keys are noted in `report`."""
    found: list[dict[str, Any]] = [{} for _ in items]
    if not metrics:
        return found
    clips = [Clip(item.name, quantise(picture.luminance), wave, item.image_prompt, item.audio_prompt,
                  item.record) for item, picture, wave in zip(items, pictures, waves, strict=True)]
    for name, metric in metrics.items():
        rows = _added(name, metric, clips, report)
        if rows is None:
            continue
        report.measured[name] = list(dict.fromkeys(
            [*report.measured.get(name, ()), *(key for row in rows for key in row)]))
        for row, more in zip(found, rows, strict=True):
            row.update(more)
    return found


def _added(name: str, metric: Metric, clips: Sequence[Clip], report: Report) -> list[Scores] | None:
    """`metric.add`, clips that do not fit it noted in `report` and left without figures; None: none fits."""
    try:
        return metric.add(clips)
    except Unfit as error:
        if len(clips) == 1:
            report.unfit.setdefault((name, str(error)), []).append(clips[0].name)
            return None
    alone = [_added(name, metric, [clip], report) for clip in clips]
    return None if all(rows is None for rows in alone) else [rows[0] if rows else {} for rows in alone]


def _seen(items: Sequence[Item], eyes: Sequence[PictureJudge],
          looks: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """What each reader of pictures says of each item.

    What the first says too, and the right picture found, are "second_…" of the second.
    """
    captions = [item.image_prompt for item in items]
    rows: list[dict[str, Any]] = [{} for _ in items]
    said: set[str] = set()
    for eye, found in zip(eyes, looks, strict=True):
        for row, more in zip(rows, eye.judge(found, captions), strict=True):
            row |= {f"second_{key}" if key in said else key: value for key, value in more.items()}
        said = {"rank", "top1", "taken_for"}.union(*rows)
    return rows


def _about_seen(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be said of the figures of what is seen, a line each."""
    notes = []
    if reason := unscored(found):
        notes.append(f"no CLIP figure for {reason['no_clip']}: it scores what it was not taught high for "
                     "nothing")
    if any(row.get("seen_clip") for row in found):
        notes.append("seen as: of the things that the painter knows, the one that CLIP finds nearest to a "
                     "picture without a prompt; one is named however little is seen")
    return notes


# --- telling and writing


SCORES = ("heard", "second_heard", "normaliser", "wer", "second_wer", "cer", "per", "words", "second_words",
          "characters", "phones", "invented", "second_invented", "insertions", "deletions", "substitutions",
          "clip", "rank", "top1", "taken_for", "joint", "speech_reader", "second_reader", "picture_reader",
          "second_picture_reader", "source")


def metric_rows(metrics: Mapping[str, Metric], report: Report, figures: Mapping[str, Interval | int],
                sets: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row a figure: its value, of how many samples, against what, with which weights and protocol."""
    rows = []
    for name, metric in metrics.items():
        keys: dict[str, Any] = {key: figures.get(key) for key in report.measured.get(name, ())}
        for key, value in {**keys, **sets[name]}.items():
            count = len(report.rows) if key in sets[name] else sum(
                row.get(key) is not None for row in report.rows)
            rows.append({"metric": key, "value": shown_figure(value), "samples": count,
                         "reference": metric.reference, "references": metric.counted(),
                         "weights": metric.weights, "protocol": metric.protocol})
    return rows


def write_scores(folder: Path, record: dict[str, Any], row: Mapping[str, Any],
                 more: Sequence[str] = ()) -> None:
    """Put the scores of `row` into the sample.json of `folder`; `more`: the keys of further metrics."""
    record["scores"] = {key: row.get(key) for key in (*SCORES, *more)}
    # The run that the sample belongs to may be read back by several evaluations, and none of them owns it.
    with alone_in(folder):
        write_json(folder / "sample.json", record)


def unscored(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{"no_clip": why} where samples have no CLIP figure because the reader was not taught their prompts."""
    reasons = list(dict.fromkeys(row["no_clip"] for row in rows if row.get("no_clip")))
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return {"no_clip": "; ".join(reasons[:3]) + more} if reasons else {}


def plain_totals(figures: Mapping[str, Interval | int]) -> dict[str, Any]:
    """Totals as numbers: `wer` and so on, and `wer_interval` [low, high] where there is one."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Interval):
            found[name] = value.value
            if value.low is not None:
                found[f"{name}_interval"] = [value.low, value.high]
        else:
            found[name] = value
    return found


def tell(report: Report) -> None:
    """Print notes, and each file that was left out."""
    for note in report.notes:
        print(note)
    if report.left_out:
        print(f"left out, {len(report.left_out)} of {len(report.left_out) + len(report.rows)}:")
        for error in report.left_out.values():
            print(f"  {error}")


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """At most `size` items in a row that one vocoder plays."""
    for _, group in groupby(items, lambda item: id(item.vocoder)):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start:start + size]
