"""Sound to image: the published generator layer by layer, the pairs, the losses, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from killed_trainings import write_pairs
from PIL import Image

from images_that_speak import config
from images_that_speak.audio.augment import augmented, tilted
from images_that_speak.audio.sound_features import MeanMFCC, sound_checked, windows
from images_that_speak.checks import generate as check_generate
from images_that_speak.checks import train as check_train
from images_that_speak.data import environments
from images_that_speak.data.sound_corpus import find_packs, qt_resources
from images_that_speak.data.sound_pictures import (
    SoundPair,
    SoundPictures,
    read_sound,
    read_sound_pairs,
    read_square,
    split_pairs,
)
from images_that_speak.errors import UserError
from images_that_speak.files import read_json
from images_that_speak.generate import generate
from images_that_speak.networks.mfcc_gan import SoundPictureDiscriminator, SoundPictureGenerator
from images_that_speak.scoring.pairs import histogram_similarity
from images_that_speak.speaking.from_sound import SoundToImage
from images_that_speak.speaking.voices import read_recording
from images_that_speak.training.sound_to_image import SoundToImageTraining, frame_to_frame, ssim

RATE = 16_000


def pairs_in(folder: Path) -> Path:
    write_pairs(folder)
    return folder


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


# --- networks

def test_the_published_generator_layer_by_layer() -> None:
    generator = SoundPictureGenerator().eval()
    linear = [tuple(layer.weight.shape) for layer in generator.encoder if isinstance(layer, torch.nn.Linear)]
    assert linear == [(1024, 104), (768, 1024), (512, 768), (256, 512), (100, 256)]
    x, shapes = generator.encoder(torch.randn(2, 104))[..., None, None], []
    assert x.shape == (2, 100, 1, 1)
    for layer in generator.generator:
        x = layer(x)
        if isinstance(layer, torch.nn.ConvTranspose2d):
            assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(256, 2, 2), (128, 4, 4), (64, 8, 8), (32, 16, 16), (16, 32, 32), (8, 64, 64),
                      (4, 128, 128), (3, 256, 256)]
    kinds = [type(layer).__name__ for layer in generator.generator]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "LeakyReLU"] * 7 + ["ConvTranspose2d", "Tanh"]
    slopes = {layer.negative_slope for layer in generator.modules() if isinstance(layer, torch.nn.LeakyReLU)}
    assert slopes == {0.2} and x.abs().max() <= 1


def test_its_parameters_are_counted() -> None:
    sizes, channels = [104, 1024, 768, 512, 256, 100], [100, 256, 128, 64, 32, 16, 8, 4, 3]
    linear = sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))
    convolved = sum(a * b * 16 + b for a, b in zip(channels, channels[1:], strict=False))
    norms = sum(2 * b for b in channels[1:-1])
    assert linear == 1_445_476 and linear + convolved + norms == 2_555_675
    assert sum(p.numel() for p in SoundPictureGenerator().parameters()) == 2_555_675


def test_weights_come_back(tmp_path: Path) -> None:
    made = SoundPictureGenerator(hidden=[8], channels=[4] * 8, normalised=True, dropout=0.5).eval()
    made.save_pretrained(tmp_path)
    again = SoundPictureGenerator.from_pretrained(tmp_path).eval()
    heard = torch.randn(3, 104)
    assert torch.equal(made(heard), again(heard)) and again.config.features == "mfcc"
    with pytest.raises(ValueError, match="expected eight"):
        SoundPictureGenerator(channels=[4, 4])


def test_the_discriminator_judges_patches_and_the_sound() -> None:
    judge = SoundPictureDiscriminator(104, 4).eval()
    picture, heard = torch.randn(2, 3, 256, 256), torch.randn(2, 104)
    scores = judge(picture, heard)
    assert scores.shape == (2, 1 + 16 * 16)
    other = judge(picture, heard + 1)
    assert not torch.equal(scores[:, 0], other[:, 0]) and torch.equal(scores[:, 1:], other[:, 1:])


# --- sounds

def test_mfcc_of_any_file(tmp_path: Path) -> None:
    """The rate, the channels and the loudness of a recording do not matter."""
    found = []
    for name, rate, channels, loud in (("a.wav", 16_000, 1, 1.0), ("b.flac", 44_100, 2, 0.1)):
        wave = loud * tone(440, 1, rate)
        soundfile.write(tmp_path / name, np.stack([wave] * channels, 1), rate)
        found.append(MeanMFCC()(read_sound(tmp_path / name)))
    assert found[0].shape == (104,) and np.isfinite(found[0]).all()
    # What is near the floor is rounded otherwise; the shape of the spectrum is the same.
    assert np.corrcoef(found[0][1:14], found[1][1:14])[0, 1] > 0.95
    noise = MeanMFCC()(sound_checked(np.random.default_rng(0).normal(size=RATE), "noise"))
    assert np.abs(noise - found[0]).max() > 10 * np.abs(found[0] - found[1])[1:14].max() / 5


@pytest.mark.parametrize(("wave", "told"), [
    (np.zeros(RATE), "is silent"), (np.ones((2, RATE)), "expected .samples,."),
    (np.full(RATE, np.nan), "holds NaN"), (np.ones(100), "at least 0.05 s")])
def test_what_is_no_sound_is_refused(wave: np.ndarray, told: str) -> None:
    with pytest.raises(UserError, match=f"here: .*{told}"):
        sound_checked(wave, "here")


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("no sound")
    with pytest.raises(UserError, match="x.wav: not a readable sound"):
        read_sound(tmp_path / "x.wav")


def test_variants_are_drawn_from_their_number_alone() -> None:
    wave = tone(440, 1)
    first, again, other = (augmented(wave, np.random.default_rng(i)) for i in (1, 1, 2))
    assert np.array_equal(first, again) and len(first) != len(other)
    assert np.isfinite(first).all() and abs(float(np.abs(first).max()) - 0.9) < 1e-6
    assert len(augmented(tone(440, 0.06), np.random.default_rng(3))) > 0
    low, high = (np.abs(tilted(tone(hertz, 1), 6)).max() for hertz in (250, 1000))
    assert high / low == pytest.approx(10 ** (12 / 20), rel=0.02)  # two octaves


def test_frames_of_a_longer_sound() -> None:
    parts = windows(np.arange(10 * RATE, dtype=np.float32), 2.0, 5)
    assert len(parts) == 50 and {len(part) for part in parts} == {2 * RATE}
    assert parts[0][0] == 0 and parts[-1][-1] == 10 * RATE - 1
    assert parts[25][RATE] == pytest.approx(5.1 * RATE)  # the middle of its window
    assert [len(part) for part in windows(np.zeros(RATE // 4), 2.0, 5)] == [RATE // 4]


# --- pairs

def test_pairs_are_read(tmp_path: Path) -> None:
    pairs = read_sound_pairs(pairs_in(tmp_path))
    assert len(pairs) == 12 and pairs[4].label == "a" and pairs[4].source == "1"
    assert pairs[4].image == tmp_path / "images/4.png" and pairs[4].sound == tmp_path / "sounds/4.wav"
    square = read_square(pairs[4].image)
    assert square.shape == (256, 256, 3) and square[128, 128].tolist() == [80, 100, 50]


def test_pairs_of_features_are_read(tmp_path: Path) -> None:
    table = pairs_in(tmp_path) / "pairs.csv"
    numbers = ",".join(str(i + 0.5) for i in range(104))
    table.write_text("\n".join(["image," + ",".join(f"mfcc_{i}" for i in range(104)),
                                *(f"{row.split(',')[0]},{numbers}"
                                  for row in table.read_text().splitlines()[1:])]))
    data = SoundPictures(tmp_path, batch_size=4)
    assert data.train_batch(0)["features"].tolist() == [[i + 0.5 for i in range(104)]] * 4
    with pytest.raises(UserError, match="features and no sounds"):
        SoundPictures(tmp_path, variants=2)


@pytest.mark.parametrize(("before", "after", "told"), [
    ("image", "imag", "no column image. Did you mean 'imag'"), ("sound", "noise", "no column sound, and 1 "),
    ("3.png", "x.png", "line 5: image=x.png: no such file"), ("sounds/3.wav", "", "line 5: sound=: no such")])
def test_wrong_tables_are_refused(tmp_path: Path, before: str, after: str, told: str) -> None:
    table = pairs_in(tmp_path) / "pairs.csv"
    table.write_text(table.read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=told):
        read_sound_pairs(tmp_path)


def test_no_table_is_told_with_how_to_build_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"images_that_speak.data.sound_corpus {folder}"):
            read_sound_pairs(folder)


def test_sources_are_held_apart(tmp_path: Path) -> None:
    data = SoundPictures(pairs_in(tmp_path), held_out=["1", "3"])
    assert {data.pairs[i].source for i in data.train} == {"0", "2"}
    assert {data.pairs[i].source for i in data.valid} == {"1", "3"}
    with pytest.raises(UserError, match="data.held_out=4: expected some of 0, 1, 2, 3"):
        SoundPictures(tmp_path, held_out=["4"])
    shares = SoundPictures(tmp_path, share=0.75)
    assert len(shares.train) == 9 and not set(shares.train) & set(shares.valid)
    pair = SoundPair(tmp_path, None, (), "only", "x", "")
    with_other = [*data.pairs, pair]
    assert split_pairs(with_other, ["x"], 0.5, 0)[1] == []  # nothing that draws it was trained


def test_batches_are_functions_of_their_number(tmp_path: Path) -> None:
    data = SoundPictures(pairs_in(tmp_path), batch_size=5, held_out=["3"], variants=2)
    ahead = [data.train_batch(number) for number in range(4)]
    again = SoundPictures(tmp_path, batch_size=5, held_out=["3"], variants=2)
    for name in ("features", "picture", "follows"):
        assert torch.equal(again.train_batch(3)[name], ahead[3][name])
    # An epoch has every row once.
    seen = [row for number in range(9) for row in data._drawn(5 * number, 5)]
    assert sorted(seen[:9]) == sorted(data.train) == sorted(seen[9:18])
    kept = list((tmp_path / "features/mfcc-2").iterdir())
    assert len(kept) == 12 and np.load(kept[0]).shape == (3, 104)


def test_labels_are_drawn_equally_often(tmp_path: Path) -> None:
    table = pairs_in(tmp_path) / "pairs.csv"
    table.write_text(table.read_text().replace(",b,", ",a,", 5))  # eleven of a, one of b
    rows = SoundPictures(tmp_path, held_out=["0"], balanced=True)
    drawn = [rows.pairs[row].label for number in range(60) for row in rows._drawn(8 * number, 8)]
    assert drawn.count("b") / len(drawn) == pytest.approx(0.5, abs=0.06)


def test_frames_follow_one_another(tmp_path: Path) -> None:
    data = SoundPictures(pairs_in(tmp_path), batch_size=6, held_out=["3"], sequences=True)
    assert data.followers == {0: 1, 1: 2, 3: 4, 4: 5, 6: 7, 7: 8}
    assert any(data.train_batch(number)["follows"].any() for number in range(3))
    assert not SoundPictures(tmp_path, batch_size=6).train_batch(0)["follows"][0]


def test_environments_are_eight_and_differ() -> None:
    assert set(environments.SOUNDS) == set(environments.SCENES) and len(environments.SOUNDS) == 8
    heard = np.stack([MeanMFCC()(environments.sound_of(name, 0)) for name in environments.SOUNDS])
    apart = np.linalg.norm(heard[:, None] - heard[None], axis=2)
    assert apart[~np.eye(8, dtype=bool)].min() > 10
    for name in environments.SCENES:
        first, moved, other = (np.asarray(environments.picture_of(name, *place), int)
                               for place in ((0, 0), (0, 5), (1, 0)))
        assert first.shape == (256, 256, 3)
        assert 0 < np.abs(first - moved).mean() < np.abs(first - other).mean()
        assert np.array_equal(first, np.asarray(environments.picture_of(name, 0, 0), int))


def test_qt_resources_are_read() -> None:
    """A file of two entries, written as Qt's rcc describes it: a folder with one file in it."""
    def name(text: str) -> bytes:
        return struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")

    names = name("sounds") + name("dog.ogg")
    tree = (struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", 0, 2, 1, 2)
            + struct.pack(">IHHHI", len(name("sounds")), 0, 0, 0, 0))
    content = struct.pack(">I", 4) + b"bark"
    head = 20
    data = struct.pack(">4s4I", b"qres", 1, head, head + len(tree) + len(names), head + len(tree))
    assert dict(qt_resources(data + tree + names + content)) == {"/sounds/dog.ogg": b"bark"}
    with pytest.raises(UserError, match="qres"):
        list(qt_resources(b"RIFF" + data))


