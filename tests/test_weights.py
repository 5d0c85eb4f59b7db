"""Weights that are no numbers are refused by every loader, and sounds that are none become no file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from images_that_speak.audio.hifigan import HiFiGAN, load_published, save_published
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.audio.wave import wave_bytes, write_wave
from images_that_speak.diffusion.colorization import CaptionColour
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.layout import pocket_layout
from images_that_speak.diffusion.loading import load_model
from images_that_speak.diffusion.outputs import write_sample
from images_that_speak.errors import UserError
from images_that_speak.networks.autoencoder import load_autoencoder
from images_that_speak.networks.recogniser import PhoneRecogniser
from images_that_speak.networks.scene import pocket_scene_conditioner
from images_that_speak.networks.speech_bottleneck import SpeechBottleneck
from images_that_speak.resources import weights_dir
from images_that_speak.scoring.seen import load_picture_reader
from images_that_speak.speech.durations import DurationModel
from images_that_speak.speech.letters import LetterToSound
from images_that_speak.weights import check_finite

SHIPPED = weights_dir()
FILES = [str(path.relative_to(SHIPPED)) for path in sorted(SHIPPED.rglob("*.safetensors"))]


def poison(file: Path, value: float = float("nan")) -> None:
    """Put `value` among the numbers of a safetensors file."""
    with safe_open(str(file), "pt") as opened:
        state, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()
    name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 1)
    state[name].view(-1)[-1] = value
    save_file(state, str(file), metadata=metadata)


def family_of(folder: Path) -> Any:
    return Family.load(pocket_layout(folder))


def colours_of(folder: Path) -> Any:
    CaptionColour(folder / "colour", folder / "image/text_encoder", folder / "image/tokenizer").load("cpu")


LOADERS: dict[str, Callable[[Path], Any]] = {
    "clip": lambda folder: load_picture_reader(str(folder / "clip")),
    "colour": colours_of,
    "ctc": lambda folder: PhoneRecogniser.from_pretrained(folder / "ctc"),
    "image/bottleneck": lambda folder: load_model(
        SpeechBottleneck, folder / "image/bottleneck", torch.float32),
    "speech/durations": lambda folder: DurationModel.from_pretrained(folder / "speech/durations"),
    "speech/letters": lambda folder: LetterToSound.from_pretrained(folder / "speech/letters"),
    "vocos": lambda folder: load_vocoder(folder / "vocos"),
}


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_ships_is_asked_for_numbers(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "pocket"
    shutil.copytree(SHIPPED, folder, copy_function=lambda source, target: Path(target).symlink_to(source))
    (folder / file).unlink()
    shutil.copy(SHIPPED / file, folder / file)
    load = next((load for part, load in LOADERS.items() if file.startswith(part)), family_of)
    load(folder)
    poison(folder / file, float("inf") if FILES.index(file) % 2 else float("nan"))
    with pytest.raises(UserError, match="holds NaN or infinity") as caught:
        load(folder)
    assert str((folder / file).parent) in str(caught.value)


def test_a_training_begins_with_numbers(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "vae", tmp_path / "vae")
    poison(tmp_path / "vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match="holds NaN"):
        load_autoencoder(tmp_path / "vae")
    shutil.copytree(SHIPPED / "image", tmp_path / "image")
    poison(tmp_path / "image/text_encoder/model.safetensors")
    with pytest.raises(UserError, match="text_encoder: .* holds NaN"):
        pocket_scene_conditioner(tmp_path / "image/text_encoder", tmp_path / "image/tokenizer")


def test_a_published_vocoder_is_asked_too(tmp_path: Path) -> None:
    generator = HiFiGAN(upsample_initial_channel=32)
    with torch.no_grad():
        next(generator.parameters()).view(-1)[0] = float("nan")
    file = save_published(generator, tmp_path)
    with pytest.raises(UserError, match="g_00000000: .* holds NaN"):
        load_published(file)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_arrays_are_asked_as_tensors_are(kind: Any) -> None:
    check_finite({"a": np.ones(3, kind), "b": np.arange(3), "c": torch.zeros(0)}, "here")
    check_finite({"a": torch.ones(3, device="meta"), "b": torch.arange(3)}, "here")
    for value in (np.nan, np.inf, -np.inf):
        for array in (np.array([1, value], kind), torch.tensor([1, value], dtype=torch.bfloat16)):
            with pytest.raises(UserError, match="here: a holds NaN or infinity"):
                check_finite({"a": array}, "here")


class Broken:
    """A vocoder whose sound is none."""

    def decode_message(self, picture: np.ndarray) -> torch.Tensor:
        return torch.full((1, 163_840), float("nan"))


def test_a_sound_that_is_none_becomes_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="speech.wav: .* NaN or infinity"):
        write_sample(tmp_path / "sample", np.zeros((256, 1024), np.float32), Broken(), {})
    assert not list(tmp_path.rglob("*.*"))
    for value in (np.nan, np.inf):
        with pytest.raises(UserError, match="a.flac: .* NaN or infinity"):
            write_wave(tmp_path / "a.flac", np.array([0, value]))
    assert not list(tmp_path.rglob("*.*"))
    assert wave_bytes(np.array([0, 2.0]), "here")[-2:] == (32767).to_bytes(2, "little")
