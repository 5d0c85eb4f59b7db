"""Scenes: where the copies of a picture lie, as the drawings say and as generating plans it."""

import numpy as np
import pytest
import torch

from images_that_speak.data.captions import captions
from images_that_speak.data.counts import beyond, spelled
from images_that_speak.data.pictures import PictureSampler
from images_that_speak.diffusion.scene import HEIGHT, Scenes, copies_of, free_intervals
from images_that_speak.errors import UserError
from images_that_speak.networks.scene import SceneAdapter
from images_that_speak.networks.squares import COPIES, cell_coordinates, scene_cells
from images_that_speak.training.diffusion import crop_to_scene, scene_weights

SPEECH = np.zeros(1024, np.float32)
SPEECH[400:625] = 1


def test_copies_are_read_from_every_caption_as_the_sampler_means_it() -> None:
    for caption in captions():
        low, high = copies_of(caption.text)
        least, most = caption.copies
        assert least <= low <= high <= most, (caption.text, low, high)


@pytest.mark.parametrize("prompt, copies", [
    ("a cat", 1), ("the cat", 1), ("cat", 1), ("a cat on roofs", 1),
    ("a painting of five mugs of beer, grayscale", 5), ("2 cats", 2), ("Two cats", 2),
    ("a photo of 3 owls", 3),
    ("the 4 sheep", 4), ("5 glasses of wine", 5), ("a pair of cats", 2), ("a couple of owls", 2),
    ("a couple owls", 2), ("a trio of green frogs", 3), ("two pairs of owls", 4), ("a pair of scissors", 1),
    ("two pairs of scissors", 2), ("a group of 3 cats", 3), ("a two-headed dragon", 1),
    ("a two headed dragon", 1), ("a 3D cube", 1), ("1 cat", 1), ("6 cats", 5), ("a dozen owls", 5),
    ("half a dozen owls", 5),
    ("twenty cats", 5), ("a hundred balloons", 5), ("0 cats", 1), ("no cats", 1)])
def test_copies_of_prompts_that_are_no_captions(prompt: str, copies: int) -> None:
    assert copies_of(prompt) == (copies, copies)


@pytest.mark.parametrize("prompt", ["cats", "green owls", "boxes of fries"])
def test_a_bare_plural_is_some(prompt: str) -> None:
    assert copies_of(prompt) == (2, 3)


@pytest.mark.parametrize("prompt, told", [
    ("2 cats", "two cats"), ("a drawing of 3 owls, grayscale", "a drawing of three owls, grayscale"),
    ("a pair of owls", "two owls"), ("a couple owls", "two owls"), ("two pairs of owls", "four owls"),
    ("two pairs of scissors", "two pairs of scissors"), ("2 pairs of scissors", "two pairs of scissors"),
    ("twelve owls", "five owls"), ("a dozen owls", "five owls"), ("half a dozen owls", "five owls"),
    ("two cats", "two cats"), ("a cat", "a cat"), ("cats", "cats"),
    ("a pair of scissors", "a pair of scissors"),
    ("a two-headed dragon", "a two-headed dragon"), ("1 cat", "1 cat")])
def test_a_number_is_told_as_the_captions_say_it(prompt: str, told: str) -> None:
    assert spelled(prompt) == told


def test_more_than_the_painter_draws_is_said() -> None:
    assert beyond("a drawing of 2 cats") is None and beyond("cats") is None
    assert beyond("a dozen owls") == ("image_prompt='a dozen owls': asks for 12; the painter draws 1 to 5 "
                                      "copies, and draws 5")
    assert "asks for 0" in str(beyond("no cats"))


def test_free_columns_keep_their_distance() -> None:
    assert free_intervals(None, 10, 50) == [(0, 1024)]
    assert free_intervals(SPEECH, 15, 50) == [(0, 385), (640, 1024)]
    assert free_intervals(SPEECH, 15, 400) == []


@pytest.mark.parametrize("prompt", ["a cat", "cats", "two cats", "three cats", "four cats", "five cats"])
@pytest.mark.parametrize("seed", range(5))
def test_copies_lie_beside_speech_and_each_other_within_the_picture(prompt: str, seed: int) -> None:
    scene = Scenes(margin=0.15).plan(prompt, seed, SPEECH)
    squares = scene[scene[:, 2] > 0]
    low, high = copies_of(prompt)
    assert low <= len(squares) <= high
    left, right = (squares[:, 0] - squares[:, 2] / 2) * HEIGHT, (squares[:, 0] + squares[:, 2] / 2) * HEIGHT
    assert (left >= -1e-3).all() and (right <= 1024 + 1e-3).all()
    assert ((right <= 385 + 1e-3) | (left >= 640 - 1e-3)).all()
    assert (left[1:] >= right[:-1] - 1e-3).all()
    top, bottom = squares[:, 1] - squares[:, 2] / 2, squares[:, 1] + squares[:, 2] / 2
    assert (top >= -1e-6).all() and (bottom <= 1 + 1e-6).all()
    assert np.array_equal(scene, Scenes(margin=0.15).plan(prompt, seed, SPEECH))


