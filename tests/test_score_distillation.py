"""Score distillation: its gradient, where it leads, and the same run folders as joint denoising."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial, partialmethod

import pytest
import torch

from images_that_speak import config
from images_that_speak.diffusion import score_distillation
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.guidance import Branch, Guidance
from images_that_speak.diffusion.method import bound
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.diffusion.predictor import NoiseSchedule, Prediction
from images_that_speak.diffusion.score_distillation import (
    Distillation,
    LatentCanvas,
    PaintedCanvas,
    windowed,
)
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.networks.condition import Condition
from images_that_speak.networks.fourier import FourierPicture

SMALL = ["method.features=4", "method.hidden=8", "method.layers=1", "method.crops=2"]


@pytest.fixture(scope="module")
def family(pocket) -> Family:
    return Family.load(pocket)


def convinced(of: torch.Tensor) -> Branch:
    """A branch to which everything looks like one latent (1, C, H, W): its data are a single point.

    Its condition's residual is that latent, so that a window of the condition is convinced of that window.
    """

    class OfOneThing:
        schedule = NoiseSchedule()

        def __call__(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> Prediction:
            assert condition.residual is not None
            return Prediction(condition.residual, x)

    said = Condition(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), of)
    return Branch(OfOneThing(), said, said, Guidance(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("crops", [0, 16])
def test_two_convinced_branches_meet_at_their_weighted_mean(family, crops):
    """Σ w_b α σ (z − μ_b) = 0 at z = Σ w_b μ_b; windows reach every column."""
    image, speech = torch.randn(2, 1, 8, 16, 64, generator=torch.Generator().manual_seed(0))
    canvas = LatentCanvas(family, torch.zeros(1, 8, 16, 64))
    distillation = Distillation(
        canvas, {"image": convinced(image), "speech": convinced(speech)}, {"image": 0.25, "speech": 0.75},
        {"image": 0.0, "speech": 0.0}, 0.05, crops, 0)
    for i in range(400):
        z = distillation.step(i / 400)
    # How far each column went towards the image; with windows it judges a column as often as one covers it.
    toward = ((z - speech) / (image - speech)).flatten(0, 2).nanmedian(0).values
    covered = torch.tensor([len(range(max(0, at - 15), min(at, 48) + 1)) / 49 for at in range(64)])
    weight = 0.25 * covered if crops else torch.full((64,), 0.25)
    torch.testing.assert_close(toward, weight / (weight + 0.75), atol=0.06, rtol=0)


def test_a_branch_that_has_not_begun_moves_nothing(family):
    image, speech = torch.ones(1, 8, 16, 64), -torch.ones(1, 8, 16, 64)
    canvas = LatentCanvas(family, torch.zeros(1, 8, 16, 64))
    distillation = Distillation(canvas, {"image": convinced(image), "speech": convinced(speech)},
                                {"image": 0.9, "speech": 0.1}, {"image": 0.5, "speech": 0.0}, 0.05, 0, 0)
    distillation.step(0.4)
    before = canvas.z.detach().clone()
    assert (before < 0).all()
    distillation.step(0.5)
    distillation.step(0.5)
    assert (canvas.z > before).all()


def test_the_gradient_is_that_of_the_paper(family, make_tiny):
    """w(t) (ε̂ − ε) with ε̂ guided in ε, from the UNet's own answers."""
    cfg = make_tiny("method=sds_latent", "guidance.image_scale=7")
    layout = family.layout
    branch = bound(family, read_settings(cfg, layout), plan(cfg, layout), ["image"])["image"]
    z = torch.randn(1, *layout.latent_shape, generator=torch.Generator().manual_seed(1))
    distillation = Distillation(LatentCanvas(family, z.clone()), {}, {}, {}, 0.1, 0, 5)
    found = distillation.score(branch, z)
    random = torch.Generator().manual_seed(5)
    t = torch.randint(20, 980, (), generator=random)
    epsilon = torch.randn(z.shape, generator=random)
    kept = branch.predictor.schedule.alphas_cumprod[t].float()
    x = kept.sqrt() * z + (1 - kept).sqrt() * epsilon
    with torch.no_grad():
        uncond, cond = (branch.predictor(x, t[None], branch.both[rows]).eps
                        for rows in (slice(0, 1), slice(1, 2)))
    expected = (1 - kept) * (uncond + 7 * (cond - uncond) - epsilon)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_window_is_conditioned_on_its_own_columns():
    residual = torch.arange(64.0).expand(1, 2, 16, 64)
    whole = Condition(torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), residual, torch.randn(1, 4))
    cut = windowed(whole, [0, 10, 48], 16)
    assert len(cut) == 3 and cut.residual is not None and cut.pooled is not None
    assert cut.residual[:, 0, 0, 0].tolist() == [0, 10, 48] and cut.residual.shape == (3, 2, 16, 16)
    assert cut.tokens.equal(whole.tokens.expand(3, -1, -1)) and cut.pooled.shape == (3, 4)
    assert windowed(replace(whole, residual=None, pooled=None), [1], 16).residual is None


