"""Build a speech corpus: word list → prompts → speech → 10.24 s clips → mel pictures → one manifest.

    python -m images_that_speak.data data.root=data/pocket_speech

A clip is finished when its record is written, which happens last; every file is renamed into place. So a
build that is killed goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from ..errors import UserError
from ..files import atomic_path, atomic_write, content_hash, read_json, write_json
from ..resources import words as word_list
from ..speech.backends import load_tts
from ..speech.tts import TTS
from . import clips
from .manifest import Corpus, write_manifest
from .phrases import Prompt, dictionary_words, draw_prompts, held_out_phrases

log = logging.getLogger(__name__)

MANIFEST_EVERY = 500  # clips between two writings of the manifest, so that training can begin early
SAY_EVERY = 30.0  # seconds between two lines of progress when there is no terminal


@dataclass(frozen=True)
class BadClip:
    """A clip that failed, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class CorpusSummary:
    """What a build did. `clips`: in the manifest; `built`: made now; `kept`: found finished from before."""

    root: Path
    clips: int
    built: int
    kept: int
    hours: float  # of speech, pauses between clips not counted
    seconds: float  # the build took
    splits: dict[str, int] = field(default_factory=dict)
    left_out: list[BadClip] = field(default_factory=list)
    bad: list[BadClip] = field(default_factory=list)

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        return (f"{self.root}: {self.clips} clips ({splits}), {self.hours:.2f} h of speech; "
                f"{self.built} built, {self.kept} found finished, {len(self.left_out)} phrases left out, "
                f"{len(self.bad)} bad, {self.seconds:.0f} s"
                + (f"; what, and why: {self.root / 'bad.csv'}" if self.left_out or self.bad else ""))


# The worker's own state: one synthesiser and one mel transform a process.
_worker: dict[str, Any] = {}


def _start_worker(tts: TTS, root: Path, samples: int, rate: int) -> None:
    # A killed parent cannot stop its workers: each watches for its end.
    parent = multiprocessing.parent_process()
    if parent is not None:
        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    _worker.update(tts=tts, root=root, samples=samples, rate=rate, picturer=clips.Picturer())


def _make(job: tuple[Prompt, str]) -> dict[str, Any]:
    return clips.make_clip(_worker["root"], job[0], job[1], _worker["tts"], _worker["picturer"],
                           _worker["samples"], _worker["rate"])


def _check(job: tuple[dict[str, Any], bool]) -> BadClip:
    row, recompute = job
    picturer = _worker["picturer"] if recompute else None
    return BadClip(row["id"], clips.check_clip(_worker["root"], row, _worker["samples"], picturer))


