"""Loading families of both layouts, and refusing what is missing, truncated or of another kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny_family import VOICES, tiny_stable_diffusion

from images_that_speak.audio.mel import MEL
from images_that_speak.diffusion.family import Family, activity, find_device, phone_batch
from images_that_speak.diffusion.layout import find_weights, pocket_layout, stable_diffusion_layout
from images_that_speak.errors import UserError
from images_that_speak.networks.condition import Condition
from images_that_speak.speech.phonemes import PHONE_IDS
from images_that_speak.speech.tts import Phone
from images_that_speak.training.lora import LoraSettings, add_lora, export_lora

PHRASE = [Phone("hh", 2.0, 2.1), Phone("ax", 2.1, 2.2), Phone("l", 2.2, 2.4), Phone("ow", 2.4, 2.8)]


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def broken(pocket, tmp_path) -> Path:
    """A copy of the pocket family to damage."""
    return Path(shutil.copytree(pocket, tmp_path / "broken"))


def test_pocket_family_loads_every_part(pocket):
    family = Family.load(pocket)
    assert set(family.predictors) == set(family.conditioners) == {"image", "speech"}
    text = family.text_condition("image", ["a cat", "two dogs"])
    phones = family.phone_condition([PHRASE, PHRASE[:2]], [1, 2])
    x = torch.randn(2, 8, 16, 64)
    for branch, condition in (("image", text), ("speech", phones)):
        both = Condition.cat([family.null(branch, 2), condition])
        said = family.predictors[branch](torch.cat([x, x]), torch.full((4,), 500), both)
        assert said.x0.shape == (4, 8, 16, 64) and said.x0.isfinite().all()
        assert not said.x0[:2].equal(said.x0[2:])
    assert not any(p.requires_grad for p in family.predictors["image"].parameters())


def test_only_the_parts_asked_for_are_loaded(pocket):
    family = Family.load(pocket, ("image", "vae"))
    assert list(family.predictors) == ["image"] and family.vae is not None and family.vocoder is None


def test_latents_are_normalised_and_brought_back(pocket):
    """decode(latent) is the VAE's picture of latent · std + mean, and encode its inverse up to the VAE."""
    family = Family.load(pocket, ("vae",))
    latents = torch.randn(2, 8, 16, 64)
    expected = family.vae.decode(latents * 2.0 + 0.1).sample[:, 0] / 2 + 0.5
    torch.testing.assert_close(family.decode(latents), expected.clamp(0, 1), rtol=1e-4, atol=1e-5)
    picture = torch.rand(1, 256, 1024)
    z = family.vae.encode(picture[:, None] * 2 - 1).latent_dist.mean
    torch.testing.assert_close(family.encode(picture), (z - 0.1) / 2.0)


def test_the_template_surrounds_the_image_prompt(pocket):
    family = Family.load(pocket_layout(pocket, template="a painting of {}, grayscale"), ("image",))
    plain = family.conditioners["image"]
    expected = plain.encode({"input_ids": plain.tokenize(["a painting of a cat, grayscale"])}).tokens
    assert family.text_condition("image", ["a cat"]).tokens.equal(expected)
    with pytest.raises(UserError, match="expected one {} for the prompt"):
        pocket_layout(pocket, template="no place")


