"""Generating with a tiny family: seeds, batches, resuming, files, and errors before anything is loaded."""

from __future__ import annotations

import errno
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_family import tiny_pocket_family, tiny_stable_diffusion

from images_that_speak import config, kept
from images_that_speak.audio.picture import read_picture
from images_that_speak.audio.wave import read_wave
from images_that_speak.diffusion import family as family_module
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.guidance import Guidance
from images_that_speak.diffusion.method import JointDenoising, bound, mean_of_draws
from images_that_speak.diffusion.outputs import FILES, sample_id
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.diffusion.sampling import make_scheduler, noise, sample
from images_that_speak.errors import UserError
from images_that_speak.generate import generate


@pytest.fixture
def make(make_tiny):
    """A configuration for the tiny family, three steps."""
    return partial(make_tiny, "steps=3")


def batch_of(cfg, jobs=None):
    layout = config.instantiate(cfg.family)
    jobs = plan(cfg, layout) if jobs is None else jobs
    return generate_batch(Family.load(layout), read_settings(cfg, layout), jobs)


@pytest.mark.parametrize("choices", [
    ["composition=masks"], ["composition.draws=2", "composition.draw_steps=2"],
    ["composition=images_that_sound", "steps=5", "scheduler=dpm"]])
def test_a_sample_does_not_depend_on_its_batch(make, choices):
    cfg = make("num_samples=3", *choices)
    layout = config.instantiate(cfg.family)
    family, settings, jobs = Family.load(layout), read_settings(cfg, layout), plan(cfg, layout)
    together = generate_batch(family, settings, jobs)
    assert together.shape == (3, 256, 1024)
    for job, picture in zip(jobs, together, strict=True):
        torch.testing.assert_close(generate_batch(family, settings, [job])[0], picture, rtol=1e-3, atol=2e-4)
    assert not together[0].allclose(together[1], atol=1e-2)


def test_phrases_of_different_length_share_a_batch(make, tmp_path):
    """Padding to the longest phrase changes no other phrase's picture."""
    (tmp_path / "pairs.txt").write_text("a cat | music\na dog | happy little winter garden\n")
    for adapter in ("sequence", "pooled"):
        family = tiny_pocket_family(tmp_path / adapter, adapter)
        cfg = make(f"prompts={tmp_path}/pairs.txt", f"family.weights={family}", "composition=speech_only")
        layout = config.instantiate(cfg.family)
        jobs = plan(cfg, layout)
        loaded, settings = Family.load(layout), read_settings(cfg, layout)
        together = generate_batch(loaded, settings, jobs)
        alone = generate_batch(loaded, settings, jobs[:1])
        torch.testing.assert_close(alone[0], together[0], rtol=1e-3, atol=2e-4)


def test_a_pass_that_changes_nothing_is_left_out(make, monkeypatch):
    cheap = batch_of(make("guidance.image_scale=1"))
    monkeypatch.setattr(Guidance, "passes", lambda self, progress, uses_uncond: 2)
    torch.testing.assert_close(batch_of(make("guidance.image_scale=1")), cheap, rtol=1e-4, atol=1e-4)
    assert not batch_of(make("guidance.image_scale=9")).allclose(cheap, atol=1e-2)


def test_full_weight_without_the_image_is_speech_alone(make):
    joint = batch_of(make("composition=weighted_average", "guidance.audio_weight=1"))
    alone = batch_of(make("composition=speech_only", "composition.draws=0"))
    assert joint.equal(alone)


def test_the_speech_is_the_mean_of_its_draws(make):
    """And beside it the picture is denoised as ever; every network evaluation is counted."""
    one = ["composition.draws=1", "composition.draw_steps=3"]
    alone = partial(make, "composition=speech_only")
    torch.testing.assert_close(batch_of(alone(*one)), batch_of(alone("composition.draws=0")), rtol=1e-3,
                               atol=2e-4)
    cfg = make("composition.draws=2", "composition.draw_steps=3", "guidance.audio_weight=0")
    layout = config.instantiate(cfg.family)
    family, settings, jobs = Family.load(layout), read_settings(cfg, layout), plan(cfg, layout)
    branch = bound(family, settings, jobs, ["speech"])["speech"]
    mean = mean_of_draws(branch, family, settings, jobs, 2, 3)
    draws = [sample(lambda x, t, done: branch(x, t, done, False).guided, x,
                    make_scheduler(schedule=layout.schedule, **settings.scheduler), 3)
             for x in noise([job.seed for job in jobs], (2, *layout.latent_shape)).unbind(1)]
    torch.testing.assert_close(mean, (draws[0] + draws[1]) / 2)
    assert (draws[0] - draws[1]).abs().max() > 0.1
    called, passes = [], []
    for predictor in family.predictors.values():
        predictor.unet.register_forward_hook(lambda unet, given, _: passes.append(len(given[0])))
    generate_batch(family, settings, jobs, called.append)
    assert [state["i"] for state in called] == list(range(settings.method.calls(settings)))
    assert len(called) == 2 * 3 + 3
    assert sum(passes) == settings.evaluations * len(jobs) == 2 * 3 + 3 * 2
    with pytest.raises(UserError, match="steps=2000: expected 1 to 1000"):
        bad = make("composition.draws=2", "composition.draw_steps=2000")
        read_settings(bad, layout)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm", "unipc"])
