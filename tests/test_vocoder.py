"""HiFi-GAN in every size, published checkpoints in old and new names, and what loading refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from images_that_speak import config
from images_that_speak.audio.griffin_lim import GriffinLim
from images_that_speak.audio.hifigan import (
    VARIANTS,
    HiFiGAN,
    fold_weight_norm,
    load_published,
    new_names,
    old_names,
    save_published,
)
from images_that_speak.audio.mel import LogMel, picture_to_logmel
from images_that_speak.audio.picture import quantise, read_picture
from images_that_speak.audio.vocoder import Vocoder, build_vocoder, load_vocoder, save_vocoder
from images_that_speak.audio.vocos import Vocos
from images_that_speak.errors import UserError
from images_that_speak.files import read_json
from images_that_speak.resources import ROOT
from images_that_speak.scoring.ctc import CTCReader

TINY = {"resblock": "2", "upsample_rates": [8, 5, 4], "upsample_kernel_sizes": [16, 10, 8],
        "upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 2]]}


def tiny(**changes: object) -> HiFiGAN:
    torch.manual_seed(0)
    generator = HiFiGAN(**{**TINY, **changes})
    with torch.no_grad():  # as drawn, the last layers are so small that any output is near silence
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return generator.eval()


LOGMEL = 3 * torch.randn(2, 256, 7, generator=torch.Generator().manual_seed(0)) - 5


def old_reference(generator: HiFiGAN) -> torch.nn.Module:
    """The same generator built of torch's old weight norm, as the published code is."""
    plain = HiFiGAN(**generator.config, weight_norm=False)
    for module in list(plain.modules()):
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
            torch.nn.utils.weight_norm(module)
    return plain


@pytest.mark.parametrize("name", VARIANTS)
def test_every_size_gives_a_hop_a_frame(name: str) -> None:
    generator = HiFiGAN.variant(name, upsample_initial_channel=16)
    with torch.no_grad():
        wave = generator(LOGMEL)
    assert wave.shape == (2, 7 * 160) and wave.abs().max() < 1
    published = {"v1": (512, 13.9e6), "v2": (128, 0.93e6), "v3": (256, 1.46e6)}[name]
    assert VARIANTS[name]["upsample_initial_channel"] == published[0]
    # About the size the paper gives (its Table 1), which has 80 bands and 256 samples a frame.
    with torch.device("meta"):
        size = sum(p.numel() for p in HiFiGAN.variant(name, weight_norm=False).parameters())
    assert 0.8 < size / published[1] < 1.3


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(8, 5, 4), (5, 4, 4, 2), (10, 16), (4, 40), (5, 32)]), st.data())
def test_odd_and_even_kernels_keep_the_length(rates: tuple[int, ...], data: st.DataObject) -> None:
    kernels = [data.draw(st.integers(rate, 3 * rate)) for rate in rates]
    generator = HiFiGAN(**{**TINY, "upsample_rates": rates, "upsample_kernel_sizes": kernels})
    with torch.no_grad():
        assert generator(LOGMEL[:1, :, :3]).shape == (1, 480)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_published_checkpoint_round_trip(tmp_path: Path) -> None:
    generator = tiny()
    path = save_published(generator, tmp_path, steps=2_500_000)
    assert path.name == "g_02500000"
    state = torch.load(path, weights_only=True)["generator"]
    reference = old_reference(generator)
    reference.load_state_dict(state)  # strictly: every old name is there, and no other
    with torch.no_grad():
        truth = generator(LOGMEL)
        assert torch.allclose(reference(LOGMEL), truth, atol=1e-6)
        assert torch.allclose(load_vocoder(tmp_path)(LOGMEL), truth, atol=1e-6)
        assert torch.allclose(load_vocoder(path)(LOGMEL), truth, atol=1e-6)
        assert torch.equal(load_published(path, weight_norm=True)(LOGMEL), truth)
    # The names torch's parametrisation writes load just as well.
    torch.save({"generator": generator.state_dict()}, path)
    with torch.no_grad():
        assert torch.allclose(load_vocoder(tmp_path)(LOGMEL), truth, atol=1e-6)


