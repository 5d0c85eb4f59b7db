"""Imprints: the formulas, and the same run folders, errors and reports as joint denoising."""

from __future__ import annotations

import json
import sys
from functools import partial

import pytest
import torch
from tiny_family import tiny_stable_diffusion

from images_that_speak import cli, config
from images_that_speak.audio.mel import picture_to_logmel
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.imprint import Imprint, ImprintMax
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.errors import UserError
from images_that_speak.generate import generate


@pytest.fixture
def make(make_tiny):
    """A configuration for the tiny family, two steps."""
    return partial(make_tiny, "steps=2")


def pictures_of(cfg) -> torch.Tensor:
    layout = config.instantiate(cfg.family)
    return generate_batch(Family.load(layout), read_settings(cfg, layout), plan(cfg, layout))


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, speech = torch.rand(2, 2, 256, 1024, generator=generator)
    return image, speech


def test_published_formula_at_its_ends(drawn):
    image, speech = drawn
    assert Imprint(0.0).imprint(image, speech).equal(speech)
    torch.testing.assert_close(Imprint(1.0).imprint(image, speech), speech * image)
    # A white picture leaves the speech as it is, a black one takes ρ of its brightness.
    assert Imprint(0.5).imprint(torch.ones_like(image), speech).equal(speech)
    assert Imprint(0.5).imprint(torch.zeros_like(image), speech).equal(0.5 * speech)


def test_max_is_the_louder_sound(drawn):
    """In log-mel: the picture's sound, k dB softer, or the speech where that is louder."""
    image, speech = drawn
    assert ImprintMax(0.0).imprint(image, speech).equal(torch.maximum(image, speech))
    assert ImprintMax(146.0).imprint(image, speech).equal(speech)
    softer = picture_to_logmel(image) - 30 / 20 * torch.log(torch.tensor(10.0))
    expected = torch.maximum(picture_to_logmel(speech), softer)
    torch.testing.assert_close(picture_to_logmel(ImprintMax(30.0).imprint(image, speech)), expected)


@pytest.mark.parametrize("method", ["imprint", "imprint_max"])
def test_imprints_what_the_branches_draw_alone(make, method):
    """With the same noise, phones and scene as the anchors, and not dependent on the batch."""
    image, speech = (pictures_of(make(f"composition={name}", "num_samples=2", "scene=anywhere"))
                     for name in ("image_only", "speech_only"))
    cfg = make(f"method={method}", "num_samples=2", "scene=anywhere")
    together = pictures_of(cfg)
    torch.testing.assert_close(together, config.instantiate(cfg.method).imprint(image, speech))
    torch.testing.assert_close(pictures_of(make(f"method={method}", "seed=1", "scene=anywhere"))[0],
                               together[1], rtol=1e-3, atol=2e-4)


def test_a_run_says_how_it_was_made(make, tmp_path):
    cfg = make("method=imprint_max", "method.decibels=30")
    result = generate(cfg)
    record = json.loads(next(tmp_path.glob("generate/*/samples/*/sample.json")).read_text())
    # Two steps; the image branch is guided, two passes each, the speech branch is not.
    assert record["evaluations"] == result["evaluations"] == 2 * 2 + 8
    assert record["settings"]["method"]["decibels"] == 30
    assert "composition" not in record["settings"] and record["settings"]["steps"] == 2
    assert generate(cfg) == result and len(list((tmp_path / "generate").iterdir())) == 1


def test_calls_back_at_every_step(make):
    cfg = make("method=imprint")
    layout = config.instantiate(cfg.family)
    settings, told = read_settings(cfg, layout), []
    generate_batch(Family.load(layout), settings, plan(cfg, layout), lambda state: told.append(state["i"]))
    assert told == list(range(settings.method.calls(settings))) == list(range(12))


@pytest.mark.parametrize(("overrides", "told"), [
    (["method=imprint", "method.rho=2"], "method.rho=2"),
    (["method=imprint_max", "method.decibels=-1"], "method.decibels=-1"),
    (["method=imprnt"], "Did you mean 'imprint'"),
    (["method=imprint", "composition=split"], "composition: imprint does not use it"),
    (["method=imprint", "composition.detail=0.2"], "composition: imprint does not use it"),
    (["method=imprint", "guidance.audio_weight=0.4"], "guidance.audio_weight: imprint does not use it"),
    (["method=imprint", "steps=1000", "scheduler.name=dmp"], "Did you mean 'dpm'"),
])
def test_what_does_not_fit_is_told_before_anything_is_loaded(make, monkeypatch, overrides, told):
    monkeypatch.setattr(Family, "load", lambda *a, **k: pytest.fail("loaded a network"))
    with pytest.raises(UserError, match=told):
        generate(make(*overrides))


def test_check_tells_of_method_and_evaluations(pocket, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate.py", "check=true", "method=imprint", "steps=10",
                                      f"family.weights={pocket}", f"paths.logs={tmp_path / 'logs'}"])
    cli.launch("generate", "nowhere.work")
    told = capsys.readouterr().out
    assert "imprint of image and speech" in told and "composition" not in told
    assert "10 steps of ddim; 28 network evaluations a sample, 28 in all" in told
    assert "image UNet" in told and "speech UNet" in told


def test_runs_with_branches_that_read_texts(tmp_path):
    """Masks, the default composition, would be refused there; an imprint needs no phones."""
    image, speech = tiny_stable_diffusion(tmp_path)
    cfg = config.compose("generate", [
        "family=sd15", f"family.image={image}", f"family.speech={speech}", "method=imprint", "steps=2"])
    assert pictures_of(cfg).shape == (1, 256, 1024)
