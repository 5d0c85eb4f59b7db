"""The autoencoder's way in and out, and the prompts that no training sees."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from protocol import (
    SIZES,
    concepts_of_tests,
    files,
    image_prompts,
    phrases,
    validation_table,
)

from images_that_speak.data.captions import captions
from images_that_speak.data.latents import autoencoder_hash
from images_that_speak.data.phrases import dictionary_words, draw_prompts
from images_that_speak.networks.autoencoder import PatchAutoencoder, load_autoencoder, pocket_autoencoder
from images_that_speak.networks.codec import decode, downsampling, encode, patch_size
from images_that_speak.resources import words
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


def smooth(n: int, seed: int = 0) -> torch.Tensor:
    """(n, 1, 32, 64) pictures in [-1, 1] with more strength in low frequencies, as spectrograms have."""
    noise = torch.randn(n, 1, 32, 64, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        noise = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return noise / noise.abs().max()


def transform(pictures: torch.Tensor, **options: int) -> PatchAutoencoder:
    """Of 8 × 8 patches, 6 coefficients each, fitted; the correction is still zero."""
    vae = PatchAutoencoder(**{"patch": 8, "latent_channels": 6, "width": 16, "layers": 1, **options}).eval()
    vae.fit(pictures)
    return vae


@torch.no_grad()
def test_the_transform_is_an_orthonormal_projection() -> None:
    vae = transform(smooth(40))
    torch.testing.assert_close(vae.basis @ vae.basis.T, torch.eye(6), atol=1e-5, rtol=0)
    z = torch.randn(3, 6, 4, 8)
    picture = vae.decode(z).sample
    assert picture.shape == (3, 1, 32, 64)
    torch.testing.assert_close(vae.encode(picture).latent_dist.mean, z, atol=1e-5, rtol=1e-4)
    # Parseval: a distance between pictures of the span is the distance between their latents.
    other = torch.randn(3, 6, 4, 8)
    torch.testing.assert_close(((picture - vae.decode(other).sample) ** 2).sum((1, 2, 3)),
                               ((z - other) ** 2).sum((1, 2, 3)), atol=1e-4, rtol=1e-4)
    # What it leaves out is orthogonal to what it keeps.
    seen = smooth(5, seed=1)
    kept = vae.decode(vae.encode(seen).latent_dist.mean).sample
    assert abs(((seen - kept) * (kept - vae.decode(torch.zeros(5, 6, 4, 8)).sample)).sum()) < 1e-3


@torch.no_grad()
def test_the_transform_keeps_the_variance_it_says_and_beats_averages() -> None:
    pictures = smooth(40)
    vae = PatchAutoencoder(patch=8, latent_channels=4, width=0)
    kept = vae.fit(pictures)
    error = (vae.decode(vae.encode(pictures).latent_dist.mean).sample - pictures).square().mean()
    total = (pictures - vae.decode(torch.zeros(40, 4, 4, 8)).sample).square().mean()
    assert error.item() / total.item() == pytest.approx(1 - kept, rel=0.01)
    # As many numbers a patch: the averages of its four quarters.
    averages = torch.nn.functional.avg_pool2d(pictures, 4)
    blocks = averages.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert error < 0.95 * (blocks - pictures).square().mean()


@torch.no_grad()
def test_decoding_a_mixture_mixes_the_pictures() -> None:
    vae = transform(smooth(40))
    a, b = torch.randn(2, 2, 6, 4, 8)

    def gap() -> float:
        mixed = vae.decode(0.3 * a + 0.7 * b).sample
        return float((mixed - 0.3 * vae.decode(a).sample - 0.7 * vae.decode(b).sample).abs().max())

    assert gap() < 1e-5
    torch.nn.init.normal_(vae.correction[-1].weight)
    assert gap() > 1e-3  # a trained correction is not linear


@torch.no_grad()
def test_more_coefficients_leave_those_before_as_they_are() -> None:
    base = transform(smooth(40))
    base.half().float()  # as shipped: orthonormal to 1e-3 only
    pictures = smooth(40, seed=3)  # others than the base was made from
    vae = PatchAutoencoder(patch=8, latent_channels=10, width=0)
    kept = vae.fit(pictures, base)
    torch.testing.assert_close(vae.encode(pictures).latent_dist.mean[:, :6],
                               base.encode(pictures).latent_dist.mean)
    assert list(vae.config.latents_std[:6]) == list(base.config.latents_std)
    torch.testing.assert_close(vae.basis @ vae.basis.T, torch.eye(10), atol=2e-3, rtol=0)
    best = PatchAutoencoder(patch=8, latent_channels=10, width=0).fit(pictures)
    assert best - 0.02 < kept <= best + 1e-6
    error, total = (((vae.decode(vae.encode(pictures).latent_dist.mean).sample - pictures) ** 2).mean(),
                    ((vae.decode(torch.zeros(40, 10, 4, 8)).sample - pictures) ** 2).mean())
    assert error / total == pytest.approx(1 - kept, abs=0.01)


@torch.no_grad()
def test_fitting_again_gives_the_same_latents_and_their_statistics() -> None:
    pictures = smooth(40)
    vae, again = transform(pictures), transform(pictures.flip(0))
    z = vae.encode(pictures).latent_dist.mean
    torch.testing.assert_close(again.encode(pictures).latent_dist.mean, z, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(vae.config.latents_std), z.std((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(vae.config.latents_mean), z.mean((0, 2, 3)))


@torch.no_grad()
def test_a_folder_says_which_autoencoder_it_holds(tmp_path: Path) -> None:
    vae = transform(smooth(40))
    torch.nn.init.normal_(vae.correction[-1].weight)
    vae.save_pretrained(tmp_path / "patches")
    pocket_autoencoder((8, 8)).save_pretrained(tmp_path / "kl")
    again = load_autoencoder(tmp_path / "patches").eval()
    assert isinstance(again, PatchAutoencoder) and again.config.latents_std == vae.config.latents_std
    assert isinstance(load_autoencoder(tmp_path / "kl"), AutoencoderKL)
    picture = smooth(2, seed=3) / 2 + 0.5
    z = encode(vae, picture)
    assert torch.equal(z.sample(), z.mean)  # no variance: encoding is deterministic
    assert torch.equal(encode(again, picture).mean, z.mean)
    assert torch.equal(decode(again, z.mean), decode(vae, z.mean))
    assert downsampling(vae.config) == 8 and downsampling(pocket_autoencoder((8, 8)).config) == 8


def test_training_the_correction_touches_no_latent(tmp_path: Path) -> None:
    pictures = smooth(40) / 2 + 0.5
    transform(pictures * 2 - 1).save_pretrained(tmp_path / "vae")
    module = AutoencoderTraining(pretrained=str(tmp_path / "vae"), lr=5e-3, warmup=1, max_steps=10)
    before = encode(module.vae, pictures).mean.clone()
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(10):
        loss = module.total(module.losses(pictures[:8]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]
    assert torch.equal(encode(module.vae, pictures).mean, before)
    assert autoencoder_hash(module.vae) == autoencoder_hash(load_autoencoder(tmp_path / "vae"))


def test_edges_of_a_ramp() -> None:
    ramp = torch.arange(5.0).expand(1, 1, 3, 5)
    across, down = edges(ramp)
    assert torch.equal(across, torch.ones(1, 1, 3, 4)) and not down.any()


def test_training_improves_and_exports_its_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = AutoencoderTraining(channels=(16, 16), latent_channels=4, patch=4, lr=5e-3, warmup=1,
                                 max_steps=40)
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
    # What settings are chosen by shares no thing and no phrase with what they are tested on.
    pairs = [row for length in (6, 18) for row in csv.DictReader(io.StringIO(validation_table(length)))]
    chosen = {row["image_prompt"] for row in pairs}
    assert len(pairs) == 24 and len(chosen) == 12 and not chosen & seen
    assert not {c.concept for c in captions("test") if c.text in chosen} & concepts_of_tests()
    assert len(concepts_of_tests()) >= 20
    assert not {row["audio_prompt"] for row in pairs} & {*spoken, *phrases(20, 18)}


def test_no_test_phrase_is_in_the_corpus() -> None:
    """Drawn as the pocket corpus is, without the rule that would leave them out: chance has none either."""
    closed = words()
    prompts = draw_prompts(closed, 4500, (3, 16), {"slt": 0.6, "rms": 0.4}, 0,
                           dictionary_words(1500, 0, frozenset(closed)), 0.6)
    text = " | ".join(prompt.text for prompt in prompts)
    assert not [phrase for phrase in phrases(20) if phrase in text]
    assert len(prompts) == 4500