def test_auffusion_folder(tmp_path: Path) -> None:
    generator = tiny()
    save_published(generator, tmp_path / "vocoder", name="vocoder.pt")
    for where in (tmp_path, tmp_path / "vocoder"):
        loaded = load_vocoder(where)
        assert not any("parametrizations" in name for name in loaded.state_dict())
        with torch.no_grad():
            assert torch.allclose(loaded(LOGMEL), generator(LOGMEL), atol=1e-6)


def test_the_newest_checkpoint_of_a_run_is_taken(tmp_path: Path) -> None:
    for steps in (10, 9):
        save_published(tiny(), tmp_path, steps=steps)
    (tmp_path / "g_00000009").write_bytes(b"broken")
    load_vocoder(tmp_path)


def test_names_of_spectral_norm_are_told_from_weight_norm() -> None:
    old = {"a.weight_g": torch.ones(1), "a.weight_v": torch.ones(2), "a.bias": torch.ones(3),
           "b.weight_orig": torch.ones(4), "b.weight_u": torch.ones(5), "b.weight_v": torch.ones(6)}
    new = new_names(old)
    assert {name: len(value) for name, value in new.items()} == {
        "a.parametrizations.weight.original0": 1, "a.parametrizations.weight.original1": 2, "a.bias": 3,
        "b.parametrizations.weight.original": 4, "b.parametrizations.weight.0._u": 5,
        "b.parametrizations.weight.0._v": 6}
    assert new_names(new).keys() == new.keys() and old_names(new).keys() == old.keys()


def test_folded_weight_is_g_v_over_its_norm() -> None:
    g, v = torch.randn(4, 1, 1), torch.randn(4, 3, 5)
    for names in (("weight_g", "weight_v"), ("parametrizations.weight.original0",
                                             "parametrizations.weight.original1")):
        folded = fold_weight_norm({f"x.{names[0]}": g, f"x.{names[1]}": v})
        assert list(folded) == ["x.weight"]
        assert torch.allclose(folded["x.weight"], g * v / v.flatten(1).norm(dim=1)[:, None, None], atol=1e-6)


