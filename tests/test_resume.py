"""resume=RUN with other settings: what fits goes on with them, what does not leaves the run as it was."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from machine import needs_font
from torch import nn

from images_that_speak import cli
from images_that_speak.files import read_json
from images_that_speak.resources import OWN_CONFIGS
from images_that_speak.training.schedule import learning_rate_factor, regrouped

TINY = """# @package _global_
# Captions to drawings, as small as it gets.
#   python train.py experiment=tiny
defaults:
  - override /data: pocket_image_latents
steps: 4
trainer: {checkpoint_every: 2, validate_every: 100, log_every: 1, ema_decay: 0.9}
data: {valid: null, batch_size: 2, train: {length: 8}}
model:
  _target_: images_that_speak.training.diffusion.LatentDiffusionTraining
  unet:
    _target_: images_that_speak.training.diffusion.pocket_unet
    channels: [16, 32, 32]
  conditioner:
    _target_: images_that_speak.networks.text.pocket_text_conditioner
    tokenizer: ${paths.weights}/pocket/image/tokenizer
  lr: 1.0e-3
  conditioner_lr: 1.0e-3
  warmup: 1
  weight_decay: 0.01
  lora: null
"""
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
         capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Call train.py in this process: (exit code, what it printed)."""
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/tiny.yaml").write_text(TINY)
    monkeypatch.setenv(OWN_CONFIGS, str(tmp_path / "own"))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [
            "train.py", "device=cpu", f"paths.logs={tmp_path / 'logs'}", *arguments])
        code = 0
        try:
            cli.launch("train", "images_that_speak.training.train.train")
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capfd.readouterr()
        return code, told.out + told.err

    yield run
    logger = logging.getLogger("images_that_speak")
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture
def finished(call: Call, tmp_path: Path) -> Path:
    """The folder of a finished run of four steps."""
    code, told = call("experiment=tiny", f"data.train.latents={tmp_path / 'latents'}")
    assert code == 0, told
    folder, = (tmp_path / "logs/train").iterdir()
    for line in ("run folder: ", "result:     ", "weights:    "):  # where all lies, when it ends
        assert f"\n{line}" in told and folder.name in told.split(line)[1].splitlines()[0], told
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@needs_font
def test_a_learning_rate_is_changed_and_counts(call: Call, finished: Path) -> None:
    """One rate of two that were alike, the schedule's length, and the number of workers."""
    code, told = call(f"resume={finished}", "model.lr=4e-4", "steps=8", "data.workers=1",
                      "model.weight_decay=0.5")
    assert code == 0 and "model.lr: 0.001 → 0.0004" in told, told
    state = last(finished)
    assert state["global_step"] == 8
    groups = state["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [1e-3, 4e-4]
    assert {group["weight_decay"] for group in groups} == {0.5}
    # What the step after the last one would have had, on the longer curve.
    assert groups[1]["lr"] == pytest.approx(4e-4 * learning_rate_factor(8, 1, 8))
    assert read_json(finished / "result.json")["steps"] == 8
    assert read_json(finished / "result.1.json")["steps"] == 4
    # Once more, back again.
    code, told = call(f"resume={finished}", "data.workers=0", "steps=10", "model.lr=1e-3")
    assert code == 0 and last(finished)["global_step"] == 10, told


@needs_font
@pytest.mark.parametrize(("settings", "said"), [
    (["model.unet.channels=[16,16,32]"], "does not fit"),
    (["+model.conditioner.width=64"], "does not fit"),
    (["model.lora={_target_: images_that_speak.training.lora.LoraSettings, rank: 2}"], "does not fit"),
    (["data.train.latents=null"], "data.train.latents=null"),
    (["data.batch_size=100"], "batch_size=100"),
    (["callbacks=read_back", "callbacks.read_back.branch=nobody"], "nobody"),
])
def test_what_does_not_fit_leaves_the_run_as_it_was(call: Call, finished: Path, settings: list[str],
                                                    said: str) -> None:
    before = content(finished)
    code, told = call(f"resume={finished}", "steps=8", *settings)
    assert code == 2 and said in told, told
    assert content(finished) == before
    # And it does not stay: the next command goes on.
    code, told = call(f"resume={finished}", "steps=6")
    assert code == 0 and last(finished)["global_step"] == 6, told


@needs_font
def test_fewer_steps_than_are_done_are_refused(call: Call, finished: Path) -> None:
    """B11: it used to finish without a word, with a configuration that the weights are not of."""
    before = content(finished)
    code, told = call(f"resume={finished}", "steps=2")
    assert code == 2 and "steps=2" in told and "4" in told, told
    assert content(finished) == before


@needs_font
def test_check_tries_the_settings_on_the_weights(call: Call, finished: Path) -> None:
    before = content(finished)
    code, told = call(f"resume={finished}", "steps=8", "check=true")
    assert code == 0 and "all is well" in told, told
    code, told = call(f"resume={finished}", "model.unet.channels=[16,16,32]", "check=true")
    assert code == 2 and "last.ckpt: does not fit the settings of now: " in told, told
    assert content(finished) == before


class Groups(nn.Module):
    """Three roles, two of them mixed, as LoRA layers and what is unfrozen between them are."""

    ROLES = ("conditioner", "network", "unfrozen", "network", "unfrozen")

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.full((n + 1,), 1.0)) for n in range(5)])


@pytest.mark.parametrize("numbers", [(1, 1, 1), (1, 2, 1), (1, 2, 2), (1, 1, 3), (1, 2, 3)])
def test_groups_of_equal_rates_are_parted(numbers: tuple[float, float, float]) -> None:
    """As checkpoints were written before roles had groups of their own."""
    rates = dict(zip(("conditioner", "network", "unfrozen"), numbers, strict=True))
    module, by_rate, by_role = Groups(), {}, {}
    for role, parameter in zip(module.ROLES, module.parts, strict=True):
        by_rate.setdefault(rates[role], []).append(parameter)
        by_role.setdefault(role, []).append(parameter)
    old = torch.optim.AdamW([{"params": found, "lr": rate} for rate, found in by_rate.items()])
    for parameter in module.parts:
        parameter.grad = parameter.detach() * len(parameter)
    old.step()
    new = torch.optim.AdamW([{"params": found, "lr": rates[role]} for role, found in by_role.items()])
    shapes = [parameter.shape for parameter in module.parts]
    new.load_state_dict(regrouped(old.state_dict(), module.ROLES, shapes))
    for parameter in module.parts:
        assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])
    assert [group["lr"] for group in new.param_groups] == [rates[role] for role in by_role]
