"""The autoencoder's way in and out, and the prompts that no training sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from images_that_speak.data.captions import captions
from images_that_speak.data.protocol import SIZES, files, image_prompts, phrases
from images_that_speak.networks.autoencoder import decode, encode, patch_size, pocket_autoencoder
from images_that_speak.resources import ROOT, words
from images_that_speak.training.autoencoder import AutoencoderTraining, edges


def test_a_picture_becomes_16_by_64_latents() -> None:
    vae = pocket_autoencoder((8, 8, 8)).eval()
    with torch.no_grad():
        latent = encode(vae, torch.rand(1, 1, 256, 1024)).mean
        assert latent.shape == (1, 16, 16, 64)
        assert decode(vae, latent).shape == (1, 1, 256, 1024)


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_whatever_its_channels_an_identity_gives_the_picture_back(channels: int) -> None:
    """A stand-in whose encoder and decoder are the identity shows what is done around them."""
    class Identity:
        config = type("Config", (), {"in_channels": channels, "out_channels": channels})()

        def encode(self, x):
            assert x.shape[1] == channels
            return type("Output", (), {"latent_dist": x})()

        def decode(self, z):
            return type("Output", (), {"sample": z})()

    picture = torch.rand(2, 1, 8, 16)
    torch.testing.assert_close(decode(Identity(), encode(Identity(), picture)), picture)


def test_patch_size() -> None:
    assert [patch_size(n) for n in (1, 3, 4, 16)] == [1, 1, 2, 4]


def test_edges_of_a_ramp() -> None:
    ramp = torch.arange(5.0).expand(1, 1, 3, 5)
    across, down = edges(ramp)
    assert torch.equal(across, torch.ones(1, 1, 3, 4)) and not down.any()


def test_training_improves_and_exports_its_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AutoencoderTraining(channels=(16, 16), latent_channels=4, patch=4, lr=5e-3, warmup=1, max_steps=40)
    batch = {"picture": torch.rand(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)}
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(40):
        loss = module.total(module.losses(batch["picture"]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    module.export(tmp_path, [batch])
    again = AutoencoderKL.from_pretrained(tmp_path / "vae", torch_dtype=torch.float32)
    with torch.no_grad():
        latent = encode(again, batch["picture"]).mean
    mean, std = (torch.tensor(again.config[k])[:, None, None] for k in ("latents_mean", "latents_std"))
    normal = (latent - mean) / std
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)


def test_prompt_files_are_as_generated_and_nested() -> None:
    for path, text in files().items():
        assert path.read_text() == text, path
    assert phrases(max(SIZES))[:5] == phrases(5)


def test_prompts_keep_to_the_protocol() -> None:
    vocabulary = set(words())
    spoken = phrases(20)
    assert len(set(spoken)) == 20
    assert all(len(set(p.split())) == 6 and set(p.split()) <= vocabulary for p in spoken)
    seen = {c.text for c in captions("train")}
    for ground in ("black", "silhouette"):
        assert not set(image_prompts(20, ground)) & seen


def test_no_test_phrase_is_in_the_corpus() -> None:
    manifest = ROOT / "data/pocket_speech/manifest.parquet"
    if not manifest.exists():
        pytest.skip("the corpus is not built here (make pocket)")
    import pandas

    text = " | ".join(pandas.read_parquet(manifest, columns=["text"])["text"])
    assert not [phrase for phrase in phrases(20) if phrase in text]