@pytest.mark.parametrize("vocoder", [tiny(), Vocos(dim=16, layers=1)], ids=["hifigan", "vocos"])
def test_own_format_round_trip(vocoder: Vocoder, tmp_path: Path) -> None:
    save_vocoder(vocoder, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert all(value.dtype == torch.float16 for value in load_file(tmp_path / "model.safetensors").values())
    loaded = load_vocoder(tmp_path)
    assert type(loaded) is type(vocoder) and loaded.config == vocoder.config and not loaded.training
    with torch.no_grad():
        truth = vocoder(LOGMEL)
        assert (loaded(LOGMEL) - truth).norm() < 0.02 * truth.norm()


def test_decode_picture_plays_the_8_bit_picture() -> None:
    vocoder = tiny()
    picture = np.random.default_rng(0).random((2, 256, 5), dtype=np.float32)
    eight_bits = np.round(picture * 255).astype(np.uint8)
    wave = vocoder.decode_picture(picture)
    assert wave.shape == (2, 800) and wave.dtype == torch.float32 and not wave.requires_grad
    assert torch.equal(wave, vocoder.decode_picture(eight_bits))
    assert torch.equal(wave, vocoder.decode_picture(torch.from_numpy(picture)))
    with torch.no_grad():
        direct = vocoder(picture_to_logmel(torch.from_numpy(eight_bits).float() / 255))
    assert torch.equal(wave, direct)


@pytest.mark.parametrize(("picture", "message"), [
    (np.full((1, 256, 4), np.nan, np.float32), "NaN"),
    (np.zeros((256, 1024), np.uint8), r"\(256, 1024\)"),
    (np.zeros((1, 80, 4), np.uint8), "256"),
    (np.zeros((1, 256, 4), np.int64), "int64"),
    (np.zeros((1, 256, 0), np.uint8), "frames"),
])
def test_bad_pictures(picture: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny().decode_picture(picture)


def test_vocos_frames_lie_on_the_mels() -> None:
    vocos = Vocos(dim=16, layers=1)
    # One frame of constant phase 0 is a pulse at its window's start, rotated by half a window to its middle.
    spectrum = torch.zeros(1, 513, 9, dtype=torch.complex64)
    spectrum[0, :, 4] = torch.tensor([1.0, -1.0]).repeat(257)[:513]
    wave = vocos.overlap_add(spectrum)
    assert wave.shape == (1, 9 * 160) and wave[0].abs().argmax() == 4 * 160 + 80


def test_vocos_overlap_add_inverts_the_stft() -> None:
    vocos = Vocos(dim=16, layers=1)
    wave = torch.randn(1, 40 * 160, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(wave, (432, 432))
    stft = torch.stft(padded, 1024, 160, window=vocos.window, center=False, return_complex=True)
    assert torch.allclose(vocos.overlap_add(stft)[:, 600:-600], wave[:, 600:-600], atol=1e-4)


def test_the_vocos_that_ships_is_understood() -> None:
    """By the reader that never heard it, and the words' part of the picture is in the sound again."""
    example = read_json(ROOT / "docs/media/example.json")
    picture = quantise(read_picture(ROOT / "docs/media/example.png"))[None]
    played = load_vocoder(config.compose("generate", ["vocoder=vocos"]).vocoder.path).decode_picture(picture)
    begin, end = example["phones"][0][1], example["phones"][-1][2]
    off = LogMel()(played) - picture_to_logmel(torch.from_numpy(picture) / 255)
    assert off[..., int(100 * begin):int(100 * end)].abs().mean() < 0.3  # nats; Griffin-Lim's is 0.17
    assert CTCReader().read(played[0].numpy()).text == example["audio_prompt"]


def test_griffin_lim_needs_no_weights() -> None:
    assert isinstance(load_vocoder(), GriffinLim) and isinstance(load_vocoder("griffin_lim"), GriffinLim)


def test_loading_refuses_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'griffin_lim'"):
        load_vocoder("grifin_lim")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no vocoder"):
        load_vocoder(tmp_path / "empty")

    save_vocoder(tiny(), tmp_path / "own")
    weights = (tmp_path / "own" / "model.safetensors").read_bytes()
    (tmp_path / "own" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="model.safetensors: not a readable safetensors file"):
        load_vocoder(tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    for change, message in (({"mel_spec": {**config["mel_spec"], "hop": 256}}, "another mel spec: hop=256"),
                            ({"upsample_initial_channel": 32}, "does not fit its config"),
                            ({"architecture": "hifigam"}, "Did you mean 'hifigan'"),
                            ({"colour": 1}, "colour"), ({"upsample_rates": [8, 8, 4]}, "multiply to 256")):
        (tmp_path / "own" / "model.safetensors").write_bytes(weights)
        (tmp_path / "own" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=message):
            load_vocoder(tmp_path / "own")


def test_published_checkpoints_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = save_published(tiny(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_mels": 80, "sampling_rate": 22050}))
    with pytest.raises(UserError, match="sample_rate=22050.*n_mels=80"):
        load_vocoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "fmax": None}))
    load_vocoder(tmp_path)  # null stands for half the sampling rate
    for content, message in (({"weights": 1}, "no key generator"), ([print], "not a readable checkpoint")):
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            load_vocoder(tmp_path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="g_00000000: not a readable checkpoint"):
        load_vocoder(tmp_path)


def test_settings_that_make_no_generator_are_all_named() -> None:
    with pytest.raises(UserError, match="(?s)multiply to 80.*none smaller.*halved.*odd sizes"):
        HiFiGAN(upsample_rates=[10, 8], upsample_kernel_sizes=[5, 8], upsample_initial_channel=6,
                resblock_kernel_sizes=[4], resblock_dilation_sizes=[[1]])
    with pytest.raises(UserError, match="Did you mean 'v1'"):
        HiFiGAN.variant("v11")
    with pytest.raises(UserError, match="layers_"):
        build_vocoder("vocos", {"layers_": 3})
