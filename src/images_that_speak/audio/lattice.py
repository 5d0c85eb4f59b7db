"""Find the lattice of a print in a picture of any size, cut and turn, and read its cells there.

In a print (`speaking.modulation.dotted`) one cell of n, on a lattice, carries the voice. The lattice also
shows where the cells are: it makes two sharp lines in the picture's spectrum. Their frequencies give the size
and the turn of the cells, their phases give their place. So a picture that was cropped, framed, scaled or
turned by a few degrees is read as it was made. Only the rows that were cut off are not known: as many are
taken to be missing above as below.

The lattice tells how sharp the picture is, too. Blur takes the same share of every dot's contrast. In a sharp
print the cells between the dots are black where the picture is darkest, so the share that was lost is the one
that makes them black again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn.functional import grid_sample

from .mel import MEL

MOST_DOTS = 8  # sparsest lattice that is looked for: one cell of eight is a dot
SIDE = 1024  # pixels of the middle of the picture in which lines are looked for
PROMINENT = 12.0  # times the median around it: a line; photographs without one stay below 6
SMALLEST, LARGEST = 0.25, 1.35  # cells, of those of a picture of 256 rows: a border, or rows cut off
FINEST = 1.2  # pixels of a cell whose dots can be told apart
TURN, STRETCH = 0.03, 0.008  # of its frequency that a line may be away: by turning, by the step of the search
SAMPLES = 4  # of each side of a cell
TILE = 8  # cells of a side of the tiles over which phases are compared
DARKEST, BLACK = 0.02, 0.01  # quantile of the cells between dots, and its brightness in a sharp print
SHARP, LIGHT = 0.03, 0.31  # its brightness up to which a print is sharp, and from which on it was never black
CLEAR, MOSTLY = 0.01, 0.8  # difference in brightness that counts; share of the dots that are the brighter
BLURRED = 0.1  # least share of the contrast that is brought back


@cache
def lattice_step(every: int) -> int:
    """s of the lattice of cells (i, j) with s·i + j ≡ 0 (mod every) whose cells are farthest apart."""
    def nearest(step: int) -> int:
        return min(i * i + j * j for i in range(every) for j in range(-every, every + 1)
                   if (i or j) and (step * i + j) % every == 0)

    return max(range(1, every), key=nearest)


def lattice(rows: int, columns: int, every: int) -> np.ndarray:
    """(rows, columns) bool: where the dots are."""
    return (lattice_step(every) * np.arange(rows)[:, None] + np.arange(columns)) % every == 0


@cache
def _lines(every: int) -> np.ndarray:
    """(2, 2): the two shortest frequencies of the lattice, (along rows, along columns) in cycles a cell."""
    def along(cycles: int) -> set[float]:
        return {cycles / every % 1, cycles / every % 1 - 1}

    found = [(a, k / every) for k in range(1, every) for a in along(k * lattice_step(every))]
    found.sort(key=lambda line: (round(math.hypot(*line), 6), line))
    first = found[0]
    second = next(line for line in found if abs(first[0] * line[1] - first[1] * line[0]) > 1e-6)
    return np.array([first, second])


@dataclass(frozen=True)
class Grid:
    """Where the cells of a print are: pixel = middle of the picture + matrix · (cell − middle).

    every: one cell of how many is a dot. matrix: (2, 2), pixels a cell, along rows and columns. middle: the
    cell coordinates, (row, column), of the middle of the picture. rows, columns: how many cells it shows.
    """

    every: int
    matrix: np.ndarray
    middle: np.ndarray
    rows: int
    columns: int

    def is_plain(self, height: int, width: int) -> bool:
        """Whether these are the cells that any picture of this size has, to a tenth of a cell."""
        corner = np.linalg.solve(self.matrix, np.array([height, width]) / 2)
        shown = np.array([self.rows, self.columns])
        return (self.rows == MEL.n_mels and self.columns == round(width * MEL.n_mels / height)
                and abs(corner - self.middle).max() < 0.1 and abs(shown - 2 * self.middle).max() < 0.1)


def find_grid(brightness: np.ndarray) -> Grid | None:
    """The cells of a print, from its (H, W) brightness; None where there is no lattice to be seen."""
    height, width = brightness.shape
    edges = _edges(brightness.astype(np.float32), max(1, round(height / (2 * MEL.n_mels))))
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    part = edges[top:top + SIDE, left:left + SIDE]
    window = np.hanning(part.shape[0])[:, None] * np.hanning(part.shape[1])
    spectrum = np.abs(np.fft.rfft2(part * window, (SIDE, SIDE))).astype(np.float32)
    found = {every: _peaks(spectrum, height / MEL.n_mels, _lines(every)) for every in range(2, MOST_DOTS + 1)}
    highest = max(prominence for prominence, _ in found.values())
    if highest < PROMINENT:
        return None
    # A sparse lattice has the lines of a denser one too, and those tell the size of a cell. It may still be
    # taken for a half or a third of what it is: cells have edges, so multiples of a line are lines as well.
    every = min(every for every, (prominence, _) in found.items() if prominence > 0.7 * highest)
    size = float(np.mean(np.linalg.norm(_lines(every), axis=1) / np.linalg.norm(found[every][1], axis=1)))
    for times in (3, 2, 1):
        for dots in range(MOST_DOTS, every - 1, -1):
            both = [_peak(spectrum, line / (times * size)) for line in _lines(dots)]
            if min(prominence for prominence, _ in both) > max(PROMINENT, 0.3 * highest):
                return _fit(edges, dots, np.array([frequency for _, frequency in both]))
    return _fit(edges, every, found[every][1])


def _edges(brightness: np.ndarray, lag: int) -> np.ndarray:
    """What differs from the four neighbours `lag` pixels away: light and shade are gone, the dots are not."""
    padded = np.pad(brightness, lag, mode="edge")
    high, wide = brightness.shape
    return (4 * brightness - padded[:high, lag:-lag] - padded[2 * lag:, lag:-lag]
            - padded[lag:-lag, :wide] - padded[lag:-lag, 2 * lag:])


def _peaks(spectrum: np.ndarray, cell: float, lines: np.ndarray) -> tuple[float, np.ndarray]:
    """How much both lines stand out, with cells of about `cell` pixels, and where they are.

    Where: (2, 2) frequencies, along rows and columns, in cycles a pixel, where they stand out most.
    """
    best: tuple[float, np.ndarray] = (0.0, lines)
    for size in cell * np.exp(np.arange(math.log(SMALLEST), math.log(LARGEST), STRETCH)):
        if size > FINEST and abs(lines / size).max() < 0.49:
            both = [_peak(spectrum, line / size) for line in lines]
            prominence = min(each for each, _ in both)
            if prominence > best[0]:
                best = prominence, np.array([frequency for _, frequency in both])
    return best


def _peak(spectrum: np.ndarray, frequency: np.ndarray) -> tuple[float, tuple[float, float]]:
    """How much the strongest line near a frequency stands out, and where it is."""
    row, column = (round(float(each) * SIDE) for each in frequency)
    high = int(SIDE * (TURN * abs(frequency[1]) + STRETCH * abs(frequency[0]))) + 2
    wide = int(SIDE * (TURN * abs(frequency[0]) + STRETCH * abs(frequency[1]))) + 2
    rows = np.arange(row - high, row + high + 1)
    columns = np.arange(max(0, column - wide), min(SIDE // 2, column + wide) + 1)
    near = spectrum[rows[:, None] % SIDE, columns]
    down, across = np.unravel_index(near.argmax(), near.shape)
    row, column = int(rows[down]), int(columns[across])
    around = spectrum[np.arange(row - 20, row + 21)[:, None] % SIDE,
                      np.arange(max(0, column - 20), min(SIDE // 2, column + 20) + 1)]
    return float(near.max() / max(np.median(around), 1e-12)), (row / SIDE, column / SIDE)


def _fit(edges: np.ndarray, every: int, peaks: np.ndarray) -> Grid:
    """The grid whose two lines have the phases that are found all over the picture."""
    height, width = edges.shape
    lines = _lines(every)
    side = max(8, round(TILE / np.linalg.norm(peaks[0]) * np.linalg.norm(lines[0])))
    fitted = [_line(edges, peak, side) for peak in peaks]
    matrix = np.linalg.solve(np.array([frequency for frequency, _ in fitted]), lines)
    size = np.linalg.norm(matrix, axis=0)
    rows, columns = max(1, round(height / size[0])), max(1, round(width / size[1]))
    # A dot's middle is half a cell after its corner. Of all places with these phases, the nearest to the one
    # with as many cells left of the middle as right of it.
    expected = np.array([rows, columns]) / 2
    phases = np.array([phase for _, phase in fitted])
    turns = lines @ (expected - 0.5) - phases
    return Grid(every, matrix, expected - np.linalg.solve(lines, turns - np.round(turns)), rows, columns)


def _line(edges: np.ndarray, frequency: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """A line's frequency, and its phase in turns at the middle of the picture, fitted to that of tiles."""
    down, across = edges.shape[0] // side, edges.shape[1] // side
    y = np.arange(down * side) + 0.5 - edges.shape[0] / 2
    x = np.arange(across * side) + 0.5 - edges.shape[1] / 2
    tiles = edges[:down * side, :across * side] * np.exp(-2j * np.pi * frequency[1] * x).astype(np.complex64)
    tiles = tiles.reshape(down * side, across, side).sum(2) * np.exp(-2j * np.pi * frequency[0] * y)[:, None]
    tiles = tiles.reshape(down, side, across).sum(1)
    place = np.stack(np.meshgrid(y.reshape(down, side).mean(1), x.reshape(across, side).mean(1),
                                 indexing="ij"), -1)
    offset = np.zeros(2)
    # From the middle outwards, so that no turn is missed.
    for reach in SIDE / 4 * 2.0 ** np.arange(10):
        near = abs(place).max(-1) <= reach
        turned = tiles * np.exp(-2j * np.pi * (place @ offset))
        phase = np.angle(turned[near].sum())
        rest = np.angle(turned * np.exp(-1j * phase)) / (2 * np.pi)
        weight = abs(tiles) * near * (abs(rest) < 0.25)
        columns = np.concatenate([np.ones((*rest.shape, 1)), place], -1) * weight[..., None]
        offset = offset + np.linalg.lstsq(columns.reshape(-1, 3), (rest * weight).ravel(), rcond=None)[0][1:]
    turned = tiles * np.exp(-2j * np.pi * (place @ offset))
    return frequency + offset, float(np.angle(turned.sum()) / (2 * np.pi))