@pytest.mark.parametrize("composition", ["weights_over_time", "split", "image_only"])
def test_every_choice_runs(make, scheduler, composition):
    pictures = batch_of(make(f"composition={composition}", f"scheduler={scheduler}", "steps=2"))
    assert pictures.isfinite().all() and 0 <= pictures.min() and pictures.max() <= 1


def test_a_run_folder_holds_samples_that_say_what_they_are(make, tmp_path):
    cfg = make("num_samples=2", "seed=7", "batch_size=1")
    result = generate(cfg)
    assert (result["samples"], result["made"]) == (2, 2)
    run = next((tmp_path / "generate").iterdir())
    assert json.loads((run / "result.json").read_text())["samples"] == 2
    for seed in (7, 8):
        folder = run / "samples" / sample_id("a frog", "happy music", seed)
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        record = json.loads((folder / "sample.json").read_text())
        assert record["sample_id"] == folder.name and record["seed"] == seed
        assert (record["image_prompt"], record["audio_prompt"]) == ("a frog", "happy music")
        # Three steps: the image is guided, two passes each; the speech is not, and four draws take two steps.
        assert record["evaluations"] == result["evaluations"] == 3 * 2 + 4 * 2
        assert record["settings"]["steps"] == 3 and record["scores"] == {}
        assert [phone[0] for phone in record["phones"]] == "hh ae p iy m y uw z ih k".split()
        assert Image.open(folder / "image.png").mode == "L"
        assert read_picture(folder / "image.png").shape == (256, 1024)
        assert read_wave(folder / "speech.wav").shape == (163840,)


def test_words_are_spread_on_demand(make, tmp_path):
    """phonemes=spread puts half a second between words; the record shows it, and it is another run."""
    for choice in ("natural", "spread"):
        generate(make(f"phonemes={choice}", "steps=1"))
    runs = list((tmp_path / "generate").iterdir())
    assert len(runs) == 2
    found = {}
    for run in runs:
        record = json.loads(next(run.glob("samples/*/sample.json")).read_text())
        found[record["settings"]["phonemes"]["pause"]] = record["phones"]
    said = "hh ae p iy m y uw z ih k".split()
    assert [symbol for symbol, _, _ in found[0.0]] == said
    assert [symbol for symbol, _, _ in found[0.5]] == [*said[:4], "pau", *said[4:]]
    _, begin, end = found[0.5][4]
    assert end - begin == pytest.approx(0.5, abs=2e-4)
    # At the beginning of the picture, and in its middle.
    assert found[0.0][0][1] == pytest.approx(0.15)
    assert found[0.5][0][1] + found[0.5][-1][2] == pytest.approx(10.24, abs=2e-4)


def test_speech_begins_and_runs_as_told(make):
    cfg = make("phonemes.start=1.5", "phonemes.rate=2")
    layout = config.instantiate(cfg.family)
    slow, fast = plan(make(), layout)[0].phones, plan(cfg, layout)[0].phones
    assert fast[0].start == 1.5
    assert fast[-1].end - fast[0].start == pytest.approx((slow[-1].end - slow[0].start) / 2)


def test_the_sound_is_that_of_the_8_bit_picture(make, tmp_path, pocket):
    generate(make())
    folder = next((tmp_path / "generate").glob("*/samples/*"))
    seen = np.asarray(Image.open(folder / "image.png"))
    wave = Family.load(pocket, ("vocoder",)).vocoder.decode_picture(seen[None])[0].numpy()
    np.testing.assert_allclose(read_wave(folder / "speech.wav"), np.clip(wave, -1, 1), atol=1 / 32000)


def test_the_same_command_makes_the_same_bytes(make, tmp_path):
    found = []
    for logs in ("one", "two"):
        generate(make(f"paths.logs={tmp_path / logs}"))
        folder = next((tmp_path / logs).glob("generate/*/samples/*"))
        found.append([(folder / name).read_bytes() for name in FILES[:3]])
    assert found[0] == found[1]


def test_jobs_of_a_sweep_share_what_is_loaded(make, tmp_path, monkeypatch):
    """Kept from job to job, each part is loaded once, and the samples are those of loading anew."""
    loads = []
    real = family_module.load_model
    monkeypatch.setattr(family_module, "load_model", lambda cls, folder, dtype, **more: loads.append(folder)
                        or real(cls, folder, dtype, **more))

    def images(logs: str) -> list[bytes]:
        for overrides in (["composition=image_only"], ["seed=1"], ["seed=2", "guidance.audio_scale=2"]):
            generate(make("steps=1", f"paths.logs={tmp_path / logs}", *overrides))
        return [path.read_bytes() for path in sorted((tmp_path / logs).rglob("image.png"))]

    anew = images("anew")
    parts = sorted(set(loads))
    assert len(loads) > 2 * len(parts)
    loads.clear()
    kept.keep()
    try:
        assert images("kept") == anew
    finally:
        kept.keep(False)
    assert sorted(loads) == parts