def test_a_painted_picture_is_optimised_through_the_encoder():
    """The shipped autoencoder, and a branch that sees one bright picture."""
    family = Family.load(parts=("vae",))
    torch.manual_seed(0)
    canvas = PaintedCanvas(family, FourierPicture(features=8, hidden=16, layers=1))
    bright = convinced(family.encode(torch.full((1, 256, 1024), 0.9)))
    distillation = Distillation(canvas, {"speech": bright}, {"speech": 1.0}, {"speech": 0.0}, 0.05, 0, 0)
    before = canvas.picture()
    for i in range(15):
        distillation.step(i / 15)
    assert before.shape == (1, 256, 1024)
    assert (canvas.picture() - 0.9).abs().mean() < 0.6 * (before - 0.9).abs().mean()


def test_features_are_those_of_the_formula():
    torch.manual_seed(0)
    flat = FourierPicture(4, 16, features=3, hidden=4, bandwidth=0.0)
    assert flat.waves[:, :3].eq(0).all() and flat.waves[:, 3:].eq(1).all()
    assert flat().shape == (1, 4, 16) and flat().detach().std() < 1e-6
    torch.manual_seed(0)
    drawn = torch.randn(2, 3) * 2.0
    torch.manual_seed(0)
    network = FourierPicture(4, 16, features=3, hidden=4, bandwidth=2.0)
    angles = 2 * torch.pi * torch.tensor([1 / 4, 9 / 16]) @ drawn
    torch.testing.assert_close(network.waves[1 * 16 + 9], torch.cat([angles.sin(), angles.cos()]))


@pytest.mark.parametrize("choices", [["method=sds_latent"], ["method=sds", *SMALL]])
def test_a_sample_does_not_depend_on_its_batch(make_tiny, family, choices):
    cfg = make_tiny(*choices, "steps=2", "num_samples=2", "guidance.image_start=0.5")
    settings, jobs, told = read_settings(cfg, family.layout), plan(cfg, family.layout), []
    together = generate_batch(family, settings, jobs, told.append)
    assert together.shape == (2, 256, 1024) and 0 <= together.min() and together.max() <= 1
    assert [state["i"] for state in told] == [0, 1] and told[0]["x"].shape == (2, 8, 16, 64)
    alone = generate_batch(family, settings, jobs[1:])[0]
    torch.testing.assert_close(alone, together[1], rtol=1e-3, atol=1e-4)
    assert not together[0].allclose(together[1], atol=1e-3)


