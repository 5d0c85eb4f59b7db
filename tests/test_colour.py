"""Colour: the luminance, and so the sound, stays to the bit; what is coloured is what was learnt."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from machine import needs_font
from omegaconf import OmegaConf
from PIL import Image
from tiny_family import tiny_pocket_family, tiny_stable_diffusion, tiny_text_encoder, tiny_tokenizer

from images_that_speak import cli, config
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.picture import luminance as pixel_luminance
from images_that_speak.audio.picture import read_picture
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.colour import colouring as module
from images_that_speak.colour.colouring import colour
from images_that_speak.data.coloured import ColouredWindows
from images_that_speak.data.emoji import concepts, drawing
from images_that_speak.data.manifest import write_manifest
from images_that_speak.data.pictures import scaled
from images_that_speak.diffusion.colorization import (
    FactorizedColour,
    colorize,
    from_ratio,
    luminance,
    paint,
    with_gray,
)
from images_that_speak.diffusion.layout import pocket_layout, stable_diffusion_layout
from images_that_speak.diffusion.predictor import NoiseSchedule
from images_that_speak.diffusion.sampling import make_scheduler
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.networks.chroma import ChromaNet
from images_that_speak.resources import ROOT
from images_that_speak.scoring.judges import load_readers
from images_that_speak.training.colour import ColourTraining
from images_that_speak.training.train import train

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "set_alpha_to_one": True, "timestep_spacing": "trailing"}


# --- the gray component

def test_luminance_is_that_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(pixel_luminance(pixels), np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("strength", [0.0, 0.02, 0.3, 3.0])
def test_whatever_the_colours_the_luminance_is_the_picture(strength):
    """To the bit, 0 dB, where a level is 0.57 dB; also where the colours leave the cube."""
    rng = np.random.default_rng(1)
    gray = np.concatenate([np.arange(256), rng.integers(0, 256, 256 * 15)]).reshape(16, 256).astype(np.uint8)
    painted = paint(gray, strength * rng.normal(size=(3, *gray.shape)))
    np.testing.assert_array_equal(np.asarray(Image.fromarray(painted).convert("L")), gray)
    assert (painted.std(-1).mean() > 1) == (strength > 0)


def test_a_colour_that_fits_is_painted_as_it_is():
    rgb = np.random.default_rng(2).uniform(0.3, 0.7, (3, 32, 32))
    y = np.tensordot([0.299, 0.587, 0.114], rgb, 1)
    gray = np.round(255 * y).astype(np.uint8)
    np.testing.assert_allclose(paint(gray, rgb - y).transpose(2, 0, 1) / 255, rgb, atol=3.6 / 255)


def test_gray_and_chroma_are_parted():
    rgb, gray = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    mixed = with_gray(rgb, gray)
    torch.testing.assert_close(luminance(mixed), gray)
    torch.testing.assert_close(mixed - gray[:, None], rgb - luminance(rgb)[:, None])
    assert luminance(from_ratio(torch.randn(2, 2, 4, 4))).abs().max() < 1e-6


# --- factorized diffusion

@pytest.mark.parametrize("start", [0, 7])
def test_the_chroma_is_the_models_and_the_gray_the_pictures(start):
    """A model to which everything looks like one picture: its chroma on the given gray, at any start."""
    thing, gray = torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)
    asked = []

    def predict(x: torch.Tensor, t: torch.Tensor, progress: float) -> torch.Tensor:
        asked.append((x, int(t)))
        return 2 * thing - 1

    epsilon = torch.randn(1, 3, 8, 8)
    found = colorize(predict, gray, lambda rgb: 2 * rgb - 1, lambda x: (x + 1) / 2,
                     make_scheduler("ddim", SCHEDULE), 30, start, epsilon)
    torch.testing.assert_close(found, with_gray(thing, gray), atol=1e-4, rtol=0)
    assert len(asked) == 30 - start
    # At every step the gray component is that of the picture, noised: α·gray + σ·ε.
    schedule = NoiseSchedule()
    for x, t in asked:
        known = schedule.alpha[t] * (2 * gray - 1) + schedule.sigma[t] * luminance(epsilon)
        torch.testing.assert_close(luminance(x), known, atol=1e-3, rtol=0)


def test_stable_diffusion_colours_in_its_latents(tmp_path):
    """Random weights, so the colours are noise; the luminance is the picture's."""
    image, speech = tiny_stable_diffusion(tmp_path)
    layout = stable_diffusion_layout(str(image), str(speech))
    colorizer = FactorizedColour(layout, steps=3, start=1)
    colorizer.load("cpu")
    gray = np.random.default_rng(3).integers(0, 256, (256, 1024)).astype(np.uint8)
    chroma = colorizer.chroma(gray, "a drawing of an owl, grayscale", 0)
    assert np.abs(chroma).mean() > 1e-3
    np.testing.assert_array_equal(pixel_luminance(paint(gray, chroma)), gray)
    np.testing.assert_array_equal(colorizer.chroma(gray, "a picture of an owl", 0), chroma)
    assert np.abs(colorizer.chroma(gray, "a picture of an owl", 1) - chroma).max() > 1e-3
    with pytest.raises(UserError, match="colorizer.start=3: expected 0 to 2"):
        FactorizedColour(layout, steps=3, start=3)