def read_cells(brightness: np.ndarray, grid: Grid) -> np.ndarray:
    """(H, W) brightness → (rows, columns) of the grid: means over cells; beyond its edges it goes on."""
    size = np.array(brightness.shape)
    row = (np.arange(grid.rows * SAMPLES) + 0.5) / SAMPLES - grid.middle[0]
    column = (np.arange(grid.columns * SAMPLES) + 0.5) / SAMPLES - grid.middle[1]
    # grid_sample: from −1 to 1 between the outer edges, x before y.
    places = [(2 / size[axis] * (grid.matrix[axis, 0] * row[:, None] + grid.matrix[axis, 1] * column))
              for axis in (1, 0)]
    picture = torch.from_numpy(np.ascontiguousarray(brightness, np.float32))[None, None]
    samples = grid_sample(picture, torch.from_numpy(np.stack(places, -1).astype(np.float32))[None],
                          mode="bilinear", padding_mode="border", align_corners=False)
    return samples.view(grid.rows, SAMPLES, grid.columns, SAMPLES).mean((1, 3)).numpy()


def sharpened(cells: np.ndarray, dots: np.ndarray) -> np.ndarray:
    """Cells of a check, in [0, 1], with the contrast that blur took from them; sharp ones as they are.

    dots: which cells are. The print must have shadows darker than about half of what is heard, as in all
    styles: else the cells between the dots need not be black anywhere.
    """
    around = _around(cells)
    shown = ~dots & (around > BLACK)
    if not shown.any() or not SHARP < np.quantile(cells[shown], DARKEST) < LIGHT:
        return cells
    difference = cells - around
    least, most = BLURRED, 1.0
    for _ in range(12):
        share = (least + most) / 2
        darkest = np.quantile(around[shown] + difference[shown] / share, DARKEST)
        least, most = (least, share) if darkest > BLACK else (share, most)
    return np.clip(around + difference / most, 0, 1)


