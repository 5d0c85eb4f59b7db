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
from ..audio.picture import is_copy, quantise, read_picture
from ..audio.wave import as_stored, read_wave
from ..config import instantiate
from ..errors import UserError
from ..files import alone_in, names_apart, read_json, write_json
from ..kept import kept, stamp
from ..prompts import Pair, read_pairs
from ..runs import as_made, open_run
from .heard import SILENT, SpeechReader
from .metric import Clip, Metric
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

SOURCES = ("picture", "wav")
CHUNK = 8  # samples decoded at once: bounds the memory, not the result


@dataclass(frozen=True)
class Item:
    """One picture to read back. `record` is its sample.json, where it has one.

    vocoder: what plays it; None leaves it to whoever reads.
    """

    name: str
    picture: Path
    wave: Path | None = None
    image_prompt: str | None = None
    audio_prompt: str | None = None
    record: dict[str, Any] | None = None
    folder: Path | None = None
    vocoder: Any = None

    @property
    def run(self) -> Path | None:
        """The run folder whose sample it is."""
        run = self.folder.parent.parent if self.folder is not None else None
        return run if run is not None and (run / "run.json").is_file() else None


@dataclass(frozen=True)
class Readers:
    """`speech` hears, `picture` sees (None: nobody looks). `source`: what is heard, "picture" or "wav".

    `second`: another judge of speech, whose WER is told beside the first one's and enters no other figure.
    """

    speech: SpeechReader
    picture: Any = None
    source: str = "picture"
    second: SpeechReader | None = None

    def named(self, columns: Mapping[str, str]) -> dict[str, str]:
        """`columns` of a table, with the judges' names where there are two."""
        if self.second is None:
            return dict(columns)
        first, second = self.speech.name, self.second.name
        names = {"heard": f"heard ({first})", "second_heard": f"heard ({second})", "wer": f"WER ({first})",
                 "second_wer": f"WER ({second})"}
        return {key: names.get(key, heading) for key, heading in columns.items()}


