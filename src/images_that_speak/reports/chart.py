"""Charts as inline SVG: axes with round numbers, lines, points. Colours are the page's (see style.css)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "ABCDEFGH"  # runs beside one another are told apart by letter, colour and dash


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) from `low` to `high`, at most `count` + 1.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def number(value: float) -> str:
    """As short as it can be read: 0.25, 1200, 1e-05, with a true minus."""
    return f"{value:.4g}".replace("-", "−")


@dataclass(frozen=True)
class Frame:
    """The plane of a chart: data coordinates → SVG coordinates, `width` × `height`, with room for labels."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 880
    height: int = 500
    left: int = 62
    bottom: int = 52
    top: int = 16
    right: int = 18
    log: bool = False  # of y

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of (x, y); what lies outside is put on the edge."""
        across = _share(x, *self.x)
        up = _share(math.log10(y), *map(math.log10, self.y)) if self.log else _share(y, *self.y)
        return (round(self.left + across * (self.width - self.left - self.right), 1),
                round(self.height - self.bottom - up * (self.height - self.bottom - self.top), 1))

    def axes(self, x_name: str, y_name: str, percent: bool = False, count: int = 6) -> str:
        """Grid lines, their numbers and the names of the axes; `percent`: y is a rate."""
        out = []
        for value in ticks(*self.x, count):
            across, _ = self.at(value, self.y[0])
            foot = self.height - self.bottom
            out.append(f'<line class="grid" x1="{across}" x2="{across}" y1="{self.top}" y2="{foot}"/>'
                       f'<text class="tick" x="{across}" y="{foot + 19}" text-anchor="middle">'
                       f"{number(value)}</text>")
        if self.log:
            lowest, highest = (math.log10(value) for value in self.y)
            powers = range(math.ceil(lowest - 1e-9), math.floor(highest + 1e-9) + 1)
            marks = [10.0 ** power for power in powers]
            if len(marks) < 2:
                marks = [self.y[0], math.sqrt(self.y[0] * self.y[1]), self.y[1]]
        else:
            marks = ticks(*self.y, count)
        for value in marks:
            _, up = self.at(self.x[0], value)
            shown = f"{number(100 * value)} %" if percent else number(value)
            end = self.width - self.right
            out.append(f'<line class="grid" x1="{self.left}" x2="{end}" y1="{up}" y2="{up}"/>'
                       f'<text class="tick" x="{self.left - 9}" y="{up + 4}" text-anchor="end">'
                       f"{shown}</text>")
        middle = (self.left + self.width - self.right) / 2
        out.append(f'<text class="axis" x="{middle}" y="{self.height - 9}" text-anchor="middle">'
                   f"{html.escape(x_name)}</text>")
        if y_name:  # above its numbers, where it is read without turning the head
            out.append(f'<text class="axis" x="2" y="{self.top - 18}">{html.escape(y_name)}</text>')
        return "\n".join(out)

    def svg(self, content: str, label: str, role: str = "img", kind: str = "") -> str:
        return (f'<svg class="chart {kind}" viewBox="0 0 {self.width} {self.height}" role="{role}" '
                f'aria-label="{html.escape(label)}">\n{content}\n</svg>')


def spread(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """The range of `values` with a margin on both sides; of a single value, 1 around it."""
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.5
    return low - room, high + room


def thinned(points: Sequence[tuple[float, float]], limit: int = 400) -> list[tuple[float, float]]:
    """About `limit` of `points`, which are in order of x: of every stretch its lowest and its highest."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(2 * len(points) / limit)
    kept = []
    for start in range(0, len(points), size):
        part = points[start:start + size]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [points[0], *kept, points[-1]]


def curves(name: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    """A small chart of one metric over steps; `lines` by the letter of the run."""
    lines = {letter: points for letter, points in lines.items() if points}
    values = [value for points in lines.values() for _, value in points]
    steps = [step for points in lines.values() for step, _ in points]
    log = min(values) > 0 and max(values) > 30 * min(values)
    reach = (min(values) / 1.1, max(values) * 1.1) if log else spread(values)
    across = (min(steps), max(steps)) if max(steps) > min(steps) else (min(steps) - 0.5, min(steps) + 0.5)
    frame = Frame(across, reach, 440, 260, left=58, bottom=46, right=26, log=log)
    out = [frame.axes("step", "", count=4)]
    for letter, points in lines.items():
        places = [frame.at(*point) for point in thinned(points)]
        path = "M" + "L".join(f"{x} {y}" for x, y in places)
        title = f"<title>{html.escape(f'{letter}: {number(points[0][1])} → {number(points[-1][1])}')}</title>"
        x, y = places[-1]
        out.append(f'<circle class="dot run-{letter}" cx="{x}" cy="{y}" r="3"/>')
        if len(places) > 1:
            out.append(f'<path class="curve run-{letter}" d="{path}">{title}</path>')
        out.append(f'<text class="letter run-{letter}" x="{x + 6}" y="{y + 4}">{letter}</text>')
    said = "; ".join(f"{letter} from {number(points[0][1])} to {number(points[-1][1])}"
                     for letter, points in lines.items())
    caption = html.escape(name) + (' <span class="quiet">log scale</span>' if log else "")
    return (f"<figure class=\"small-chart\"><figcaption>{caption}</figcaption>"
            f"{frame.svg(chr(10).join(out), f'{name} over steps: {said}')}</figure>")


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