def _around(cells: np.ndarray) -> np.ndarray:
    """The mean around each cell, in which a check does not show."""
    for axis in (0, 1):
        padded = np.pad(cells, [(1, 1) if each == axis else (0, 0) for each in (0, 1)], mode="reflect")
        before, after = np.split(padded, [cells.shape[axis]], axis)[0], np.split(padded, [2], axis)[1]
        cells = (before + 2 * cells + after) / 4
    return cells


def whole_print(cells: np.ndarray, every: int) -> np.ndarray | None:
    """(R, C) cells → (256, F): a border is taken off, a check is sharpened, rows that were cut off are black.

    A border has no lattice. Of missing rows, as many are taken to be above as below. None where too few dots
    are brighter than what is around them: that is some other regular pattern.
    """
    difference, dots = cells - _around(cells), lattice(len(cells), cells.shape[1], every)
    if len(cells) > MEL.n_mels:
        inside = _inside(difference * (every * dots - 1))
        cells, difference, dots = cells[inside], difference[inside], dots[inside]
    clear = difference[dots & (abs(difference) > CLEAR)]
    if not clear.size or (clear > 0).mean() < MOSTLY:
        return None
    missing = MEL.n_mels - len(cells)
    # The cells between sparser dots than those of a check need not be black anywhere.
    return np.pad(sharpened(cells, dots) if every == 2 else cells,
                  ((missing // 2, missing - missing // 2), (0, 0)))


def _inside(strength: np.ndarray) -> tuple[slice, slice]:
    """The 256 rows and the columns in which dots are brighter than what is around them, and others darker.

    At the edge of a border all cells are brighter, or all darker, which adds up to nothing.
    """
    sums = np.cumsum(np.concatenate([[0], strength.mean(1)]))
    inside = sums[MEL.n_mels:] - sums[:-MEL.n_mels]
    best = np.flatnonzero(inside >= inside.max() - 0.001 * abs(inside.max()))
    top = int(best[abs(best - (len(strength) - MEL.n_mels) / 2).argmin()])
    columns = strength[top:top + MEL.n_mels].mean(0)
    shown = np.flatnonzero(columns > 0.1 * np.median(columns))
    return slice(top, top + MEL.n_mels), slice(shown[0], shown[-1] + 1) if len(shown) else slice(None)