@contextmanager
def _pool(workers: int, tts: TTS | None, root: Path) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over worker processes, results in order; with one worker, in this process."""
    from ..audio.mel import MEL

    setup: tuple[Any, ...] = (tts, root, MEL.samples, MEL.sample_rate)
    if workers == 1:
        _start_worker(*setup)
        yield map
        return
    # spawn: a forked torch may hang on locks that another thread of the parent held.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, setup)
    try:
        yield lambda function, jobs: pool.map(function, jobs, chunksize=4)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _progress(results: Iterator[Any], total: int, what: str) -> Iterator[Any]:
    """Pass `results` on, showing count, rate and time left: a bar on a terminal, else a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    begun = said = time.monotonic()
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TextColumn("{task.fields[rate]:.1f} clips/s"), TimeRemainingColumn(),
                  disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total, rate=0.0)
        for done, result in enumerate(results, 1):
            now = time.monotonic()
            rate = done / max(now - begun, 1e-6)
            bar.update(task, completed=done, rate=rate)
            if bar.disable and now - said > SAY_EVERY:
                log.info("%s: %d of %d, %.1f clips/s, %.0f s left",
                         what, done, total, rate, (total - done) / rate)
                said = now
            yield result


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the corpus, so that two builds never write it at once; a killed holder lets go by itself."""
    with open(root / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"data.root={root}: another build is writing this corpus") from error
        yield


def _claim(root: Path, recipe: dict[str, Any]) -> None:
    """Write the recipe into a new corpus; refuse a folder that was begun with another one."""
    path = root / "recipe.json"
    if path.exists():
        before = read_json(path)
        differs = [f"{key}={recipe[key]!r} (was {before.get(key)!r})" for key in recipe
                   if before.get(key) != recipe[key]]
        if differs:
            raise UserError(f"data.root={root}: holds a corpus built otherwise: {'; '.join(differs)}. "
                            "Give another data.root, or delete that folder")
    else:
        write_json(path, recipe)


def _row(record: Mapping[str, Any], prompt: Prompt, tts: TTS, mel_hash: str, root: Path) -> dict[str, Any]:
    where = clips.paths(root, record["id"])
    return {**record, "tts": tts.name, "tts_version": tts.version, "mel_spec": mel_hash,
            "split": prompt.split, "spectrogram": where["spectrogram"].relative_to(root).as_posix(),
            "wave": where["wave"].relative_to(root).as_posix()}


def build_corpus(root: str | Path, words: str | Path | Sequence[str] = "pocket_words.txt",
                 prompts: int = 4500, words_per_prompt: Sequence[int] = (3, 16),
                 voices: Mapping[str, float] | Sequence[str] = ("slt",), tts: TTS | str = "flite",
                 seed: int = 0, workers: int = 0, extra_words: int = 0, closed_fraction: float = 0.6,
                 splits: Mapping[str, float] | None = None, held_out: str | Sequence[str] = (),
                 verify: int = 200) -> CorpusSummary:
    """Build, or go on building, the corpus in `root`, then verify it.

    words: a word list's path or the words; prompts: how many phrases to draw; words_per_prompt: [least,
    most]; voices: weight of each voice, or a list of voices, where a voice named more often speaks more;
    workers: processes, 0 for one a core; extra_words: words of the CMU dictionary mixed in, so that about
    `closed_fraction` of all words are of the list; held_out: prompt files whose phrases must not be heard in
    training; verify: pictures recomputed from their waves afterwards.

    A phrase that does not fit the picture at natural speed is left out and reported, never cut. Raises
    UserError on a bad argument, a missing synthesiser, or a folder that holds a corpus of another recipe.
    """
    from ..audio.mel import MEL

    begun = time.monotonic()
    tts = load_tts(tts) if isinstance(tts, str) else tts
    if not isinstance(voices, Mapping):
        voices = {voice: voices.count(voice) / len(voices) for voice in voices}
    voices = {voice: weight for voice, weight in voices.items() if weight != 0}
    for voice in voices:
        try:
            tts.check_voice(voice)
        except UserError as error:
            raise UserError(f"data.voices: {error}") from error
    closed = word_list(words) if isinstance(words, (str, Path)) else list(words)
    fractions = {"valid": 0.02, "test": 0.02} if splits is None else dict(splits)
    held = held_out_phrases(held_out)
    extra = dictionary_words(extra_words, seed, closed)
    plan = draw_prompts(closed, prompts, words_per_prompt, voices, seed, extra, closed_fraction, fractions,
                        held)
    recipe = {"words": content_hash(sorted(closed)), "words_per_prompt": [int(n) for n in words_per_prompt],
              "voices": voices, "tts": tts.name, "tts_version": tts.version, "mel_spec": MEL.hash,
              "seed": seed, "extra_words": extra_words, "closed_fraction": closed_fraction,
              "splits": fractions}
    return build_plan(root, plan, tts, recipe, closed, workers, verify, begun)


def build_plan(root: str | Path, plan: Sequence[Prompt], tts: TTS, recipe: dict[str, Any],
               closed: Sequence[str] = (), workers: int = 0, verify: int = 200, begun: float | None = None,
               unsaid: Sequence[BadClip] = ()) -> CorpusSummary:
    """Make the clips of `plan` that are not there yet, write the manifest, and verify the corpus.

    recipe: what the corpus is made of; a folder begun with another one is refused. closed: the word list, for
    the data card. unsaid: what was left out of the plan, and why. The rest as in `build_corpus`.
    """
    from ..audio.mel import MEL

    begun = time.monotonic() if begun is None else begun
    root = Path(root)
    if workers < 0:
        raise UserError(f"data.workers={workers}: expected 0 (one a core) or more")
    try:
        for folder in ("clips", "spectrograms", "wav"):
            (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.root={root}: cannot be written ({error.strerror})") from error
    with _locked(root):
        _claim(root, recipe)
        for folder in ("clips", "spectrograms", "wav", "."):  # what a killed build had half written
            for path in (root / folder).glob(".*.tmp*"):
                path.unlink(missing_ok=True)
        jobs = [(prompt, clips.clip_id(prompt, tts, MEL.hash)) for prompt in plan]
        records = {clip: clips.read_record(root, clip) for _, clip in jobs}
        todo = [job for job in jobs if records[job[1]] is None]
        count = min(workers or os.cpu_count() or 1, max(len(todo), 1))

        def manifest() -> list[dict[str, Any]]:
            rows = [_row(record, prompt, tts, MEL.hash, root) for prompt, clip in jobs
                    if (record := records[clip]) and not {"left_out", "failed"} & set(record)]
            write_manifest(root / "manifest.parquet", rows)
            return rows

        if todo:
            with _pool(count, tts, root) as run:
                for done, record in enumerate(_progress(run(_make, todo), len(todo), "Building"), 1):
                    records[record["id"]] = record
                    if done % MANIFEST_EVERY == 0:
                        manifest()
        rows = manifest()
        found = [record for record in records.values() if record]
        left_out = [*unsaid, *(BadClip(r["id"], f"{r['left_out']}: {r['text']}") for r in found
                               if "left_out" in r)]
        failed = [BadClip(r["id"], f"{r['failed']}: {r['text']}") for r in found if "failed" in r]
        table = pandas.DataFrame(rows, columns=["split", "voice", "seconds", "text", "symbols"])
        made = sum(not {"left_out", "failed"} & set(records[clip] or ()) for _, clip in todo)
        atomic_write(root / "data_card.md", _data_card(table, recipe, closed, left_out, failed))
    bad = failed + verify_corpus(root, recompute=verify, workers=workers, also=left_out + failed)
    if not rows:
        first = next(iter([*failed, *left_out]), BadClip("", "nothing was asked for"))
        raise UserError(f"data.root={root}: no clip could be built; {len(left_out)} left out, {len(failed)} "
                        f"failed. The first: {first.reason} (all of them: {root / 'bad.csv'})")
    return CorpusSummary(root, len(rows), made, len(rows) - made, float(table["seconds"].sum()) / 3600,
                         time.monotonic() - begun, table["split"].value_counts().to_dict(), left_out, bad)


def verify_corpus(root: str | Path, recompute: int | None = None, workers: int = 0,
                  also: Sequence[BadClip] = ()) -> list[BadClip]:
    """Check every clip of a corpus; list the bad ones, also in `bad.csv`.

    Every clip's files are opened and checked (missing, truncated, silent, wrong length, phones out of
    order); the pictures of `recompute` of them, spread evenly (None: all), are computed again from the wave.
    also: clips known to be bad or left out, written into `bad.csv` with the others.
    """
    root = Path(root)
    corpus = Corpus.open(root)
    rows = corpus.table.to_dict("records")
    bad = [BadClip(clip, "more than one row in the manifest")
           for clip in corpus.table["id"][corpus.table["id"].duplicated()].unique()]
    chosen = len(rows) if recompute is None else min(recompute, len(rows))
    again = {round(i * len(rows) / chosen) for i in range(chosen)} if chosen else set()
    count = min(workers or os.cpu_count() or 1, max(len(rows) // 50, 1))
    with _pool(count, None, root) as run:
        results = run(_check, [(row, i in again) for i, row in enumerate(rows)])
        bad += [result for result in _progress(results, len(rows), "Verifying") if result.reason]
    table = pandas.DataFrame([(clip.id, clip.reason) for clip in [*also, *bad]], columns=["id", "reason"])
    with atomic_path(root / "bad.csv") as temporary:
        table.to_csv(temporary, index=False)
    return bad


def _data_card(table: pandas.DataFrame, recipe: Mapping[str, Any], closed: Sequence[str],
               left_out: Sequence[BadClip], failed: Sequence[BadClip]) -> str:
    """What the corpus is, for whoever opens the folder."""
    lengths = table["text"].str.split().str.len()
    spoken = table["text"].str.split().explode()
    made = (f"Phrases of random words spoken by {recipe['tts']} {recipe['tts_version']}" if closed else
            f"Recordings of {recipe['tts']}, phones found by {recipe['tts_version']},")
    lines = ["# Speech corpus", "",
             f"{made} at natural speed, each at a random place in 10.24 s of 16 kHz sound, with the "
             "256 × 1024 log-mel picture and the times of its phones.",
             "", "| | |", "|---|---|",
             f"| clips | {len(table)} |", f"| hours of speech | {table['seconds'].sum() / 3600:.2f} |"]
    for column in ("split", "voice"):
        counts = ", ".join(f"{name} {count}" for name, count in table[column].value_counts().items())
        lines.append(f"| {column}s | {counts} |")
    if len(table):
        lines.append(f"| words a phrase | {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f} |")
    share = (f", of the list of {len(closed)}: {100 * spoken.isin(set(closed)).mean():.0f} % of all words"
             if closed else "")
    lines += [f"| different words | {spoken.nunique()}{share} |",
              f"| phrases left out (too long for the picture) | {len(left_out)} |",
              f"| phrases not spoken | {len(failed)} |", "", "Recipe:", "",
              *(f"- {key}: {value}" for key, value in recipe.items()), "",
              "Splits are by phrase. Words of the list appear in every split; phrases do not. "
              "`manifest.parquet` has a row for each clip; `spectrograms/` holds uint8 pictures (low "
              "frequency at the bottom), `wav/` 16-bit flac, `clips/` one record a clip, `bad.csv` what was "
              "left out or failed verification.", ""]
    return "\n".join(lines)
