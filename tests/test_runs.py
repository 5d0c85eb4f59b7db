"""Run folders: what is the same run, what survives a kill, what is written last."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from images_that_speak import config, files
from images_that_speak.errors import UserError
from images_that_speak.files import plain, read_json, write_json
from images_that_speak.runs import describe, finished, identify, open_run
from images_that_speak.runs import run as run_module

# --- identity

def test_the_same_settings_are_the_same_run_however_written(make_run) -> None:
    one = identify(make_run("seed=3", "guidance.audio_weight=0.5"), "generate")
    two = identify(make_run("guidance.audio_weight=5e-1", "seed=3", f"steps={make_run().steps}"), "generate")
    assert one.hash == two.hash
    assert identify(make_run("seed=4", "guidance.audio_weight=0.5"), "generate").hash != one.hash


@pytest.mark.parametrize("override", [
    "fresh=true", "device=cpu", "logger=csv", "batch_size=1", "paths.data=/x"])
def test_where_and_how_fast_is_no_other_run(make_run, override: str) -> None:
    assert identify(make_run(override), "generate").hash == identify(make_run(), "generate").hash


def test_the_task_counts(make_run) -> None:
    cfg = config._compose("train", [])
    assert identify(cfg, "train").hash != identify(make_run(), "generate").hash


def test_files_count_by_their_content(make_run, tmp_path: Path) -> None:
    here, there = tmp_path / "a.csv", tmp_path / "b.csv"
    here.write_text("image_prompt,audio_prompt\na cat,music\n")
    there.write_text(here.read_text())
    first = identify(make_run(f"prompts={here}"), "generate").hash
    assert identify(make_run(f"prompts={there}"), "generate").hash == first
    here.write_text("image_prompt,audio_prompt\na dog,music\n")
    assert identify(make_run(f"prompts={here}"), "generate").hash != first


@pytest.mark.parametrize("key", ["reference", "metrics.ssim.reference"])
def test_what_is_compared_with_counts_by_its_content(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    cfg = config._compose("evaluate", ["metrics=ssim", f"{key}={folder}"])
    before = identify(cfg, "evaluate").hash
    (folder / "one.wav").write_bytes(b"1234")
    assert identify(cfg, "evaluate").hash != before


def test_other_weights_are_another_run(make_run, tmp_path: Path) -> None:
    before = identify(make_run(), "generate").hash
    (tmp_path / "weights" / "pocket" / "model.safetensors").write_bytes(b"1234")
    after = identify(make_run(), "generate").hash
    (tmp_path / "weights" / "pocket" / "model.safetensors").write_bytes(b"1235")
    assert len({before, after, identify(make_run(), "generate").hash}) == 3


@pytest.mark.parametrize("key", ["family.lora", "vocoder.path", "+family.adapter", "+family.speech"])
def test_weights_beside_the_family_count_by_content(make_run, tmp_path: Path, key: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "pytorch_lora_weights.safetensors").write_bytes(b"1234")
    first = identify(make_run(f"{key}={here}"), "generate").hash
    assert identify(make_run(f"{key}={there}"), "generate").hash == first
    (here / "pytorch_lora_weights.safetensors").write_bytes(b"1235")
    changed, without = (identify(make_run(*given), "generate").hash for given in ((f"{key}={here}",), ()))
    assert changed != first != without


@pytest.mark.parametrize(("key", "named", "written"), [
    ("vocoder.path", ".", "g_00000003"), ("vocoder.path", "g_00000003", "g_00000003"),
    ("vocoder.path", "g_00000003", "config.json"), ("+family.phoneme_bert", ".", "step_1.t7"),
    ("+family.phoneme_bert", ".", "config.yml"), ("+family.image", ".", "tokenizer/merges.txt")])
def test_published_checkpoints_count_by_content(make_run, tmp_path: Path, key: str, named: str,
                                                written: str) -> None:
    """Their files end otherwise than ours, and a vocoder may be named by its checkpoint."""
    published = tmp_path / "published"
    (published / written).parent.mkdir(parents=True)
    (published / "g_00000003").write_bytes(b"1233")
    hashes = []
    for content in (b"1234", b"1235"):
        (published / written).write_bytes(content)
        hashes.append(identify(make_run(f"{key}={published / named}"), "generate").hash)
    assert hashes[0] != hashes[1]


def test_the_folder_s_name_needs_no_quotes(make_run) -> None:
    prompt = config.quoted("image_prompt=it's, a = \"cat\"/dog")
    name = identify(make_run(prompt, "guidance.audio_weight=0.3"), "generate").folder
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+")
    assert OverridesParser.create().parse_override(f"run=logs/{name}").value() == f"logs/{name}"
    assert "audio_weight-0.3" in name
    long = identify(make_run(f"image_prompt={'cat ' * 100}"), "generate").folder
    assert len(long) < 100


# --- a run from opening to result

def test_writes_its_result_last(make_run) -> None:
    cfg = make_run()
    assert finished(cfg, "generate") is None
    with open_run(cfg, "generate") as run:
        assert run.result is None and not run.resumed
        assert read_json(run.dir / "run.json")["status"] == "running"
        assert (run.sample_dir("abc") == run.dir / "samples" / "abc") and run.sample_dir("abc").is_dir()
        run.log({"loss": np.float32(0.5), "bad": float("nan")}, 3)
        run.finish({"wer": np.float64(0.25), "clip": float("nan"), "where": run.dir, "pairs": (1, 2)})
    assert finished(cfg, "generate") == (run.dir, {"wer": 0.25, "clip": None, "where": str(run.dir),
                                                   "pairs": [1, 2]})
    info = read_json(run.dir / "run.json")
    assert info["status"] == "finished" and info["hash"] in run.dir.name
    assert len(info["commands"][0]["git"]) == 40 and info["commands"][0]["versions"]["torch"]
    assert json.loads(run.metrics_path.read_text()) == {"step": 3, "loss": 0.5, "bad": None}
    assert "wer" in (run.dir / "README.md").read_text()
    assert f"steps: {cfg.steps}" in (run.dir / "config.yaml").read_text()
    assert "0.25" in describe(run.result)


def test_goes_on_where_it_stopped(make_run) -> None:
    with pytest.raises(KeyboardInterrupt):
        with open_run(make_run(), "generate") as first:
            first.log({"a": 1}, 1)
            raise KeyboardInterrupt
    assert read_json(first.dir / "run.json")["status"] == "interrupted"
    with open(first.metrics_path, "a") as file:
        file.write('{"step": 2, "a"')  # killed while it wrote
    with open_run(make_run(), "generate") as second:
        assert second.dir == first.dir and second.resumed and second.result is None
        second.log({"a": 2}, 2)
        second.finish({})
    assert [json.loads(line)["step"] for line in second.metrics_path.read_text().splitlines()] == [1, 2]
    assert len(read_json(second.dir / "run.json")["commands"]) == 2


def test_fresh_makes_another_beside_it(make_run) -> None:
    for expected in ("", ".2", ".3"):
        with open_run(make_run("fresh=true"), "generate") as run:
            assert run.dir.name.endswith(run.identity.hash + expected)
    with open_run(make_run(), "generate") as run:  # goes on with the newest
        assert run.dir.name.endswith(".3")


def test_the_code_s_changes_are_kept(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_diff", lambda: "+ a line\n")
    with open_run(make_run(), "generate") as run:
        run.finish({})
    command = read_json(run.dir / "run.json")["commands"][0]
    assert (run.dir / command["diff"]).read_text() == "+ a line\n" and command["dirty"]
    assert command["diff"] in (run.dir / "README.md").read_text()


def test_the_card_shows_the_best(make_run) -> None:
    with open_run(make_run(), "generate") as run:
        for name, wer, clip in (("one", 0.5, 30.0), ("two", 0.0, 20.0), ("three", 0.0, 25.0)):
            write_json(run.sample_dir(name) / "sample.json", {
                "sample_id": name, "image_prompt": "a cat", "audio_prompt": "happy baby", "seed": 0,
                "scores": {"wer": wer, "clip": clip, "heard": "happy baby"}})
        for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
            run.log({"valid/loss": loss, "train/loss": 0.0}, step)
        run.finish({"wer": 0.25})
    card = (run.dir / "README.md").read_text()
    assert card.index("samples/three/image.png") < card.index("samples/two/") < card.index("samples/one/")
    assert "| valid/loss | 0.25 | 20 |" in card and "train/loss" not in card


def test_ranks_above_0_write_nothing(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under DDP each rank runs the whole script; the first holds the folder's lock."""
    with open_run(make_run("logger=wandb"), "generate") as first:
        before = sorted(first.dir.iterdir())
        monkeypatch.setenv("LOCAL_RANK", "1")
        with open_run(make_run("logger=wandb"), "generate") as second:
            assert second.dir == first.dir and second.wandb is None and second.loggers == []
            second.log({"loss": 1.0}, 1)
            assert second.finish({"a": float("nan")}) == {"a": None}
        assert sorted(first.dir.iterdir()) == before
        monkeypatch.delenv("LOCAL_RANK")


