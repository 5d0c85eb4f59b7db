"""What is done to pictures in benchmarks/survives.py: known answers, and nothing else than its name says."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from images_that_speak.resources import ROOT

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def survives():
    path = ROOT / "benchmarks" / "survives.py"
    spec = importlib.util.spec_from_file_location("survives", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["survives"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["survives"]


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth picture in colour: (128, 192, 3)."""
    y, x = np.mgrid[0:128, 0:192]
    return np.stack([x, y, x + y], -1).astype(np.uint8)


def test_every_alteration_gives_a_picture_and_leaves_its_own_as_it_is(survives, pixels) -> None:
    before = pixels.copy()
    other_sizes = {"half size": (64, 96), "on a page of letters, at 60 %": (127, 144),
                   "3 % cut off every edge": (120, 180), "a border of 3 %": (136, 204),
                   "3 % cut off the top": (124, 192), "3 % cut off the bottom": (124, 192)}
    for name, change in survives.ALTERATIONS.items():
        found = change(pixels)
        assert found.dtype == np.uint8 and found.shape[2] == 3, name
        assert found.shape[:2] == other_sizes.get(name, (128, 192)), name
        assert np.array_equal(change(pixels), found), f"{name}: not the same twice"
        assert np.array_equal(found, pixels) == (name == "as made"), name
    assert np.array_equal(pixels, before)


def test_known_answers(survives, pixels) -> None:
    change = survives.ALTERATIONS
    assert np.array_equal(change["3 % cut off the top"](pixels), pixels[4:])
    assert np.array_equal(change["3 % cut off the bottom"](pixels), pixels[:-4])
    assert np.array_equal(change["3 % cut off every edge"](pixels), pixels[4:-4, 6:-6])
    framed = change["a border of 3 %"](pixels)
    assert np.array_equal(framed[4:-4, 6:-6], pixels) and not framed[:4].any() and not framed[:, :6].any()
    level = np.full((4, 4, 3), 100, np.uint8)
    assert (change["10 % brighter"](level) == 110).all() and (change["10 % darker"](level) == 90).all()
    assert (change["10 % more contrast"](level) == 100).all()
    assert (change["gamma 1.8 shown at 2.2"](level) == round(255 * (100 / 255) ** (2.2 / 1.8))).all()
    back = change["gamma 2.2 shown at 1.8"](change["gamma 1.8 shown at 2.2"](pixels)).astype(int)
    assert np.abs(back - pixels)[pixels > 40].max() <= 2
    red = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    assert (change["gray, equal weights"](red) == 85).all() and (change["gray, Rec. 709"](red) == 54).all()
    noise = change["noise of 5 levels"](np.full((200, 200, 3), 128, np.uint8)).astype(int) - 128
    assert abs(noise.std() - 5) < 0.1 and abs(noise.mean()) < 0.1
    assert len(np.unique(change["64 colours"](pixels).reshape(-1, 3), axis=0)) <= 64


def test_a_screenshot_moves_by_less_than_a_pixel(survives, pixels) -> None:
    shot = survives.ALTERATIONS["screenshot at 125 %, brought back"](pixels)
    inner = slice(8, -8)
    assert np.abs(shot[inner, inner].astype(int) - pixels[inner, inner])[..., :2].max() <= 2


def test_sentences_fit_the_pictures_and_are_apart(survives) -> None:
    def lines(name: str) -> list[str]:
        text = (ROOT / "prompts" / name).read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    reported, choosing = lines("speaking_survive.txt"), lines("speaking_survive_choose.txt")
    assert len(reported) == len(survives.REPORTED) == 12 and len(choosing) == len(survives.CHOOSING)
    assert not set(reported) & set(choosing) and not set(survives.REPORTED) & set(survives.CHOOSING)
