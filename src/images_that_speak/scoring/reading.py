"""Reading pictures back: each is played and heard, seen, and measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from tqdm import tqdm

from ..audio.mel import MEL
from ..audio.picture import quantise, read_picture, read_pixels
from ..audio.wave import as_stored, read_wave
from ..errors import UserError, few
from .heard import SILENT
from .items import Item
from .judges import Readers, says_one_word
from .metric import Clip, Metric, Scores, Unfit
from .seen import PictureJudge, Shown
from .statistics import score_sample
from .text import PLAIN

SHORTEST = 0.1  # seconds; no word is shorter
CHUNK = 8  # samples decoded at once: bounds the memory, not the result
SCORES = ("heard", "second_heard", "normaliser", "wer", "second_wer", "cer", "per", "words", "second_words",
          "characters", "phones", "invented", "second_invented", "insertions", "deletions", "substitutions",
          "clip", "rank", "top1", "taken_for", "joint", "speech_reader", "second_reader", "picture_reader",
          "second_picture_reader", "source")


@dataclass
class Report:
    """`rows`: a dict for each sample that was read; `items`: what each row is of. `left_out`: {name: why}.

    `measured`: the keys that metrics beside WER and CLIP have in the rows, by the metric's name; `sets`: what
    these say of all; `seen`: the keys of readers of pictures beside `SCORES`. `notes`: for the user. `unfit`:
    what a metric could not measure, {(its name, why): names}.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    measured: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unfit: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def own(self) -> list[str]:
        """The keys of metrics in the rows."""
        return [key for keys in self.measured.values() for key in keys]

    def tell(self) -> None:
        """Print notes, and each file that was left out."""
        for note in self.notes:
            print(note)
        if self.left_out:
            print(f"left out, {len(self.left_out)} of {len(self.left_out) + len(self.rows)}:")
            for error in self.left_out.values():
                print(f"  {error}")


def read_items(items: Sequence[Item], readers: Readers, vocoder: Any = None,
               metrics: Mapping[str, Metric] | None = None, name_seen: bool = False) -> Report:
    """Read every item, and put the scores of those that are samples into their records.

    Those that cannot be read are left out by name. Raises UserError when none can.

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
        report.notes.append(f"silent, counted as nothing heard: {few(silent)}")
    report.notes += [f"metrics={name}: no figure of {few(unfit)} ({why})"
                     for (name, why), unfit in report.unfit.items()]
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
    report.sets = {name: metrics[name].total() for name in report.measured}
    for item, row in zip(report.items, report.rows, strict=True):
        if (sample := item.sample) is not None:
            sample.score({key: row.get(key) for key in (*SCORES, *report.seen, *report.own)})
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


def unscored(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{"no_clip": why} where samples have no CLIP figure because the reader was not taught their prompts."""
    reasons = list(dict.fromkeys(row["no_clip"] for row in rows if row.get("no_clip")))
    return {"no_clip": few(reasons, 3, "; ")} if reasons else {}


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """At most `size` items in a row that one vocoder plays."""
    for _, group in groupby(items, lambda item: id(item.vocoder)):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start:start + size]