def test_where_speech_fills_the_picture_the_copies_lie_anywhere() -> None:
    scene = Scenes().plan("two cats", 0, np.ones(1024, np.float32))
    assert (scene[:, 2] > 0).sum() == 2


@pytest.mark.parametrize("change", [{"size": 0.0}, {"brightness": 1.5}, {"margin": -1.0}])
def test_options_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"scene.{next(iter(change))}="):
        Scenes(**change)


def test_place_runs_from_minus_one_to_one_and_backwards_when_mirrored() -> None:
    # One square of half the height, its middle at x = 1, y = 0.5.
    scene = torch.zeros(2, COPIES, 5)
    scene[:, 0] = torch.tensor([1.0, 0.5, 0.5, 0.0, 0.6])
    scene[1, 0, 3] = 1
    place, nearest = cell_coordinates(scene, 16, 64)
    cells = scene_cells(scene, 16, 64, margin=0.0)
    assert cells[0, 0].nonzero().min(0).values.tolist() == [4, 12] and cells[0].sum() == 8 * 8
    inside = place[0, :, 4:12, 12:20]
    edges = torch.linspace(-0.875, 0.875, 8)
    torch.testing.assert_close(inside[0], edges.expand(8, 8))
    torch.testing.assert_close(inside[1], edges[:, None].expand(8, 8))
    torch.testing.assert_close(place[1, 0], -place[0, 0])
    assert (nearest == 0).all()


@pytest.mark.parametrize("index", range(6))
def test_the_drawing_lies_in_the_squares_that_its_scene_tells(index: int) -> None:
    sampler = PictureSampler(seed=3, silhouettes=0.0)
    picture, _, _ = sampler.sample(index)
    cells = scene_cells(torch.from_numpy(sampler.scene(index))[None], 256, 1024, margin=1.0)[0, 0].numpy()
    assert picture[~cells].max() == 0
    assert picture[cells].max() > 0


def test_the_adapter_says_nothing_outside_and_changes_sign_where_mirrored() -> None:
    torch.manual_seed(0)
    adapter = SceneAdapter(channels=8, width=16, hidden=16, layers=1)
    scene = torch.zeros(2, COPIES, 5)
    scene[:, 0] = torch.tensor([1.0, 0.5, 0.5, 0.0, 0.6])
    scene[1, 0, 3] = 1
    pooled = torch.randn(1, 16).expand(2, -1)
    assert adapter(scene, pooled).abs().max() == 0  # starts at zero
    torch.nn.init.normal_(adapter.last.weight)
    said = adapter(scene, pooled)
    outside = ~scene_cells(scene, 16, 64).expand_as(said)
    assert said[outside].abs().max() == 0 and said[~outside].abs().min() > 0
    # even + odd at a place, even − odd at its mirror image
    film = adapter.modulation(pooled[:1])
    even, odd = adapter.last(_hidden(adapter, scene[0, 0], film)).chunk(2, -1)
    torch.testing.assert_close(said[0, :, 4, 12], (even + odd)[0])
    torch.testing.assert_close(said[1, :, 4, 19], (even - odd)[0])


def _hidden(adapter: SceneAdapter, square: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
    """What the last layer reads at the square's upper left cell."""
    found = {}
    hook = adapter.last.register_forward_hook(lambda _, args, __: found.update(x=args[0]))
    adapter.describe(torch.tensor([[-0.875, -0.875]]), square[None], film)
    hook.remove()
    return found["x"]


def test_windows_take_the_scene_along() -> None:
    torch.manual_seed(0)
    scene = torch.zeros(3, COPIES, 5)
    scene[:, 0] = torch.tensor([3.0, 0.5, 0.5, 0.0, 0.6])
    # A latent that shows where the square is.
    latent = scene_cells(scene, 16, 64).float()
    cut = crop_to_scene({"latent": latent, "scene": scene}, 32)
    assert cut["latent"].shape == (3, 1, 16, 32) and cut["columns"] == 32
    assert torch.equal(scene_cells(cut["scene"], 16, 32).float(), cut["latent"])
    # Nothing of it lies on another device than the batch: on this one, as on a GPU, mixing them is an error.
    elsewhere = {"latent": latent.to("meta"), "scene": scene.to("meta")}
    assert crop_to_scene(elsewhere, 32)["latent"].shape == (3, 1, 16, 32)


def test_loss_weights_are_whole_beside_a_square() -> None:
    scene = torch.zeros(1, COPIES, 5)
    scene[:, 0] = torch.tensor([1.0, 0.5, 0.5, 0.0, 0.6])
    weights = scene_weights(scene, 16, 64, 0.25)
    assert weights[0, 0, 8, 16] == 1 and weights[0, 0, 8, 11] == 1 and weights[0, 0, 0, 63] == 0.25