def test_missing_packs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--scratch=.*no such folder .apt install scratch"):
        find_packs({"tuxpaint": tmp_path, "scratch": tmp_path / "nowhere"})


# --- losses

def test_losses_have_their_known_values() -> None:
    real = torch.rand(3, 3, 32, 32) * 2 - 1
    assert float(ssim(real, real)) == pytest.approx(1)
    moved = torch.zeros_like(real)
    moved[1:] = 0.5  # the picture jumps once where the made one stays
    assert float(frame_to_frame(moved * 0, moved, torch.tensor([False, True, True]))) == pytest.approx(0.25)
    assert float(frame_to_frame(moved, moved, torch.tensor([False, True, True]))) == 0
    assert float(frame_to_frame(moved * 0, moved, torch.tensor([False, False, False]))) == 0
    module = SoundToImageTraining({"hidden": [4], "channels": [4] * 8})
    few = SoundToImageTraining({"hidden": [4], "channels": [4] * 8}, {"similarity": 1.0, "pixels": 1.0})
    made = real.clone()
    made[1:] = 0  # all but the first
    assert float(few._losses(made, real, {}, rows=1)["similarity"]) == pytest.approx(0, abs=1e-5)
    assert float(few._losses(made, real, {}, rows=1)["pixels"]) > 0.1  # cheap ones see every row
    found = module._losses(real * 0, real, {})  # published: squared error times batch size
    assert float(found["squares"]) == pytest.approx(3 * float((real**2).mean()), rel=1e-5)