def test_two_processes_are_refused(make_run) -> None:
    with open_run(make_run(), "generate"):
        with pytest.raises(UserError, match=r"process \d+ on .* is at work"):
            with open_run(make_run(), "generate"):
                pass
    with open_run(make_run(), "generate"):
        pass


def test_a_killed_process_holds_nothing(make_run, tmp_path: Path) -> None:
    places = [f"paths.logs={tmp_path}/logs", f"paths.weights={tmp_path}/weights"]
    code = ("import os, signal\nfrom images_that_speak import config\n"
            "from images_that_speak.runs import open_run\n"
            f"cfg = config._compose('generate', {places})\n"
            "with open_run(cfg, 'generate') as run:\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == -9
    with open_run(make_run(), "generate") as run:
        assert run.resumed
        run.finish({})


def test_a_failure_is_recorded_and_passed_on(make_run) -> None:
    with pytest.raises(ZeroDivisionError):
        with open_run(make_run(), "generate") as run:
            _ = 1 / 0
    info = read_json(run.dir / "run.json")
    assert info["status"] == "failed" and "ZeroDivisionError" in info["error"]
    assert finished(make_run(), "generate") is None


def test_other_defaults_are_told(make_run, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(make_run(), "generate") as run:
        pass
    path = run.dir / "config.yaml"
    steps = make_run().steps
    path.write_text(path.read_text().replace(f"steps: {steps}", "steps: 7"))
    with caplog.at_level("WARNING"), open_run(make_run(), "generate"):
        pass
    assert f"steps: 7 → {steps}" in caplog.text and "fresh=true" in caplog.text


def test_a_full_disk_is_one_clear_error(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="No space left on device") as caught:
        with open_run(make_run(), "generate") as run:
            monkeypatch.setattr(files.os, "replace", full)
            run.finish({})
    assert str(run.dir) in str(caught.value)
    assert not (run.dir / "result.json").exists()
    assert not list(run.dir.glob("*.tmp*"))


def test_logs_that_cannot_be_written_are_named(make_run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="paths.logs"):
        with open_run(make_run(f"paths.logs={tmp_path}/file"), "generate"):
            pass


def test_plain_is_json() -> None:
    import torch

    value = {"a": torch.tensor(1.5), "b": np.arange(3), 3: {float("inf")}, "p": Path("x")}
    assert plain(value) == {"a": 1.5, "b": [0, 1, 2], "3": [None], "p": "x"}


# --- metrics of a training

def test_metrics_are_the_same_over_a_kill(tmp_path: Path) -> None:
    """Stopped after any batch and gone on with, metrics.jsonl has the bytes of a training never stopped."""
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torchdata.stateful_dataloader import StatefulDataLoader

    from images_that_speak.runs.metrics import MetricsJsonl

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss = (self.weight - batch.float().mean()).square().mean()
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("valid/weight", self.weight[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Kill(BaseException):
        pass

    class KillAfter(L.Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step == self.step:
                raise Kill

    def train(folder: Path, kill: int | None = None) -> bytes:
        last = folder / "checkpoints" / "last.ckpt"
        extra = [] if kill is None else [KillAfter(kill)]
        trainer = L.Trainer(
            max_steps=9, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, val_check_interval=3, num_sanity_val_steps=0,
            check_val_every_n_epoch=None,
            callbacks=[MetricsJsonl(folder / "metrics.jsonl", every=2), *extra,
                       ModelCheckpoint(folder / "checkpoints", every_n_train_steps=2, save_last=True)])
        train_loader = StatefulDataLoader(range(100), batch_size=2)
        valid_loader = StatefulDataLoader(range(2))
        try:
            trainer.fit(Module(), train_loader, valid_loader, weights_only=True,
                        ckpt_path=str(last) if last.exists() else None)
        except Kill:
            pass
        path = folder / "metrics.jsonl"
        return path.read_bytes() if path.exists() else b""

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = train(tmp_path / "whole")
    steps = [json.loads(line)["step"] for line in whole.splitlines()]
    assert steps == [2, 3, 4, 6, 6, 8, 9]
    for kill in (1, 5, 7):
        train(tmp_path / "stopped", kill)
    with open(tmp_path / "stopped" / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "tr')
    assert train(tmp_path / "stopped") == whole
