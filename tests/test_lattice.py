"""Prints are found again by their lattice: cropped, framed, scaled, turned, blurred; nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from test_griffin_lim import voice

from images_that_speak.audio.lattice import Grid, find_grid, lattice, read_cells, sharpened, whole_print
from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture
from images_that_speak.audio.picture import read_message, to_grid
from images_that_speak.speaking.modulation import Modulation

ROWS = MEL.n_mels


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """(1, 256, 300) of a voice."""
    return logmel_to_picture(LogMel()(voice().tile(1, 4)))[..., :300]


def printed(speech: torch.Tensor, every: int, pixels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Cells (256, 300) in [0, 1] of a print of smooth shades, and the picture, `pixels` a cell."""
    y, x = torch.meshgrid(torch.linspace(0, 5, ROWS), torch.linspace(0, 7, 300), indexing="ij")
    shades = (0.5 + 0.5 * torch.sin(x) * torch.cos(y))[None]
    style = Modulation(dots=every, brightness=0.66, shading=0.0, shadow=0.33, light=0.66)
    cells = style(shades, speech)[0].numpy()
    return cells, np.kron(np.round(255 * cells).astype(np.uint8), np.ones((pixels, pixels), np.uint8))


def scaled(columns: int, rows: int) -> Callable[[np.ndarray], np.ndarray]:
    return by_pillow(lambda image: image.resize((columns, rows), Image.Resampling.BICUBIC))


