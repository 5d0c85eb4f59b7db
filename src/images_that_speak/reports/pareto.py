"""The Pareto page: WER against CLIP over a sweep, the front, and the samples behind every point."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import defaults
from ..errors import UserError
from ..figures import FIGURES
from ..scoring.statistics import resampling_weights
from .chart import LETTERS, Frame, number, spread
from .differences import totals_of
from .folders import RunFolder, chosen, short_names, told, varied
from .front import Point, front, hypervolume, on_front
from .gallery import SCRIPTS, controls, head
from .page import render, sample_data, setting, write_page

WER, CLIP = FIGURES["wer"], FIGURES["clip"]


@dataclass(frozen=True)
class Standing:
    """A run in the plane. `share`: of the resamplings, those that have it on the front; None: not known.

    prompts: the number of its set of prompts among those of the page, from 0. A front is of one set: WER and
    CLIP of other prompts say nothing of settings.
    """

    run: RunFolder
    wer: float
    clip: float
    wer_interval: tuple[float, float] | None
    clip_interval: tuple[float, float] | None
    front: bool = False
    share: float | None = None
    prompts: int = 0

    @property
    def point(self) -> Point:
        return self.wer, self.clip

    @property
    def method(self) -> str:
        """What joined the branches: the composition, or the method where that is not the usual one."""
        usual = ("", str(defaults("generate").method["_target_"]))
        method, composition = (str(self.run.config.get(f"{group}._target_") or "")
                               for group in ("method", "composition"))
        return str(told("._target_", composition if method in usual else method))


def methods(placed: Sequence[Standing]) -> dict[str, str]:
    """{method: its letter} in the order of the runs; none where all are alike or there are too many."""
    names = dict.fromkeys(standing.method for standing in placed)
    return dict(zip(names, LETTERS, strict=False)) if 1 < len(names) <= len(LETTERS) else {}


def standings(runs: Sequence[RunFolder]) -> tuple[list[Standing], dict[str, str]]:
    """The runs that can be placed, and {name: why} of those that cannot.

    A run is placed by the totals in its result.json. An evaluation takes the place of the run that it read,
    and of several the last. Only runs that were read by the same readers are placed: others do not compare.
    A run is on the front when none of the same prompts is better in both. Raises UserError when none can.
    """
    left_out: dict[str, str] = {}
    placed: dict[Path, RunFolder] = {}
    for run in sorted(runs, key=lambda run: (run.reads, str(run.info.get("updated")))):
        figures = run.result or {}
        if run.result is None:
            left_out[run.name] = f"{run.status}: {run.info.get('error') or 'no result.json yet'}"
        elif not all(isinstance(figures.get(key), (int, float)) for key in ("wer", "clip")):
            left_out[run.name] = "its result.json has no WER or no CLIP"
        else:
            placed[run.subject] = run
    readers: dict[tuple[str, ...], list[RunFolder]] = {}
    for run in placed.values():
        readers.setdefault(run.readers, []).append(run)
    if not readers:
        reasons = "\n".join(f"{name}: {why}" for name, why in left_out.items())
        raise UserError(f"no run can be placed by WER and CLIP:\n{reasons}")
    most = max(readers, key=lambda key: len(readers[key]))
    for key, others in readers.items():
        if key != most:
            why = f"read by {' and '.join(key)}, the others by {' and '.join(most)}: not comparable"
            left_out |= {run.name: why for run in others}
    kept = [run for run in runs if any(run is other for other in readers[most])]
    points = [(float(run.result["wer"]), float(run.result["clip"])) for run in kept if run.result]
    found: list[Standing | None] = [None] * len(kept)
    for prompts, members in enumerate(_by_prompts(kept)):
        best = {members[index] for index in front([points[index] for index in members])}
        shares = front_shares([kept[index] for index in members])
        for place, index in enumerate(members):
            run = kept[index]
            found[index] = Standing(run, *points[index], _interval(run, "wer"), _interval(run, "clip"),
                                    index in best, None if shares is None else float(shares[place]), prompts)
    return [standing for standing in found if standing is not None], left_out


def _by_prompts(runs: Sequence[RunFolder]) -> list[list[int]]:
    """The places of the runs of each set of pairs of prompts; how many samples a pair has does not matter."""
    groups: dict[frozenset[tuple[str | None, str | None]], list[int]] = {}
    for index, run in enumerate(runs):
        pairs = frozenset((sample.image_prompt, sample.audio_prompt) for sample in run.samples)
        groups.setdefault(pairs, []).append(index)
    return list(groups.values())


def several_prompts(placed: Sequence[Standing]) -> str | None:
    """What is to be said where the runs are of several sets of prompts, or None."""
    sets = 1 + max(standing.prompts for standing in placed)
    if sets == 1:
        return None
    return (f"these runs are of {sets} different sets of prompts: WER and CLIP compare within a set only, so "
            "each set has a front of its own, and there is no hypervolume of them all")


def front_shares(runs: Sequence[RunFolder], resamplings: int = 1000, seed: int = 0) -> np.ndarray | None:
    """(N,) in how many of the bootstrap resamplings of the prompts each of N runs is on the front.

    All runs are resampled alike. None where it cannot be said: the runs do not share all their samples, the
    samples were read anew since, or there is but one pair of prompts.
    """
    table = [{sample.id: sample for sample in run.samples} for run in runs]
    ids = list(table[0])
    if len(runs) < 2 or any(set(samples) != set(ids) for samples in table):
        return None
    scores = [[samples[name].scores for name in ids] for samples in table]
    if any(one.get(key) is None for row in scores for one in row for key in ("wer", "words", "clip")):
        return None
    for run in runs:
        for metric in (WER, CLIP):
            total = totals_of(run.samples, metric, 0)
            if run.result is None or total is None or abs(total.value - run.result[metric.key]) > 1e-3:
                return None
    first = [table[0][name] for name in ids]
    weights = resampling_weights([sample.image_prompt for sample in first],
                                 [sample.audio_prompt for sample in first], resamplings, seed)
    if weights is None:
        return None
    words = np.array([[one["words"] for one in row] for row in scores], float)  # (runs, samples)
    errors = words * [[one["wer"] for one in row] for row in scores]
    clip = np.array([[one["clip"] for one in row] for row in scores], float)
    filled = weights.sum(1) > 0
    weights = weights[filled]
    wer = weights @ errors.T / (weights @ words.T)  # (resamplings, runs)
    seen = weights @ clip.T / weights.sum(1, keepdims=True)
    return on_front(wer, seen).mean(0)


def write_pareto(runs: Sequence[RunFolder], path: Path, title: str, reference: Point = (1.0, 0.0),
                 embed: bool = False, command: str = "") -> None:
    """Write the page to `path`. Raises UserError when no run has both figures."""
    placed, left_out = standings(runs)
    kept = [standing.run for standing in placed]
    data = sample_data(kept, path, embed)
    different = {key: [told(key, value) for value in values] for key, values in varied(kept).items()}
    letters = methods(placed)
    keys = [key for key in chosen(kept, different) if not (letters and key.endswith("._target_"))]
    names = short_names(keys)
    note = several_prompts(placed)
    if note is not None:
        print(f"note: {note}")
    settings = own_settings(placed, keys, names, different, letters)
    text = f"<b>{len(placed)}</b> runs, <b>{sum(s.front for s in placed)}</b> of them on the front"
    if note is None:
        area = hypervolume([standing.point for standing in placed], reference)
        text += (f" · hypervolume <b>{number(area)}</b> (WER × CLIP, from WER {number(100 * reference[0])} % "
                 f"and CLIP {number(reference[1])})")
    warned = "" if note is None else f'<p class="warning" role="note"><b>Not one front:</b> {note}.</p>\n'
    body = (head("Pareto page", title, text) + warned + _legend(placed, letters, reference)
            + '<div class="plane">' + chart(placed, settings, letters)
            + '<aside id="point" aria-live="polite"><p class="quiet">Point at a run, or go to it with the '
            "tab key. Following it shows its samples below.</p></aside></div>\n"
            + table(placed, keys, names, different, letters) + _left_out(left_out)
            + "<h2 id=\"samples\">Samples</h2>\n" + controls())
    write_page(path, render(f"Pareto: {title}", body, data, (*SCRIPTS, "table.js", "pareto.js"), command))


def own_settings(placed: Sequence[Standing], keys: Sequence[str], names: dict[str, str],
                 different: dict[str, list[Any]], letters: dict[str, str]) -> list[list[str]]:
    """For each run what sets it apart: from all others, or with `letters` from the others of its method."""
    settings: list[list[str]] = [[] for _ in placed]
    for method in letters or {"": ""}:
        members = [n for n, standing in enumerate(placed) if not letters or standing.method == method]
        told: list[list[Any]] = [[different[key][n] for n in members] for key in keys]
        for place, (key, values) in enumerate(zip(keys, told, strict=True)):
            # Of settings that follow one another the first is enough.
            if any(value != values[0] for value in values) and values not in told[:place]:
                for n, value in zip(members, values, strict=True):
                    # Values that a search chose have more digits than there is room for; the table has all.
                    shown = number(value) if isinstance(value, float) else setting(value)
                    settings[n].append(f"{names[key]} {shown}")
    return settings


def _legend(placed: Sequence[Standing], letters: dict[str, str], reference: Point) -> str:
    if not letters:
        return ""
    rows = []
    for method, letter in letters.items():
        points = [standing.point for standing in placed if standing.method == method]
        told = f"{len(points)} runs"
        if several_prompts(placed) is None:
            told += f", hypervolume {number(hypervolume(points, reference))}"
        rows.append(f'<li><b class="letter run-{letter}">{letter}</b> {html.escape(method)} '
                    f'<span class="quiet">{told}</span></li>')
    return f'<ul class="names methods">{"".join(rows)}</ul>'


def stairs(points: Sequence[Point], frame: Frame) -> str:
    """A front as a path: from the left edge at its lowest WER to that CLIP, up to the next, to the top."""
    reached = frame.x[0]
    steps = []
    for wer, clip in (points[index] for index in front(points)):
        steps += [frame.at(reached, wer), frame.at(clip, wer)]
        reached = clip
    steps.append(frame.at(reached, frame.y[1]))
    return "M" + "L".join(f"{x} {y}" for x, y in steps)


def chart(placed: Sequence[Standing], settings: Sequence[Sequence[str]],
          letters: dict[str, str] | None = None) -> str:
    """WER against CLIP, as SVG: every run a link to its samples, the front, and what it leaves behind it.

    letters: of `methods`; each then has its own colour, letter and front.
    """
    letters = letters or {}
    wers = [value for s in placed for value in (s.wer, *(s.wer_interval or ()))]
    clips = [value for s in placed for value in (s.clip, *(s.clip_interval or ()))]
    low, high = spread(wers)
    frame = Frame(spread(clips), (max(0.0, low), high), top=44)
    out = [frame.axes("CLIP, higher is better →", "WER, lower is better ↓", percent=True)]
    sets = range(1 + max(standing.prompts for standing in placed))
    for which in sets:
        line = stairs([standing.point for standing in placed if standing.prompts == which], frame)
        corner = frame.at(frame.x[0], frame.y[1])
        if len(sets) == 1:
            out.append(f'<path class="behind" d="{line}L{corner[0]} {corner[1]}Z"/>')
        out.append(f'<path class="front-line" d="{line}"/>')
    for method, letter in letters.items() if len(sets) == 1 else ():
        own = stairs([standing.point for standing in placed if standing.method == method], frame)
        out.append(f'<path class="curve run-{letter}" d="{own}"/>')
    for index, standing in enumerate(placed):
        x, y = frame.at(standing.clip, standing.wer)
        bars = ""
        if standing.wer_interval:
            ends = [frame.at(standing.clip, value)[1] for value in standing.wer_interval]
            bars += f'<line class="bar" x1="{x}" x2="{x}" y1="{ends[0]}" y2="{ends[1]}"/>'
        if standing.clip_interval:
            ends = [frame.at(value, standing.wer)[0] for value in standing.clip_interval]
            bars += f'<line class="bar" x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}"/>'
        label = (f"{', '.join(settings[index]) or standing.run.name}: WER {_percent(standing.wer)}, CLIP "
                 f"{number(standing.clip)}{', on the front' if standing.front else ''}; show its samples")
        kind = "point best" if standing.front else "point"
        letter = letters.get(standing.method, "")
        if letter:
            kind += f" run-{letter}"
            label = f"{standing.method}, {label}"
            bars += (f'<text class="letter" x="{x + 9}" y="{y - 7}" aria-hidden="true">{letter}</text>')
        out.append(f'<a class="{kind}" href="#run={index}" data-run="{index}" '
                   f'aria-label="{html.escape(label)}">{bars}<circle class="reach" cx="{x}" cy="{y}" r="15"/>'
                   f'<circle class="mark" cx="{x}" cy="{y}" r="6.5"/></a>')
    out += _labels(placed, settings, frame)
    label = "WER against CLIP, one point a run; the table below says the same"
    return frame.svg("\n".join(out), label, "group", "pareto")


def _labels(placed: Sequence[Standing], settings: Sequence[Sequence[str]], frame: Frame) -> list[str]:
    """The settings of the runs on the front beside their points, as far as there is room.

    They stand below their points, or above where the axis and its numbers would be beneath them.
    """
    taken: list[float] = []
    foot = frame.height - frame.bottom
    out = []
    for index, standing in enumerate(placed):
        x, y = frame.at(standing.clip, standing.wer)
        at = y + 21 if y + 25 <= foot else y - 21
        if not standing.front or not settings[index] or any(abs(at - other) < 18 for other in taken):
            continue
        taken.append(at)
        side = "start" if x < 0.7 * frame.width else "end"
        beside, text = x + (12 if side == "start" else -12), html.escape(", ".join(settings[index]))
        out.append(f'<text class="named" x="{beside}" y="{at}" text-anchor="{side}" aria-hidden="true">'
                   f"{text}</text>")
    return out


def table(placed: Sequence[Standing], keys: Sequence[str], names: dict[str, str],
          different: dict[str, list[Any]], letters: dict[str, str] | None = None) -> str:
    """Every run with its settings and figures; table.js sorts it by any column."""
    shares = any(s.share is not None for s in placed)
    columns = ["method"] if letters else []
    several = several_prompts(placed) is not None
    columns += ["prompts"] if several else []
    # Figures first: there may be more settings than the screen is wide.
    columns += ["WER", "CLIP", "joint success", "front", *(["front, of resamplings"] if shares else []),
                *(names[key] for key in keys)]
    titles = {names[key]: key for key in keys}
    out = ['<div class="wide"><table class="runs sortable"><caption class="unseen">Runs</caption><thead><tr>']
    out += [f'<th scope="col" title="{html.escape(titles.get(name, name))}">{html.escape(name)}</th>'
            for name in columns]
    out.append('<th scope="col">samples</th></tr></thead><tbody>')
    for index, standing in enumerate(placed):
        result = standing.run.result or {}
        joint = result.get("joint")
        cells: list[tuple[str, Any]] = [(standing.method, standing.method)] if letters else []
        cells += [(_prompts(standing), standing.prompts)] if several else []
        cells += [(_percent(standing.wer) + _bracket(standing.wer_interval, 100), standing.wer),
                  (number(round(standing.clip, 2)) + _bracket(standing.clip_interval), standing.clip),
                  ("–" if joint is None else _percent(joint), joint),
                  ("● on it" if standing.front else "–", int(standing.front))]
        if shares:
            share = standing.share
            cells.append(("–" if share is None else _percent(share), share))
        cells += [(setting(different[key][index]), different[key][index]) for key in keys]
        out.append(f'<tr data-run="{index}"{" class=best" if standing.front else ""}>' + "".join(
            f'<td data-value="{html.escape(str("" if value is None else value))}">{html.escape(shown)}</td>'
            for shown, value in cells)
            + f'<td><a href="#run={index}" title="{html.escape(standing.run.name)}">'
              f'{len(standing.run.samples)} samples</a></td></tr>')
    return "\n".join(out) + "</tbody></table></div>\n"


def _prompts(standing: Standing) -> str:
    """Which set of prompts: the pair where there is but one."""
    pairs = {(sample.image_prompt, sample.audio_prompt) for sample in standing.run.samples}
    if len(pairs) == 1:
        (image, audio), = pairs
        return f"{image} | {audio}"
    return f"set {standing.prompts + 1}, {len(pairs)} pairs"


def _left_out(left_out: dict[str, str]) -> str:
    if not left_out:
        return ""
    rows = "".join(f"<li><code>{html.escape(name)}</code>: {html.escape(why)}</li>"
                   for name, why in left_out.items())
    return f"<details class=\"help\"><summary>{len(left_out)} left out</summary><ul>{rows}</ul></details>"


def _interval(run: RunFolder, key: str) -> tuple[float, float] | None:
    found = (run.result or {}).get(f"{key}_interval")
    return (float(found[0]), float(found[1])) if found else None


def _percent(value: float) -> str:
    return f"{number(round(100 * value, 1))} %"


def _bracket(interval: tuple[float, float] | None, factor: float = 1) -> str:
    return "" if interval is None else (
        f" [{number(round(factor * interval[0], 1))}, {number(round(factor * interval[1], 1))}]")