@dataclass
class Report:
    """`rows`: a dict for each sample that was read; `items`: what each row is of. `left_out`: {name: why}.

    `measured`: the keys that metrics beside WER and CLIP have in the rows, by the metric's name. `notes`: for
    the user.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    measured: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
        readers = load_readers(cfg.reader, cfg.device)
        configs = made_by(cfg, items)
        if readers.source == "picture":
            items = with_vocoders(items, configs)
        report = read_items(items, readers, metrics=metrics)
        own = [key for keys in report.measured.values() for key in keys]
        figures = totals(report.rows, int(cfg.bootstrap), int(cfg.seed), own)
        sets = {name: metric.total() for name, metric in metrics.items()}
        for row, item in zip(report.rows, report.items, strict=True):
            if item.record is not None and item.folder is not None:
                write_scores(item.folder, item.record, row, own)
        # Before the tables: logger=csv has a samples.csv too, of which the evaluation's own takes the place.
        run.log_samples(item.folder for item in items if item.record is not None and item.folder is not None)
        lines = [total_row(Path(cfg.run or cfg.pictures).name, figures)]
        lines += stored_rows(list(configs.values()))
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
        return run.finish({**plain_totals(figures),
                           **{key: value for found in sets.values() for key, value in found.items()},
                           **({"metrics": told} if metrics else {}), "speech_reader": readers.speech.name,
                           "second_reader": getattr(readers.second, "name", None),
                           "picture_reader": getattr(readers.picture, "name", None), "source": readers.source,
                           "left_out": [{"file": file, "error": error}
                                        for file, error in report.left_out.items()]})


def read_back(folders: Sequence[str | Path], reader: Any, vocoder: Any = None, device: str = "cpu",
              resamplings: int = 1000, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Read sample folders back, write the scores into each sample.json, and return the totals.

    Args:
        folders: sample folders, each with image.png, speech.wav and sample.json.
        reader: the configuration section `reader`, or `Readers`. When the picture reader cannot be loaded, a
            note says so and nothing is said of what is seen.
        vocoder: plays the pictures; None reads speech.wav, which generate.py decodes from the 8-bit picture.

    Returns `plain_totals`. Raises UserError when no folder can be read.
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
    if vocoder is None:
        readers = replace(readers, source="wav")
    report = read_items(items, readers, vocoder)
    report.notes += notes
    if not quiet:
        tell(report)
    for row, item in zip(report.rows, report.items, strict=True):
        assert item.record is not None and item.folder is not None
        write_scores(item.folder, item.record, row)
    return plain_totals(totals(report.rows, resamplings, seed))


# --- what there is to read


def find_run(run: str | Path) -> list[Item]:
    """The samples of a run folder. Raises UserError when it holds none."""
    folders = sorted(path.parent for path in (Path(run) / "samples").glob("*/sample.json"))
    if not folders:
        raise UserError(f"run={run}: holds no sample (expected samples/<id>/sample.json, as generate.py "
                        "writes)")
    return [_sample_item(folder) for folder in folders]


def _sample_item(folder: Path) -> Item:
    record = read_json(folder / "sample.json")
    if not isinstance(record, dict):
        raise UserError(f"{folder / 'sample.json'}: expected a JSON object")
    return Item(folder.name, folder / "image.png", folder / "speech.wav", record.get("image_prompt"),
                record.get("audio_prompt"), record, folder)


def _named_apart(items: Sequence[Item]) -> list[Item]:
    """`items`, the samples of several runs among them told apart by their folders."""
    folders = [item.folder for item in items if item.folder is not None]
    names = dict(zip(folders, names_apart(folders), strict=True))
    return [item if item.folder is None else replace(item, name=names[item.folder]) for item in items]


def find_pictures(pictures: str | Path, prompts: str | Path | None = None) -> list[Item]:
    """The pictures of a folder and its subfolders: png and npy, one a sample.

    Of files that differ only in their ending or in `_img` and `_spec` (the published layout writes
    `x_img.png`, `x_spec.png`, `x.npy` and `x.wav`), one is read: the gray png, else the npy. Prompts come
    from the csv `prompts` (columns file, image_prompt, audio_prompt; `file` with or without ending, and
    without its folder where it stands for all pictures of that name), else from the sample.json beside a
    picture, else there are none. Raises UserError when the folder holds no picture, or when the csv names a
    file that is not there.
    """
    root = Path(pictures)
    by_stem: dict[Path, Path] = {}
    for path in sorted(root.rglob("*")):
        stem = path.stem.removesuffix("_img")
        if path.suffix.lower() not in (".png", ".npy") or path.name.startswith(".") or is_copy(path):
            continue
        key = path.with_name(stem)
        # png before npy: the 8-bit file is what is seen.
        if key not in by_stem or path.suffix.lower() == ".png":
            by_stem[key] = path
    if not by_stem:
        raise UserError(f"pictures={root}: holds no picture (expected 256x1024 png or npy files)")
    items = []
    for key, path in by_stem.items():
        if path.name == "image.png" and (path.parent / "sample.json").exists():
            item = _sample_item(path.parent)
        else:
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
        if hasattr(reader, "forget"):
            reader.forget()
        return reader

    second = section.get("second") or {}
    return Readers(build(section["speech"]), build(section.get("picture")) if see else None, source,
                   build(second.get("speech")))


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


def read_items(items: Sequence[Item], readers: Readers, vocoder: Any = None,
               metrics: Mapping[str, Metric] | None = None) -> Report:
    """Read every item; those that cannot be read are left out by name. Raises UserError when none can.

    vocoder: plays the items that have none of their own. metrics: by name; each measures every item that was
    read.

    A sample that is silent counts, as one in which no word was heard: leaving it out would flatter the rest.
    """
    report = Report()
    added: dict[str, None] = {}
    for judge in (readers.speech, readers.second):
        extend = getattr(judge, "extend", None)
        if extend is not None:
            added |= dict.fromkeys(extend(item.audio_prompt for item in items if item.audio_prompt))
    if added:
        report.notes.append("not in the closed vocabulary, listened for besides: " + ", ".join(added))
    embedded: list[Any] = []
    silent = []
    look = readers.picture is not None and any(item.image_prompt for item in items)
    metrics = metrics or {}
    measured: list[dict[str, Any]] = []
    with tqdm(total=len(items), unit="picture", desc="reading back", leave=False) as bar:
        for chunk in _chunks(items, CHUNK):
            good, pictures, waves = _load(chunk, readers, vocoder, report, look or bool(metrics))
            if good:
                again = readers.second.read_many(waves) if readers.second else [None] * len(waves)
                for item, wave, heard, other in zip(good, waves, readers.speech.read_many(waves), again,
                                                    strict=True):
                    if float(np.abs(wave).max()) < SILENT:
                        silent.append(item.name)
                    report.rows.append({"name": item.name, "heard": heard.text,
                                        "second_heard": other and other.text})
                if look:
                    embedded.append(readers.picture.embed_pictures(np.stack(pictures)))
                if metrics and readers.source == "picture":
                    # They compare with files: what these round to 16 bits must be rounded here.
                    waves = [as_stored(wave) for wave in waves]
                measured += _measure(metrics, good, pictures, waves, report)
                report.items += good
            bar.update(len(chunk))
    if not report.items:
        raise UserError("nothing could be read back:\n" + "\n".join(report.left_out.values()))
    if silent:
        report.notes.append(f"silent, counted as nothing heard: {', '.join(silent[:5])}"
                            + (f" and {len(silent) - 5} more" if len(silent) > 5 else ""))
    seen = _seen(report.items, embedded, readers.picture) if look else [{}] * len(report.items)
    report.rows = [
        {"name": item.name, "image_prompt": item.image_prompt, "audio_prompt": item.audio_prompt,
         **score_sample(item.audio_prompt, row["heard"], found.get("clip"), found.get("top1"),
                        row["second_heard"]),
         "evaluations": (item.record or {}).get("evaluations"), "rank": found.get("rank"),
         "taken_for": found.get("taken_for"), "speech_reader": readers.speech.name,
         "second_reader": getattr(readers.second, "name", None),
         "picture_reader": readers.picture.name if look else None, "source": readers.source, **more,
         "file": str(item.picture)}
        for item, row, found, more in zip(report.items, report.rows, seen, measured, strict=True)]
    return report


def _load(chunk: Sequence[Item], readers: Readers, vocoder: Any, report: Report,
          look: bool) -> tuple[list[Item], list[np.ndarray], list[np.ndarray]]:
    """The items of a chunk that can be read, their 8-bit pictures and their waves."""
    good: list[Item] = []
    pictures: list[np.ndarray] = []
    waves: list[np.ndarray] = []
    for item in chunk:
        try:
            if look or readers.source == "picture":
                picture = quantise(read_picture(item.picture))
            if readers.source == "wav":
                if item.wave is None:
                    raise UserError(f"{item.picture}: no sound file beside it (reader.source=picture plays "
                                    "the picture)")
                wave = read_wave(item.wave)
                if len(wave) != MEL.samples:
                    raise UserError(f"{item.wave}: {len(wave) / MEL.sample_rate:.2f} s (expected "
                                    f"{MEL.seconds} s; cut short?)")
                waves.append(wave)
        except UserError as error:
            report.left_out[item.name] = str(error)
            continue
        good.append(item)
        if look or readers.source == "picture":
            pictures.append(picture)
    if good and readers.source == "picture":
        vocoder = chunk[0].vocoder or vocoder
        if vocoder is None:
            raise UserError("reader.source=picture: needs a vocoder")
        waves = list(np.asarray(vocoder.decode_picture(np.stack(pictures)).cpu(), np.float32))
    return good, pictures, waves


def _measure(metrics: Mapping[str, Metric], items: Sequence[Item], pictures: Sequence[np.ndarray],
             waves: Sequence[np.ndarray], report: Report) -> list[dict[str, Any]]:
    """What the metrics say of each item; the keys are noted in `report`."""
    found: list[dict[str, Any]] = [{} for _ in items]
    if not metrics:
        return found
    clips = [Clip(item.name, picture, wave, item.image_prompt, item.audio_prompt, item.record)
             for item, picture, wave in zip(items, pictures, waves, strict=True)]
    for name, metric in metrics.items():
        rows = metric.add(clips)
        report.measured[name] = list(dict.fromkeys(
            [*report.measured.get(name, ()), *(key for row in rows for key in row)]))
        for row, more in zip(found, rows, strict=True):
            row.update(more)
    return found


def _seen(items: Sequence[Item], embedded: Sequence[Any], reader: Any) -> list[dict[str, Any]]:
    """CLIP score, rank of the right prompt among all different ones, and the prompt a picture is taken for.

    With a single image prompt there is nothing to confuse it with, so only the CLIP score is given.
    """
    import torch

    choices = list(dict.fromkeys(item.image_prompt for item in items if item.image_prompt))
    if not choices:
        return [{}] * len(items)
    table = 100 * torch.cat(list(embedded)) @ reader.embed_texts(choices).T
    found: list[dict[str, Any]] = []
    for item, scores in zip(items, table, strict=True):
        if not item.image_prompt:
            found.append({})
            continue
        own = scores[choices.index(item.image_prompt)]
        row: dict[str, Any] = {"clip": round(float(own), 4)}
        if len(choices) > 1:
            rank = int((scores >= own).sum())  # a tie counts against it
            row |= {"rank": rank, "top1": rank == 1, "taken_for": choices[int(scores.argmax())]}
        found.append(row)
    return found


# --- telling and writing


SCORES = ("heard", "second_heard", "wer", "second_wer", "cer", "per", "words", "characters", "phones",
          "insertions", "deletions", "substitutions", "clip", "rank", "top1", "taken_for", "joint",
          "speech_reader", "second_reader", "picture_reader", "source")


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