def test_only_missing_samples_are_made_again(make, tmp_path, monkeypatch):
    cfg = make("num_samples=3", "batch_size=1")
    made = []

    def interrupted(self, family, settings, jobs, *_):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(jobs[0].seed)
        return torch.full((1, 256, 1024), 0.5)

    monkeypatch.setattr(JointDenoising, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(cfg)
    run = next((tmp_path / "generate").iterdir())
    # One of the two was cut off before its record was written.
    (run / "samples" / sample_id("a frog", "happy music", 1) / "sample.json").unlink()
    made.clear()
    assert generate(cfg)["made"] == 2
    assert made == [1, 2]


def test_what_is_missing_is_made_in_the_batch_it_was_begun_in(make, tmp_path, monkeypatch):
    """Alone, its last bits could differ. What is there already is not written again."""
    cfg = make("num_samples=3", "batch_size=2", "reader=none")
    generate(cfg)
    run = next((tmp_path / "generate").iterdir())
    images = {path: path.read_bytes() for path in run.glob("samples/*/image.png")}
    times = {path: path.stat().st_mtime_ns for path in images}
    lost = run / "samples" / sample_id("a frog", "happy music", 1) / "image.png"
    lost.unlink()
    (run / "result.json").unlink()
    batches, real = [], JointDenoising.__call__
    monkeypatch.setattr(JointDenoising, "__call__", lambda self, family, settings, jobs, *rest: (
        batches.append([job.seed for job in jobs]), real(self, family, settings, jobs, *rest))[1])
    assert generate(cfg)["made"] == 1
    assert batches == [[0, 1]]
    assert {path: path.read_bytes() for path in images} == images
    assert [path for path in images if path.stat().st_mtime_ns != times[path]] == [lost]


def test_a_full_disk_loses_nothing_already_made(make, tmp_path, monkeypatch):
    real = os.replace

    def full(source, target):
        if "samples" in str(target) and sample_id("a frog", "happy music", 1) in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(source, target)

    cfg = make("num_samples=2", "batch_size=1")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        generate(cfg)
    monkeypatch.setattr(os, "replace", real)
    run = next((tmp_path / "generate").iterdir())
    first = run / "samples" / sample_id("a frog", "happy music", 0)
    before = (first / "image.png").read_bytes()
    assert not list((run / "samples").rglob("*.tmp*"))
    assert generate(cfg)["made"] == 1
    assert (first / "image.png").read_bytes() == before


def test_stable_diffusion_and_auffusion_generate(tmp_path):
    """A speech branch that reads texts has no phones: it averages, and masks are refused."""
    image, speech = tiny_stable_diffusion(tmp_path)

    def build(*overrides: str):
        cfg = config.compose("generate", [
            "family=sd15", f"family.image={image}", f"family.speech={speech}", f"paths.logs={tmp_path}",
            "audio_prompt='a dog barks, 3 times'", *overrides])
        OmegaConf.update(cfg, "reader", None)
        return cfg

    assert generate(build("composition=images_that_sound", "steps=4"))["made"] == 1
    with pytest.raises(UserError, match="composition: Masks needs to know when phones sound"):
        generate(build("composition=masks"))


def test_published_settings_come_with_the_composition(make):
    cfg = make("composition=images_that_sound")
    assert dict(cfg.guidance) == {"image_scale": 10.0, "audio_scale": 10.0, "audio_weight": 0.5,
                                  "image_start": 0.1, "audio_start": 0.0, "interval": [0.0, 1.0],
                                  "rescale": 0.0}
    changed = make("composition=images_that_sound", "guidance.audio_weight=0.4")
    assert changed.composition.audio_weight == 0.4


@pytest.mark.parametrize(("overrides", "told"), [
    (["audio_prompt='" + "wonderful " * 60 + "'"], "60 words.*expected at most 10.24 s"),
    (["audio_prompt='こんにちは'"], "audio_prompt"),
    (["voice=slr"], "voice='slr'.*Did you mean 'slt'"),
    (["composition.edge=-1"], "composition.edge=-1"),
    (["phonemes.pause=-0.1"], "phonemes.pause=-0.1: expected seconds between words, 0 to 10.24"),
    (["phonemes.rate=9"], "phonemes.rate=9"),
    (["phonemes.start=center"], "phonemes.start=center.*Did you mean 'centre'"),
    (["phonemes.start=10"], "start=10: the speech takes"),
    (["+phonemes.paus=1"], "Did you mean 'pause'"),
    (["family.lora=/nowhere"], "family.lora=/nowhere: holds no pytorch_lora_weights.safetensors"),
    (["scheduler.name=dmp"], "Did you mean 'dpm'"),
    (["family.timestep_spacing=trailling"], "Did you mean 'trailing'"),
])
def test_bad_input_is_told_before_anything_is_loaded(make, monkeypatch, tmp_path, overrides, told):
    monkeypatch.setattr(Family, "load", lambda *a, **k: pytest.fail("loaded a network"))
    with pytest.raises(UserError, match=told):
        generate(make(*overrides))
    assert not (tmp_path / "generate").exists()