def test_a_gray_family_has_no_colours(tmp_path):
    cfg = config._compose("colour", ["colorizer=factorized"])
    assert cfg.colorizer.steps == 30 and cfg.colorizer.start == 7 and cfg.colorizer.scale == 10
    with pytest.raises(UserError, match="knows no colours"):
        FactorizedColour(pocket_layout(tiny_pocket_family(tmp_path)))


# --- the command

@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[str]:
    """Overrides that point at a network of random weights and its text encoder."""
    folder = tmp_path_factory.mktemp("colours")
    torch.manual_seed(0)
    network = ChromaNet((8, 8), 16)
    torch.nn.init.normal_(network.palette[2].weight, std=0.3)
    network.save_pretrained(str(folder / "colour"))
    tiny_text_encoder(folder / "text_encoder")
    tiny_tokenizer(folder / "tokenizer")
    return [f"colorizer.weights={folder}/colour", f"colorizer.text_encoder={folder}/text_encoder",
            f"colorizer.tokenizer={folder}/tokenizer"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of two samples of the tiny family."""
    logs = tmp_path_factory.mktemp("logs")
    cfg = config.compose("generate", [
        f"family.weights={tiny_pocket_family(tmp_path_factory.mktemp('pocket'))}", f"paths.logs={logs}",
        "composition=masks", "steps=1", "num_samples=2", "audio_prompt=music"])
    OmegaConf.update(cfg, "reader", None)
    generate(cfg)
    return next((logs / "generate").iterdir())


def test_a_coloured_run_sounds_the_same_and_is_not_coloured_twice(made, parts, monkeypatch, capsys):
    assert colour(config.compose("colour", [f"run={made}", *parts])) == {"samples": 2, "made": 2}
    before = {}
    for folder in (made / "samples").iterdir():
        pixels = np.asarray(Image.open(folder / "colour.png"))
        assert pixels.shape == (256, 1024, 3) and pixels.astype(int).std(-1).mean() > 1
        # What evaluate.py would read of it, and what a vocoder would play.
        np.testing.assert_array_equal(read_picture(folder / "colour.png"), read_picture(folder / "image.png"))
        before[folder] = (folder / "colour.png").read_bytes()
    first = min(before)
    (first / "colour.png").unlink()
    painted = []
    real = module.write_colour
    monkeypatch.setattr(module, "write_colour", lambda folder, *rest: painted.append(folder) or real(
        folder, *rest))
    assert colour(config.compose("colour", [f"run={made}", *parts]))["made"] == 1
    assert painted == [first] and (first / "colour.png").read_bytes() == before[first]
    assert "1 of 2 samples coloured" in capsys.readouterr().out
    # Other settings, or another picture, make them anew.
    assert colour(config.compose("colour", [f"run={made}", "saturation=0", *parts]))["made"] == 2
    assert np.asarray(Image.open(first / "colour.png")).std(-1).max() == 0


@pytest.mark.parametrize(("overrides", "told"), [
    ([], "run: nothing to colour"),
    (["run=/nowhere"], "run=/nowhere: no such folder"),
    (["run=docs"], "holds no folder samples"),
    (["run=docs", "saturation=-1"], "saturation=-1"),
    (["run=docs", "colorizer=pockt"], "Did you mean 'pocket'"),
])
def test_bad_input_is_told(overrides, told):
    with pytest.raises(UserError, match=told):
        config.compose("colour", overrides)


def test_missing_weights_are_told_before_anything_is_loaded(made):
    with pytest.raises(UserError, match="colorizer.weights=/nowhere: no such folder"):
        colour(config.compose("colour", [f"run={made}", "colorizer.weights=/nowhere"]))


def test_help_tells_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["colour", "--help"])
    cli.launch("colour", "nowhere.work")
    told = capsys.readouterr().out
    assert "usage: python -m images_that_speak.colour" in told and "factorized" in told


def test_the_same_words_are_heard_of_a_coloured_picture(parts, tmp_path):
    """A speaking picture made with the shipped weights, in the wildest colours, its sound decoded anew."""
    source = ROOT / "docs/media/example.png"
    gray = np.round(255 * read_picture(source)).astype(np.uint8)
    colorizer = config.instantiate(config._compose("colour", parts).colorizer)
    colorizer.load("cpu")
    chroma = colorizer.chroma(gray, "three horses on black", 0)
    Image.fromarray(paint(gray, chroma)).save(tmp_path / "colour.png")
    pictures = [read_picture(path) for path in (source, tmp_path / "colour.png")]
    decibels = np.abs(pictures[0] - pictures[1]).max() * MEL.log_range * 20 / np.log(10)
    vocoder = load_vocoder("griffin_lim")
    waves = [vocoder.decode_picture(np.round(255 * picture).astype(np.uint8)[None])[0].numpy()
             for picture in pictures]
    assert decibels == 0 and np.array_equal(*waves)
    reader = load_readers(config.defaults("generate").reader, "cpu", see=False).speech
    heard = [reader.read(wave).text for wave in waves]
    assert heard[0] == heard[1] != ""


# --- with the shipped weights

@needs_font
def test_the_shipped_network_knows_what_is_of_which_colour():
    """Of drawings by their captions: a frog and a crocodile are green, a heart and a strawberry red."""
    colorizer = config.instantiate(config._compose("colour", []).colorizer)
    colorizer.load("cpu")
    strongest = {}
    for concept in concepts():
        if concept.name in ("frog", "crocodile", "heart", "strawberry"):
            canvas = np.zeros((256, 1024), np.float32)
            figure = drawing(concept.char)
            canvas[20:236, 400:616] = 0.5 * scaled(figure.gray * figure.alpha, 216, 216)
            gray = np.round(255 * canvas).astype(np.uint8)
            chroma = colorizer.chroma(gray, f"a drawing of {concept.singular}, grayscale", 0)
            strongest[concept.name] = "rgb"[int(chroma[:, 20:236, 400:616].mean((1, 2)).argmax())]
    assert strongest == {"frog": "g", "crocodile": "g", "heart": "r", "strawberry": "r"}


# --- training

@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Three clips of noise in place of speech."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    (root / "spectrograms").mkdir()
    rows = []
    for i in range(3):
        np.save(root / f"spectrograms/{i}.npy", rng.integers(0, 200, (256, 1024)).astype(np.uint8))
        rows.append({"id": str(i), "text": "a", "voice": "slt", "tts": "flite", "tts_version": "1",
                     "mel_spec": MEL.hash, "split": "train", "start": 0.0, "seconds": 1.0, "symbols": ["ah"],
                     "starts": [0.0], "ends": [1.0], "spectrogram": f"spectrograms/{i}.npy", "wave": ""})
    write_manifest(root / "manifest.parquet", rows)
    return root


@needs_font
def test_windows_are_a_function_of_seed_and_index(corpus):
    windows = ColouredWindows(str(corpus), seed=3, batch_size=6, speaking=1.0)
    batch, again = windows.batch(5), ColouredWindows(str(corpus), seed=3, batch_size=6, speaking=1.0).batch(5)
    assert batch.gray.equal(again.gray) and batch.captions == again.captions
    assert batch.gray.shape == (6, 1, 32, 32) and batch.chroma.shape == (6, 2, 32, 32)
    assert 0 <= batch.gray.min() and batch.gray.max() <= 1 and batch.chroma.abs().max() > 0.2
    silhouettes = ColouredWindows(str(corpus), seed=3, batch_size=6, silhouettes=1.0).batch(0)
    assert silhouettes.chroma.abs().max() == 0


@pytest.fixture
def teacher(tmp_path) -> dict[str, Path]:
    tiny_text_encoder(tmp_path / "text_encoder")
    tiny_tokenizer(tmp_path / "tokenizer")
    return {name: tmp_path / name for name in ("text_encoder", "tokenizer")}


@needs_font
def test_one_batch_is_learnt_by_heart(corpus, teacher):
    torch.manual_seed(0)
    module = ColourTraining(**teacher, widths=(16, 16))
    batch = vars(ColouredWindows(str(corpus), batch_size=4, silhouettes=0.0, speaking=0.0).batch(0))
    optimizer = torch.optim.Adam(module.network.parameters(), lr=1e-2)
    for _ in range(60):
        loss, gray = module.errors(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.6 * gray


@needs_font
def test_training_writes_what_the_command_reads(corpus, teacher, tmp_path):
    result = train(config.compose("train", [
        "experiment=pocket/colour", "steps=3", "data.batch_size=4", "model.widths=[8,8]",
        f"data.corpus={corpus}", "export=null", "device=cpu", f"paths.logs={tmp_path}",
        *(f"model.{name}={folder}" for name, folder in teacher.items())]))
    assert 0.5 < result["valid/error"] < 2
    folder, = tmp_path.glob("train/*/weights/colour")
    network = ChromaNet.from_pretrained(folder, torch_dtype=torch.float32)
    assert network(torch.rand(1, 1, 32, 128), torch.rand(1, 16)).shape == (1, 2, 32, 128)
