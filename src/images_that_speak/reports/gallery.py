"""The gallery: every sample of some runs, to look at, to listen to, to sort and to filter."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .folders import RunFolder
from .page import PARTS, render, sample_data, write_page

SCRIPTS = ("core.js", "player.js", "card.js", "list.js", "query.js", "gallery.js")


def write_gallery(runs: Sequence[RunFolder], path: Path, title: str, embed: bool = False,
                  command: str = "") -> None:
    """Write the gallery of `runs` to `path`; with `embed` it needs no file beside it.

    Raises UserError when the runs hold no sample.
    """
    data = sample_data(runs, path, embed)
    if not data["samples"]:
        where = runs[0].path if len(runs) == 1 else f"{len(runs)} runs"
        raise UserError(f"{where}: no sample in it (expected samples/<sample_id>/ as generate.py writes, or "
                        "an evaluation of such)")
    body = head("Gallery", title, summary(runs, data)) + controls()
    write_page(path, render(f"Gallery: {title}", body, data, SCRIPTS, command))


def head(kind: str, title: str, text: str) -> str:
    return (f'<header class="page"><p class="kind">Images that Speak · {kind}</p>'
            f'<h1>{html.escape(title)}</h1><p class="summary">{text}</p></header>\n')


def controls() -> str:
    """The search field, sort, filters and the list itself; gallery.js brings them to life."""
    return (PARTS / "samples.html").read_text(encoding="utf-8")


def summary(runs: Sequence[RunFolder], data: Mapping[str, Any]) -> str:
    """One line: how much there is and, of a single run, what it reached."""
    count = len(data["samples"])
    text = f"<b>{count}</b> sample{'s' * (count != 1)}"
    if len(runs) > 1:
        return f"{text} of <b>{len(runs)}</b> runs"
    result = runs[0].result or {}
    for key, figure in runs[0].figures.items():
        factor, unit = (100, " %") if figure.share else (1, "")
        if figure.headline and figure.of != "run" and isinstance(result.get(key), (int, float)):
            text += f" · {figure.title} <b>{factor * result[key]:.3g}{unit}</b>"
            if interval := result.get(f"{key}_interval"):
                text += f" [{factor * interval[0]:.3g}, {factor * interval[1]:.3g}]"
    return text