def test_stable_diffusion_and_auffusion_load(pipelines):
    layout = stable_diffusion_layout(*map(str, pipelines), offline=True)
    assert layout.latent_shape == (4, 32, 128) and not layout.speaks_phonemes
    assert layout.std == pytest.approx((1 / 0.18215,))
    assert layout.prediction_type == {"image": "epsilon", "speech": "epsilon"}
    family = Family.load(layout)
    said = family.text_condition("speech", ["a dog barks"])
    x0 = family.predictors["speech"](torch.randn(1, 4, 32, 128), torch.tensor([10]), said).x0
    picture = family.decode(x0)
    assert picture.shape == (1, 256, 1024) and 0 <= picture.min() and picture.max() <= 1
    # A colour autoencoder: the spectrogram is the mean of its channels.
    expected = (family.vae.decode(x0 / 0.18215).sample.mean(1) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(picture, expected, rtol=1e-4, atol=1e-5)
    wave = family.vocoder.decode_picture(np.zeros((1, 256, 1024), np.uint8))
    assert wave.shape == (1, MEL.samples)


def test_lora_weights_change_the_speech_unet(pipelines, tmp_path):
    """A LoRA as training exports it is found and fused, with its own rank and α."""
    unet = UNet2DConditionModel.from_pretrained(str(pipelines[1] / "unet"))
    settings = LoraSettings(rank=2, alpha=6, targets=("to_q", "to_v"))
    add_lora(unet, settings)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    export_lora(unet, tmp_path, settings)
    plain = Family.load(stable_diffusion_layout(*map(str, pipelines)), ("speech",))
    tuned = Family.load(stable_diffusion_layout(*map(str, pipelines), lora=str(tmp_path)), ("speech",))
    x, t = torch.randn(1, 4, 32, 128), torch.tensor([500])
    condition = plain.text_condition("speech", ["words"])
    expected = unet.eval()(x, t, condition.tokens).sample
    found = tuned.predictors["speech"].raw(x, t, condition)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not plain.predictors["speech"].raw(x, t, condition).allclose(expected, atol=1e-3)


@pytest.mark.parametrize("part", ["vae", "image/unet", "image/text_encoder", "speech/adapter", "vocoder"])
def test_truncated_weights_are_told(broken, part):
    file = next((broken / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=part):
        Family.load(broken)


@pytest.mark.parametrize("part", ["vae", "scheduler", "speech/adapter", "image/tokenizer", "family.json"])
def test_missing_parts_are_told_before_anything_is_loaded(broken, part):
    path = broken / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=f"{part}: missing"):
        pocket_layout(broken)


def test_missing_weights_are_told(broken):
    next((broken / "speech/unet").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match="speech/unet: cannot be loaded"):
        Family.load(broken)


def test_without_a_vocoder_griffin_lim_plays(broken):
    shutil.rmtree(broken / "vocoder")
    assert pocket_layout(broken).vocoder == "griffin_lim"


def change_card(folder: Path, **changes) -> None:
    card = json.loads((folder / "family.json").read_text())
    (folder / "family.json").write_text(json.dumps({**card, **changes}))


def test_weights_of_another_mel_spec_are_refused(broken):
    change_card(broken, mel_spec={**MEL.to_dict(), "n_mels": 80})
    with pytest.raises(UserError, match=r"made for another mel spec: n_mels=80 \(expected 256\)"):
        pocket_layout(broken)


@pytest.mark.parametrize(("changes", "told"), [
    ({"prediction_type": {"image": "epsilon", "speech": "w"}}, "prediction_type of speech 'w'"),
    ({"voices": None}, "malformed"),
])
def test_a_malformed_card_is_told(broken, changes, told):
    change_card(broken, **changes)
    with pytest.raises(UserError, match=told):
        pocket_layout(broken)


def change_autoencoder(folder: Path, **changes) -> None:
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps({**config, **changes}))


def test_statistics_of_another_latent_are_told(broken):
    change_autoencoder(broken, latents_std=[1.0, 2.0])
    with pytest.raises(UserError, match="2 latents_std .expected 8 of each"):
        pocket_layout(broken)


def test_a_unet_of_another_latent_is_refused(broken):
    change_autoencoder(broken, latent_channels=4, latents_mean=None, latents_std=None)
    with pytest.raises(UserError, match="made for 8 latent channels"):
        Family.load(broken, ("image",))


def test_voices_have_numbers_from_one(pocket):
    layout = pocket_layout(pocket)
    assert [layout.voice_id(voice) for voice in (None, *VOICES)] == [1, 1, 2]
    with pytest.raises(UserError, match="voice='slr'.*Did you mean 'slt'"):
        layout.voice_id("slr")


@pytest.mark.parametrize(("call", "told"), [
    (lambda: Family.load(pocket_layout("/nowhere")), "family.weights=/nowhere: no such folder"),
    (lambda: find_weights("./nowhere", "family.image"), "family.image=./nowhere: no such folder"),
    (lambda: find_weights("nobody/nothing-here", "family.image", offline=True), "not in the hub's cache"),
    (lambda: find_device("gpu"), "device='gpu'"),
])
def test_bad_names_are_told(call, told):
    with pytest.raises(UserError, match=told):
        call()


def test_unknown_parts_and_dtypes_are_told(pocket):
    with pytest.raises(UserError, match="'vea'.*Did you mean 'vae'"):
        Family.load(pocket, ("vea",))
    with pytest.raises(UserError, match="precision.dtype='float61'.*Did you mean 'float16'"):
        Family.load(pocket, ("vae",), dtype="float61")


def test_phone_batch_pads_and_aligns():
    batch = phone_batch([PHRASE, PHRASE[:2]], [1, 2])
    assert batch["phones"].tolist() == [[PHONE_IDS[p.symbol] for p in PHRASE],
                                        [PHONE_IDS["hh"], PHONE_IDS["ax"], 0, 0]]
    assert batch["phone_mask"].sum(1).tolist() == [4, 2]
    assert batch["voice"].tolist() == [1, 2]
    assert batch["frame_phones"][0, 205] == PHONE_IDS["hh"]
    assert batch["frame_phones"][1, 250] == PHONE_IDS["pau"]
    assert activity([PHRASE])[0, 200:280].min() > 1 - 1e-4
    assert float(activity([PHRASE]).sum()) == pytest.approx(80, abs=1e-3)