def test_what_histograms_tell() -> None:
    """Nothing of where anything is; and of a plain ground little else than its very level."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    assert histogram_similarity(picture, rng.permutation(picture.ravel()).reshape(64, 64)) == pytest.approx(1)
    ground = np.full((64, 64), 128, np.uint8)
    assert abs(histogram_similarity(ground, ground + 1)) < 0.01


@pytest.mark.parametrize("losses", [{"squaers": 1}, {"adversarial": 1}, {"squares": -1}])
def test_losses_that_make_no_sense_are_refused(losses: dict[str, float]) -> None:
    with pytest.raises(UserError, match="model.losses"):
        SoundToImageTraining({"hidden": [4], "channels": [4] * 8}, losses=losses)


def test_check_tells_the_parameters_and_the_missing_corpus(tmp_path: Path) -> None:
    cfg, found = config.examine("train", ["experiment=mfcc_published", f"paths.data={tmp_path}"])
    lines, wrong = check_train.check(cfg)
    assert not found and any("2,555,675" in line for line in lines)
    assert any("data.sound_corpus" in problem for problem in wrong), wrong
    pairs_in(tmp_path / "environments")
    lines, wrong = check_train.check(cfg)
    assert wrong == [] and any("9 pairs of" in line and "3 held out" in line for line in lines)


# --- generate.py method=sound_to_image

@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    SoundPictureGenerator(hidden=[8], channels=[4] * 8).save_pretrained(folder)
    return folder


def draw(drawer: Path, tmp_path: Path, *overrides: str) -> dict[str, Any]:
    return generate(config.compose("generate", [
        "method=sound_to_image", f"method.weights={drawer}", f"paths.logs={tmp_path / 'logs'}", *overrides]))


def test_sounds_are_drawn_and_longer_ones_are_filmed(drawer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/short.wav", tone(300, 1), RATE)
    soundfile.write(tmp_path / "in/long.flac", np.stack([tone(500, 5, 44_100)] * 2, 1), 44_100)
    assert draw(drawer, tmp_path, f"speech={tmp_path / 'in'}")["made"] == 2
    folders = {read_json(path)["drawn"]: path.parent
               for path in tmp_path.glob("logs/generate/*/samples/*/sample.json")}
    assert set(folders) == {"short", "long"} and not (folders["short"] / "drawn.mp4").exists()
    for folder in folders.values():
        assert np.asarray(Image.open(folder / "image.png")).shape == (256, 256, 3)
        assert soundfile.info(folder / "speech.wav").samplerate == RATE
    import av

    with av.open(str(folders["long"] / "drawn.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 25  # five a second
        assert film.streams.audio[0].duration * film.streams.audio[0].time_base == pytest.approx(5, abs=0.1)
    # The picture is that of the network for the whole sound.
    made = SoundToImage(str(drawer))
    again = made.draw([sound_checked(read_recording(tmp_path / "in/short.wav"), "")])[0]
    assert np.array_equal(again, np.asarray(Image.open(folders["short"] / "image.png")))
    assert draw(drawer, tmp_path, f"speech={tmp_path / 'in'}")["made"] == 2  # finished: its own result
    assert len(list(tmp_path.glob("logs/generate/*"))) == 1


@pytest.mark.parametrize(("override", "told"), [
    ("speech=null", "speech=null: method=sound_to_image draws a sound"),
    ("image_prompt=a cat", "image_prompt: method=sound_to_image does not use it"),
    ("num_samples=2", "num_samples: method=sound_to_image does not use it"),
    ("speech={}/silent.wav", "is silent"), ("speech={}/nowhere.wav", "no such file or folder"),
    ("method.weights=nowhere", "method.weights=nowhere: no such folder"),
    ("method.seconds=0", "method.seconds=0: expected seconds")])
def test_what_it_cannot_use_is_refused(drawer: Path, tmp_path: Path, override: str, told: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(300), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(UserError, match=told):
        draw(drawer, tmp_path, f"speech={tmp_path / 'a.wav'}", override.format(tmp_path))
    assert not list(tmp_path.glob("logs/generate/*/samples/*/image.png"))


def test_a_check_tells_what_would_be_drawn(drawer: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(300), RATE)
    lines, wrong = check_generate.check(config.compose("generate", [
        "method=sound_to_image", f"method.weights={drawer}", f"speech={tmp_path / 'a.wav'}"]))
    assert wrong == [] and any("1 picture of 1 sound" in line for line in lines)
    assert any("parameters, mfcc" in line for line in lines)
