"""The comparison: what was set otherwise, what that changed and how sure that is, samples side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..figures import Figure
from ..files import content_hash
from ..scoring.statistics import Interval
from .chart import LETTERS, curves, number
from .differences import difference, of_samples, shared, totals_of, verdict
from .folders import RunFolder, chosen, varied
from .gallery import head
from .page import PARTS, render, sample_data, setting, write_page

SCRIPTS = ("core.js", "player.js", "card.js", "list.js", "query.js", "compare.js")
# Told of each job, not of what came out of it.
UNSHOWN = ("seconds_per_sample", "epoch")


def write_compare(runs: Sequence[RunFolder], path: Path, title: str, embed: bool = False,
                  command: str = "") -> None:
    """Write the comparison of `runs`, the first being what the others are measured against.

    Raises UserError where there are fewer than two runs or more than fit beside one another.
    """
    check(runs)
    data = sample_data(runs, path, embed)
    data["letters"] = LETTERS[:len(runs)]
    body = [head("Comparison", title, _summary(runs)), _names(runs), _settings(runs), _figures(runs),
            _curves(runs)]
    groups = len({sample.id for run in runs for sample in run.samples})
    both = len(set.intersection(*({sample.id for sample in run.samples} for run in runs)))
    if groups:
        body.append('<h2 id="samples">Samples side by side</h2>\n<p class="quiet">'
                    f"{both} of {groups} samples are in all runs: the same prompts and the same seed.</p>\n"
                    + (PARTS / "pairs.html").read_text(encoding="utf-8"))
    scripts = SCRIPTS if groups else ()
    write_page(path, render(f"Comparison: {title}", "\n".join(body), data, scripts, command))


def check(runs: Sequence[RunFolder]) -> None:
    if not 2 <= len(runs) <= len(LETTERS):
        hint = " pareto and gallery show whole sweeps." if len(runs) > 2 else ""
        raise UserError(f"compare: {len(runs)} run{'s' * (len(runs) != 1)} (expected 2 to {len(LETTERS)})."
                        f"{hint}")


def default_name(runs: Sequence[RunFolder]) -> str:
    """A file name that tells comparisons of different runs apart: the hashes that end the folders' names."""
    tails = [run.name.rpartition("__")[2][:16] for run in runs]
    return f"compare-{'-'.join(tails) if len(tails) < 4 else content_hash(tails)}.html"


def _summary(runs: Sequence[RunFolder]) -> str:
    return f"<b>{len(runs)}</b> runs, each against A"


def _names(runs: Sequence[RunFolder]) -> str:
    rows = "".join(f'<li><b class="letter run-{letter}">{letter}</b> <code>{html.escape(run.name)}</code> '
                   f'<span class="quiet">{html.escape(run.task)}, {html.escape(run.status)}</span></li>'
                   for letter, run in zip(LETTERS, runs, strict=False))
    return f'<ul class="names">{rows}</ul>'


def _settings(runs: Sequence[RunFolder]) -> str:
    """Only what differs; what merely follows from it stands behind a fold."""
    different = varied(runs)
    own = chosen(runs, different)
    rest = [key for key in different if key not in own]

    def rows(keys: Sequence[str]) -> str:
        cells = {key: "".join(f"<td>{html.escape(setting(value))}</td>" for value in different[key])
                 for key in keys}
        return "".join(f'<tr><th scope="row"><code>{html.escape(key)}</code></th>{row}</tr>'
                       for key, row in cells.items())

    out = "<h2>Settings that differ</h2>\n"
    if not different:
        return out + '<p class="quiet">None: the configurations are the same.</p>'
    out += _table(["setting", *LETTERS[:len(runs)]], rows(own))
    if rest:
        out += (f'<details class="help"><summary>{len(rest)} more that follow from these</summary>'
                + _table(["setting", *LETTERS[:len(runs)]], rows(rest)) + "</details>")
    return out


def _figures(runs: Sequence[RunFolder]) -> str:
    """Every figure of every run, and how it differs from A's on the samples that both have."""
    pairs = [shared(runs[0].samples, run.samples) for run in runs[1:]]
    rows = []
    for figure in of_samples(runs):
        values = [totals_of(run.samples, figure) for run in runs]
        if not any(values):
            continue
        cells = [f"<td>{_shown(value, figure)}</td>" for value in values]
        for found in (difference(pair, figure) for pair in pairs):
            kind = "undecided" if found is None else verdict(found, figure)
            cells.append(f'<td class="{kind.split()[-1]}">' + ("–" if found is None else
                         f"{_shown(found, figure, signed=True)} <b>{MARKS[kind]} {kind}</b>") + "</td>")
        rows.append(f'<tr><th scope="row">{html.escape(figure.title)}</th>{"".join(cells)}</tr>')
    rows += _of_sets(runs)
    if not rows:
        return ""
    heads = ["", *LETTERS[:len(runs)], *(f"{letter} against A" for letter in LETTERS[1:len(runs)])]
    counts = ", ".join(f"{letter} {len(pair)}" for letter, pair in zip(LETTERS[1:], pairs, strict=False))
    readers = {run.readers for run in runs if run.samples}
    note = ""
    if len(readers) > 1:
        said = "; ".join(f"{letter} {' and '.join(run.readers)}"
                         for letter, run in zip(LETTERS, runs, strict=False) if run.samples)
        note = (f'<p class="warning"><b>Not the same readers</b> ({html.escape(said)}): they too make a '
                "difference.</p>")
    return ("<h2>Figures</h2>\n" + note + f'<div class="wide">{_table(heads, "".join(rows))}</div>'
            f'<p class="quiet">In brackets 95 % bootstrap intervals over prompts; differences are paired by '
            f"sample_id (samples shared with A: {counts}), and undecided where the interval holds 0.</p>")


def _of_sets(runs: Sequence[RunFolder]) -> list[str]:
    """Rows of the figures that only a set of samples has, such as FID, which have no interval."""
    rows = []
    for figure in {key: figure for run in runs for key, figure in run.figures.items()
                   if figure.of == "set"}.values():
        values = [(run.result or {}).get(figure.key) for run in runs]
        known = [Interval(float(value)) if isinstance(value, (int, float)) else None for value in values]
        if not any(known):
            continue
        apart = [None if found is None or known[0] is None else Interval(found.value - known[0].value)
                 for found in known[1:]]
        cells = [_shown(found, figure) for found in known] + [
            _shown(found, figure, signed=True) for found in apart]
        rows.append(f'<tr><th scope="row">{html.escape(figure.title)}</th>'
                    + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return rows


MARKS = {"better": "▲", "worse": "▼", "undecided": "·", "the same": "="}


def _shown(found: Interval | None, figure: Figure, signed: bool = False) -> str:
    if found is None:
        return "–"
    factor, unit = (100, " points" if signed else " %") if figure.share else (1, "")

    def one(value: float, sign: bool = signed) -> str:
        text = number(round(factor * value, 2 if factor == 1 else 1) + 0.0)
        return f"+{text}" if sign and value > 0 and text != "0" else text

    text = f"{one(found.value)}{unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{one(found.low)}, {one(found.high)}]"


def _curves(runs: Sequence[RunFolder]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.metrics if name not in UNSHOWN)
    if not names:
        return ""
    charts = [curves(name, {letter: run.metrics.get(name, [])
                            for letter, run in zip(LETTERS, runs, strict=False)}) for name in names]
    return f'<h2>Over the steps of training</h2>\n<div class="charts">{"".join(charts)}</div>'


def _table(heads: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"