@pytest.mark.parametrize("choices", [["method=sds_latent"], ["method=sds", *SMALL]])
def test_it_goes_on_where_it_was_stopped(make_tiny, tmp_path, monkeypatch, choices):
    """Stopped in the fourth step, saved after every one: the same pictures as one that was never stopped."""
    make, step = partial(make_tiny, *choices, "steps=6", "num_samples=2"), Distillation.step
    generate(make())
    whole = [path.read_bytes() for path in sorted(tmp_path.glob("generate/*/samples/*/image.png"))]
    begun: list[float] = []

    def counted(self, progress, until=None):
        begun.append(progress)
        if len(begun) == until:
            raise KeyboardInterrupt
        return step(self, progress)

    monkeypatch.setattr(score_distillation, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Distillation, "step", partialmethod(counted, until=2 * 3 + 2))
    with pytest.raises(KeyboardInterrupt):
        generate(make("fresh=true"))
    folder, = {path.parent for path in tmp_path.glob("generate/*/checkpoints/*")}
    begun.clear()
    monkeypatch.setattr(Distillation, "step", counted)
    assert generate(make())["made"] == 2 and not list(folder.iterdir())
    assert begun == [at for at in (3 / 6, 4 / 6, 5 / 6) for _ in range(2)]
    assert len(whole) == 2
    assert [path.read_bytes() for path in sorted(folder.parent.glob("samples/*/image.png"))] == whole


def test_what_is_under_way_and_broken_is_begun_anew(make_tiny, tmp_path, monkeypatch, capsys):
    cfg = make_tiny("method=sds_latent", "steps=2")
    monkeypatch.setattr(score_distillation, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(LatentCanvas, "picture", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(cfg)
    kept, = tmp_path.glob("generate/*/checkpoints/*.safetensors")
    monkeypatch.undo()
    kept.write_bytes(kept.read_bytes()[:-10])
    assert generate(cfg)["made"] == 1
    assert "not whole" in capsys.readouterr().out and not kept.exists()


def test_a_run_says_how_it_was_made(make_tiny, tmp_path):
    result = generate(make_tiny("method=sds", *SMALL, "steps=2", "guidance.image_start=0.5"))
    record = json.loads(next(tmp_path.glob("generate/*/samples/*/sample.json")).read_text())
    # Both are guided, two passes each: the speech at both steps, two windows of the image at the second.
    assert record["evaluations"] == result["evaluations"] == 4 + 4
    assert record["settings"]["method"]["crops"] == 2 and "scheduler" not in record["settings"]


def test_published_settings_come_with_the_method(make_tiny):
    cfg = make_tiny("method=sds")
    settings = read_settings(cfg, config.instantiate(cfg.family))
    assert cfg.steps == 40000 and settings.starts == {"image": 5000 / 40000, "speech": 0.0}
    weight = settings.audio_weight
    assert (1 - weight) / weight == pytest.approx(0.4)
    # 16 passes of windows in 35,000 steps, 2 of the speech in all.
    assert settings.evaluations == 16 * 35000 + 2 * 40000


@pytest.mark.parametrize(("overrides", "told"), [
    (["steps=40000"], "steps=40000: expected denoising steps, 1 to 1000"),
    (["method=sds", "steps=2000000"], "steps=2000000: expected optimiser steps"),
    (["method=sds", "method.crops=-1"], "method.crops=-1"),
    (["method=sds_latent", "method.lr=0"], "method.lr=0"),
    (["method=sds_latent", "composition=split"], "composition: score distillation does not use it"),
    (["method=sds_latent", "guidance.interval=[0,0.5]"], "guidance.interval: score distillation"),
    (["method=sds_latent", "scheduler=dpm"], "scheduler: score distillation"),
    (["method=sds_latent", "guidance.image_start=0.2", "guidance.audio_start=0.1"], "one of them must be 0"),
])
def test_what_does_not_fit_is_told_before_anything_is_loaded(make_tiny, monkeypatch, overrides, told):
    monkeypatch.setattr(Family, "load", lambda *a, **k: pytest.fail("loaded a network"))
    with pytest.raises(UserError, match=told):
        generate(make_tiny(*overrides))
