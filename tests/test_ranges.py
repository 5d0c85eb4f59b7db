"""Every range has one definition: what passes the check of the command line is taken by what it builds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from images_that_speak import config
from images_that_speak.audio.mel import MEL
from images_that_speak.data.caption_data import CaptionData
from images_that_speak.data.renditions import check_source
from images_that_speak.data.windows import WindowData
from images_that_speak.diffusion.guidance import check_starts
from images_that_speak.diffusion.imprint import Imprint, ImprintMax
from images_that_speak.diffusion.scene import Scenes
from images_that_speak.diffusion.score_distillation import ScoreDistillation
from images_that_speak.errors import UserError
from images_that_speak.ranges import RANGES, SECONDS
from images_that_speak.resources import choices
from images_that_speak.runs.metrics import MetricsJsonl
from images_that_speak.validate import problems

BUILT: dict[str, Callable[[float], object]] = {
    "guidance.image_start": lambda value: check_starts({"image": value, "speech": 0.0}),
    "guidance.audio_start": lambda value: check_starts({"image": 0.0, "speech": value}),
    "scene.size": lambda value: Scenes(size=value),
    "scene.brightness": lambda value: Scenes(brightness=value),
    "scene.margin": lambda value: Scenes(margin=value),
}
METHODS = {
    "method.rho": ("imprint", lambda value: Imprint(rho=value)),
    "method.decibels": ("imprint_max", lambda value: ImprintMax(decibels=value)),
    "method.lr": ("sds", lambda value: ScoreDistillation(lr=value, crops=0)),
}


def edges(key: str) -> list[float]:
    within = RANGES[key]
    return [float(within.least), float(within.greatest), within.least - 1e-9, within.greatest + 1e-9,
            0.03, 1e-10, math.nan]


def agree(key: str, value: float, chosen: list[str], build: Callable[[float], object],
          task: str = "generate") -> None:
    cfg = config._compose(task, chosen)
    config.OmegaConf.update(cfg, key, value)
    told = [line for line in problems(cfg, task) if line.startswith(f"{key}=")]
    try:
        build(value)
    except UserError as error:
        assert str(error).splitlines()[0] in told
    else:
        assert not told


@pytest.mark.parametrize("key", BUILT)
def test_a_key_is_refused_by_both_or_by_neither(key: str) -> None:
    for value in edges(key):
        agree(key, value, [], BUILT[key])


@pytest.mark.parametrize("key", METHODS)
def test_a_key_of_a_method_too(key: str) -> None:
    choice, build = METHODS[key]
    for value in edges(key):
        agree(key, value, [f"method={choice}"], build)


def test_a_picture_is_as_long_as_the_ranges_say() -> None:
    assert SECONDS == MEL.seconds
    assert RANGES["method.decibels"].greatest == round(MEL.log_range * 20 / math.log(10))


def test_weights_that_are_shared_are_counted_and_looked_for_once(tmp_path) -> None:
    """As T5's embedding, which its files hold under one of its two names."""
    from transformers import T5Config, T5EncoderModel

    from images_that_speak.diffusion.estimate import parameters
    from images_that_speak.diffusion.loading import load_model

    made = T5EncoderModel(T5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    made.save_pretrained(tmp_path)
    planned = load_model(T5EncoderModel, tmp_path, torch.float32, weights=False)
    assert parameters(planned) == parameters(made)
    assert all(value.device == torch.device("meta") for value in planned.parameters())


TRAINED: dict[str, tuple[str, Callable[[float], object]]] = {
    "data.batch_size": ("pocket/text", lambda value: CaptionData("tokenizer", batch_size=value)),
    "data.workers": ("pocket/text", lambda value: CaptionData("tokenizer", workers=value)),
    "data.ramp": ("pocket/clip", lambda value: WindowData(ramp=value)),
    "data.over": ("pocket/vocoder", lambda value: check_source("ground_truth", None, value)),
    "trainer.log_every": ("pocket/text", lambda value: MetricsJsonl("metrics.jsonl", value)),
}


@pytest.mark.parametrize("key", TRAINED)
def test_a_key_of_a_training_is_refused_by_both_or_by_neither(key: str) -> None:
    experiment, build = TRAINED[key]
    for value in edges(key):
        agree(key, value, [f"experiment={experiment}"], build, "train")


def test_every_shipped_training_is_within_the_ranges() -> None:
    for name in choices("experiment"):
        cfg = config._compose("train", [f"experiment={name}"])
        assert not [line for line in problems(cfg, "train") if line.split("=")[0] in RANGES], name