def turned(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    return by_pillow(lambda image: image.rotate(degrees, Image.Resampling.BICUBIC))


def framed(level: int, rows: tuple[int, int], columns: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: np.pad(picture, (rows, columns), constant_values=level)


def by_pillow(change: Callable[[Image.Image], Image.Image]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: np.asarray(change(Image.fromarray(picture)))


def alike(found: np.ndarray, cells: np.ndarray) -> float:
    """The correlation of what lies over one another, away from the edges."""
    assert found.shape == cells.shape
    return float(np.corrcoef(found[16:-16, 24:-24].ravel(), cells[16:-16, 24:-24].ravel())[0, 1])


def test_a_plain_print_has_the_grid_of_any_picture_of_its_size(speech: torch.Tensor) -> None:
    for every in (2, 3, 4, 5, 6, 7, 8):
        _, picture = printed(speech, every)
        grid = find_grid(picture / 255)
        assert grid is not None and grid.every == every, every
        assert grid.matrix == pytest.approx(4 * np.eye(2), abs=2e-3), every
        assert (grid.rows, grid.columns) == (256, 300)
        assert grid.is_plain(*picture.shape)
        assert np.array_equal(read_message(picture), (to_grid(picture) / 255).clip(0, 1)), every


@pytest.mark.parametrize("every", [2, 8])
@pytest.mark.parametrize(("name", "change", "least"), [
    ("half the size", scaled(600, 512), 0.98), ("1.7 times as large", scaled(2040, 1741), 0.98),
    ("stretched by 2 %", scaled(1224, 1024), 0.97), ("turned by 1°", turned(1), 0.97),
    ("turned back by 1.5°", turned(-1.5), 0.97),
    ("in a white frame", framed(255, (40, 40), (90, 90)), 0.999),
    ("low in a gray page", framed(128, (170, 30), (101, 55)), 0.999),
])
def test_a_print_is_read_as_it_was_made(speech: torch.Tensor, name: str, least: float, every: int,
                                        change: Callable[[np.ndarray], np.ndarray]) -> None:
    cells, picture = printed(speech, every)
    found = read_message(change(picture))
    if name == "stretched by 2 %":
        assert found.shape == (256, 300), "the cells were counted, not the pixels"
    assert alike(found, cells) > least


@pytest.mark.parametrize("cut", [(31, 31, 0, 0), (40, 0, 33, 5), (0, 17, 1, 90)])
def test_what_is_left_of_a_print_lies_on_its_cells(speech: torch.Tensor, cut: tuple[int, ...]) -> None:
    cells, picture = printed(speech, 2)
    top, bottom, left, right = cut
    found = read_message(picture[top:picture.shape[0] - bottom, left:picture.shape[1] - right])
    moves = {}
    for down in range(-6, 7):
        for across in range(max(0, left // 4 - 2), left // 4 + 3):
            where = np.roll(np.pad(cells, ((0, 0), (0, 9))), (-down, -across), (0, 1))[:, :found.shape[1]]
            moves[down, across] = alike(found, where)
    assert max(moves.values()) > 0.999, "moved by whole cells, at most half of what was cut off"


def test_blur_is_taken_back(speech: torch.Tensor) -> None:
    cells, picture = printed(speech, 2)
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1)))
    dots = lattice(*cells.shape, 2)
    error = {name: abs(found - cells)[dots].mean() for name, found in
             {"as it is": to_grid(blurred) / 255, "sharpened": read_message(blurred)}.items()}
    assert error["sharpened"] < 0.3 * error["as it is"]
    assert sharpened(cells, dots) is cells, "a sharp print stays as it is"


def test_what_is_beside_a_print_does_not_tell_how_sharp_it_is(speech: torch.Tensor) -> None:
    cells, picture = printed(speech, 2)
    y, x = np.mgrid[0:2000, 0:1800]
    page = np.where((y // 9 + x // 13) % 3 == 0, 0, 255).astype(np.uint8)  # black letters on white
    page[400:400 + picture.shape[0], 296:296 + picture.shape[1]] = picture
    blurred = np.asarray(Image.fromarray(page).filter(ImageFilter.GaussianBlur(1)))
    found = read_message(blurred)
    assert found.shape == cells.shape
    alone = read_message(np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1))))
    assert abs(found - alone)[4:-4, 4:-4].max() < 0.03


def test_no_lattice_is_seen_where_there_is_none() -> None:
    data = pytest.importorskip("skimage.data")
    noise = np.random.default_rng(0).random((512, 700))
    pictures = {"noise": noise, "even": np.full((300, 400), 0.5), "small": noise[:8, :9],
                "narrow": noise[:, :8], "blocks": np.kron(noise[:64, :64], np.ones((8, 8)))}
    for name in ("astronaut", "brick", "camera", "chelsea", "checkerboard", "coffee", "coins", "page"):
        pictures[name] = np.asarray(Image.fromarray(getattr(data, name)()).convert("L")) / 255
    for name, picture in pictures.items():
        assert find_grid(picture) is None, name
    tiles = np.round(255 * logmel_to_picture(LogMel()(voice().tile(1, 20)))[0].numpy()).astype(np.uint8)
    assert np.array_equal(read_message(tiles), to_grid(tiles) / 255), "regular, but no dots"


def test_a_border_is_taken_off_and_missing_rows_are_black() -> None:
    cells = np.where(lattice(300, 50, 2), 0.8, 0.0)
    framed = np.pad(cells[:256, :40], ((20, 24), (6, 4)))
    assert np.array_equal(whole_print(framed, 2), cells[:256, :40])
    whole = whole_print(cells[:250], 2)
    assert whole.shape == (256, 50) and np.array_equal(whole[3:253], cells[:250])
    assert not whole[:3].any() and not whole[253:].any()


def test_cells_are_read_where_the_grid_says() -> None:
    cells = np.random.default_rng(1).random((6, 8)).astype(np.float32)
    picture = np.pad(np.kron(cells, np.ones((10, 10), np.float32)), ((5, 15), (7, 3)))
    grid = Grid(2, np.diag([10.0, 10.0]), np.array([3.5, 4.0 - 0.2]), 6, 8)
    found = read_cells(picture, grid)
    assert found == pytest.approx(cells, abs=0.1) and np.corrcoef(found.ravel(), cells.ravel())[0, 1] > 0.99
